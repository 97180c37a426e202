import type { Route } from "../../support/fuzz/requests.ts";
import type { Exchange } from "./send.ts";
import { CANARIES } from "./world.ts";

/** Errors of different status, code or parameter that a route must have answered. */
const ERRORS_PER_ROUTE = 4;

/** The part of the requests that must have had good credentials. */
const AUTHENTICATED = 0.2;

type Seen = { succeeded: number; readonly errors: Set<string> };

/** What a run has reached, so that it cannot become a row of 401s unnoticed. */
export class Tally {
  requests = 0;
  readonly #routes: readonly Route[];
  readonly #statuses = new Map<number, number>();
  readonly #seen = new Map<string, Seen>();
  readonly #canaries = { test: 0, live: 0 };
  #authenticated = 0;

  constructor(routes: readonly Route[]) {
    this.#routes = routes;
  }

  add({ request, sent, status, answer, mode }: Exchange): void {
    this.requests++;
    this.#statuses.set(status, (this.#statuses.get(status) ?? 0) + 1);
    if (mode !== undefined && status !== 401 && status !== 404 && status !== 405) this.#authenticated++;
    if (mode !== undefined && CANARIES[mode].test(answer)) this.#canaries[mode]++;
    const route = `${sent.method.toLowerCase()} ${request.path}`;
    const seen = this.#seen.get(route) ?? { succeeded: 0, errors: new Set() };
    this.#seen.set(route, seen);
    if (status < 300) seen.succeeded++;
    else seen.errors.add(`${status} ${sent.method === "HEAD" ? "" : kindOf(answer)}`);
  }

  /** One line: how many requests, by status. */
  summary(): string {
    const statuses = [...this.#statuses].sort(([a], [b]) => a - b).map(([status, count]) => `${status}: ${count}`);
    return `${this.requests} requests, ${this.#authenticated} past authentication (${statuses.join(", ")})`;
  }

  /** What the run has not reached and should have, each in a sentence. */
  gaps(): string[] {
    const gaps: string[] = [];
    if (this.#authenticated < this.requests * AUTHENTICATED) gaps.push("too few requests pass authentication");
    for (const [mode, count] of Object.entries(this.#canaries)) {
      if (count === 0) gaps.push(`no caller of ${mode} mode saw its own data`);
    }
    for (const { method, path } of this.#routes) {
      const seen = this.#seen.get(`${method} ${path}`);
      if (seen === undefined || seen.succeeded === 0) {
        gaps.push(`${method} ${path} never succeeded: what it takes belongs in test/support/fuzz/valid-requests.ts`);
      } else if (path.startsWith("/v") && seen.errors.size < ERRORS_PER_ROUTE) {
        gaps.push(`${method} ${path} answered too few kinds of errors: ${[...seen.errors].join(", ")}`);
      }
    }
    return gaps;
  }
}

function kindOf(answer: string): string {
  const { code, param }: { code?: string; param?: string } = JSON.parse(answer).error;
  return `${code ?? ""} ${param ?? ""}`;
}
