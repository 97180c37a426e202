import pRetry from "p-retry";
import { z } from "zod";
import { CommandError } from "./command-error.ts";

/** A server, and how patient to be with it. */
type Server = {
  /** Without a slash at its end. */
  readonly url: string;
  readonly key: string;
  /** Once aborted, no request is retried. */
  readonly stop?: AbortSignal;
  readonly onRetry?: () => void;
  /** How long a request is tried: by default long enough for the server to be restarted (ms). */
  readonly patienceMs?: number;
  /** The same until the server has answered once: nothing is done yet, so a missing server is soon reported (ms). */
  readonly firstPatienceMs?: number;
};

/** A POST when it has a body, and a GET when not. */
type Request = {
  readonly path: string;
  /** The server's unless given. */
  readonly key?: string;
  readonly json?: object;
  readonly form?: Readonly<Record<string, string>>;
  readonly idempotencyKey?: string;
  readonly headers?: Readonly<Record<string, string>>;
};

/** A response that a retry would not change: a 2xx, or a refusal with its code and message. */
export type Answer = {
  readonly ok: boolean;
  readonly status: number;
  /** Parsed JSON; `undefined` when it was not JSON. */
  readonly body: unknown;
  readonly code: string | undefined;
  readonly message: string;
};

/** How long one attempt may take (ms). */
const ATTEMPT_MS = 30_000;

/** No response, or one that a retry may change. */
class Transient extends Error {}

const Refusal = z.object({ error: z.object({ code: z.string().optional().catch(undefined), message: z.string() }) });

/** The requests of one command to one edgemeter. They throw a `CommandError` when patience ends. */
export class Client {
  readonly #server: Server;
  #hasAnswered = false;

  constructor(server: Server) {
    this.#server = server;
  }

  /** The response to a request, parsed. Throws a `CommandError` for a refusal, and for what is not as `schema` says. */
  async call<T>(request: Request, schema: z.ZodType<T>): Promise<T> {
    const answer = await this.send(request);
    if (!answer.ok) throw new CommandError(`${nameOf(request)}: ${answer.message}`);
    return parseAnswer(request, answer, schema);
  }

  /** The objects of all pages of a list. `path` has a query already. */
  async *list<T extends { readonly id: string }>(path: string, object: z.ZodType<T>): AsyncGenerator<T, void> {
    const Page = z.object({ data: z.array(object), has_more: z.boolean() });
    let after = "";
    for (let hasMore = true; hasMore; ) {
      const page: z.output<typeof Page> = await this.call({ path: `${path}&limit=100${after}` }, Page);
      yield* page.data;
      after = `&starting_after=${encodeURIComponent(page.data.at(-1)?.id ?? "")}`;
      hasMore = page.has_more && page.data.length > 0;
    }
  }

  /**
   * Sends a request until its response is final. It retries after a lost connection, and after a 409,
   * 429 or 5xx that does not say that a retry is of no use.
   * Throws a `CommandError` also for a response that makes every other request pointless.
   */
  async send(request: Request): Promise<Answer> {
    const { url, stop, onRetry, patienceMs = 60_000, firstPatienceMs = 3_000 } = this.#server;
    const patience = this.#hasAnswered ? patienceMs : firstPatienceMs;
    try {
      const answer = await pRetry(() => this.#attempt(request), {
        retries: Number.POSITIVE_INFINITY,
        maxRetryTime: patience,
        minTimeout: 100,
        maxTimeout: 2_000,
        randomize: true,
        shouldRetry: ({ error }) => error instanceof Transient && stop?.aborted !== true,
        onFailedAttempt: () => onRetry?.(),
      });
      this.#hasAnswered = true;
      return answer;
    } catch (error) {
      if (!(error instanceof Transient)) throw error;
      throw new CommandError(`gave up on ${url} after ${Math.round(patience / 1_000)} s: ${error.message}`);
    }
  }

  async #attempt(request: Request): Promise<Answer> {
    const { url } = this.#server;
    const { response, text } = await this.#exchange(request);
    const { ok, status } = response;
    const body = parseJson(text);
    const { code, message } = Refusal.safeParse(body).data?.error ?? { code: undefined, message: `status ${status}` };
    const answer = { ok, status, body, code, message };
    if (isExpired(answer)) return answer;
    if (status === 401 || status === 403) throw new CommandError(`the server refused the API key: ${message}`);
    if (status < 200 || (status >= 300 && status < 400)) {
      throw new CommandError(`${url} answered with status ${status}. Is it an edgemeter?`);
    }
    const isFinal = response.headers.get("stripe-should-retry") === "false";
    if (!isFinal && (status === 409 || status === 429 || status >= 500)) throw new Transient(message);
    return answer;
  }

  /** One request and its whole response. */
  async #exchange(request: Request): Promise<{ response: Response; text: string }> {
    const { path, key = this.#server.key, json, form, idempotencyKey, headers } = request;
    try {
      const response = await fetch(this.#server.url + path, {
        method: methodOf(request),
        headers: {
          authorization: `Bearer ${key}`,
          ...(json && { "content-type": "application/json" }),
          ...(idempotencyKey && { "idempotency-key": idempotencyKey }),
          ...headers,
        },
        body: json === undefined ? (form && new URLSearchParams(form)) || null : JSON.stringify(json),
        redirect: "manual",
        signal: AbortSignal.timeout(ATTEMPT_MS),
      });
      return { response, text: await response.text() };
    } catch (error) {
      throw new Transient(reasonOf(error));
    }
  }
}

const methodOf = ({ json, form }: Request): string => (json === undefined && form === undefined ? "GET" : "POST");

const nameOf = (request: Request): string => `${methodOf(request)} ${request.path.replace(/\?.*/, "")}`;

/** What a success says. Throws a `CommandError` when it is not as `schema` says. */
export function parseAnswer<T>(request: Request, { body }: Answer, schema: z.ZodType<T>): T {
  const parsed = schema.safeParse(body);
  if (parsed.success) return parsed.data;
  throw new CommandError(`the response to ${nameOf(request)} is not understood. Is it another version?`);
}

/** Whether a stream session has to be renewed. */
export const isExpired = ({ status, code }: Answer): boolean =>
  status === 401 && code === "billing_meter_event_session_expired";

/** Why a fetch failed: it says "fetch failed" itself, and its cause says why. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { cause } = error;
  if (!(cause instanceof Error)) return error.message;
  return cause.message || ("code" in cause ? String(cause.code) : error.message);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
