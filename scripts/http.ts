import pRetry from "p-retry";
import { CommandError } from "./command-error.ts";

/** A server, and how patient to be with it. */
export type Server = {
  /** Without a slash at its end. */
  readonly url: string;
  readonly key: string;
  /** Once aborted nothing is tried again. */
  readonly stop?: AbortSignal;
  readonly onRetry?: () => void;
};

export type Request = {
  readonly method: "GET" | "POST";
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
};

/** An answer that a retry would not change: a 2xx, or a refusal. */
export type Answer = {
  readonly ok: boolean;
  readonly status: number;
  /** Parsed JSON, or nothing when it was not JSON. */
  readonly body: unknown;
};

/** How long one attempt may take (ms). */
const ATTEMPT_MS = 30_000;

/** The first wait before a retry, and the longest (ms). Each is up to twice as long at random. */
const FIRST_WAIT_MS = 100;
const LONGEST_WAIT_MS = 2_000;

/** No answer, or one that may be another one later. */
class Transient extends Error {}

/**
 * Sends a request until it is answered for good, for up to `patience` ms. Tries again after a lost
 * connection, 409, 429 and 5xx (wire contract, section 3). Throws a `CommandError` when patience
 * ends, and for an answer that makes every other request pointless.
 */
export async function send(server: Server, request: Request, patience: number): Promise<Answer> {
  try {
    return await pRetry(() => attempt(server, request), {
      retries: Number.POSITIVE_INFINITY,
      maxRetryTime: patience,
      minTimeout: FIRST_WAIT_MS,
      maxTimeout: LONGEST_WAIT_MS,
      randomize: true,
      shouldRetry: ({ error }) => error instanceof Transient && server.stop?.aborted !== true,
      onFailedAttempt: () => server.onRetry?.(),
    });
  } catch (error) {
    if (!(error instanceof Transient)) throw error;
    throw new CommandError(`gave up on ${server.url} after ${Math.round(patience / 1_000)} s: ${error.message}`);
  }
}

async function attempt(server: Server, request: Request): Promise<Answer> {
  const { response, text } = await exchange(server, request);
  const { ok, status } = response;
  const answer = { ok, status, body: parseJson(text) };
  const why = errorOf(answer).message;
  if (isExpired(answer)) return answer;
  if (status === 401 || status === 403) throw new CommandError(`the server refused the API key: ${why}`);
  if (status < 200 || (status >= 300 && status < 400)) {
    throw new CommandError(`${server.url} answered with status ${status}. Is it an edgemeter?`);
  }
  const final = status === 409 && response.headers.get("stripe-should-retry") === "false";
  if (!final && (status === 409 || status === 429 || status >= 500)) throw new Transient(why);
  return answer;
}

/** One request and its whole answer. */
async function exchange(server: Server, request: Request): Promise<{ response: Response; text: string }> {
  const timeout = new AbortController();
  const timer = setTimeout(() => timeout.abort(new Error(`no answer within ${ATTEMPT_MS / 1_000} s`)), ATTEMPT_MS);
  try {
    const response = await fetch(server.url + request.path, {
      method: request.method,
      headers: { authorization: `Bearer ${server.key}`, ...request.headers },
      body: request.body ?? null,
      redirect: "manual",
      signal: timeout.signal,
    });
    return { response, text: await response.text() };
  } catch (error) {
    throw new Transient(reasonOf(error));
  } finally {
    clearTimeout(timer);
  }
}

/** Whether a stream session has to be renewed (wire contract, section 2). */
export const isExpired = (answer: Answer): boolean =>
  answer.status === 401 && errorOf(answer).code === "billing_meter_event_session_expired";

/** fetch says "fetch failed"; its cause says why. */
function reasonOf(error: unknown): string {
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

/** The `error` of an answer (wire contract, section 2), as far as it has one. */
export function errorOf({ status, body }: Answer): { readonly code: string | undefined; readonly message: string } {
  const error = property(body, "error");
  const code = property(error, "code");
  const message = property(error, "message");
  return {
    code: typeof code === "string" ? code : undefined,
    message: typeof message === "string" ? message : `status ${status}`,
  };
}

const property = (value: unknown, key: string): unknown =>
  typeof value === "object" && value !== null ? Object.entries(value).find(([name]) => name === key)?.[1] : undefined;
