import type { Account } from "./account.ts";

/** A call of the API, below the account. */
export type ApiRequest = {
  readonly account: Account;
  /** What the route's path left open. */
  readonly params: readonly string[];
  readonly query: URLSearchParams;
  /** Its body as JSON: wrangler sends some of it as text. */
  readonly json: () => Record<string, unknown>;
  readonly form: () => Promise<FormData>;
};

/** What is answered with `success: false`. */
export class ApiFailure extends Error {
  readonly status: number;
  readonly code: number;

  constructor(status: number, code: number, message: string) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** A method, a path with `*` for one segment, and what is answered as its `result`. */
export type Route = readonly [method: string, path: string, handle: (request: ApiRequest) => unknown];

let made = 0;

/** An id like Cloudflare's, another each time. */
export function newId(): string {
  made += 1;
  return `00000000-0000-4000-8000-${String(made).padStart(12, "0")}`;
}
