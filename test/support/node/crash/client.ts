// One request at a time, and what its response says.
import { LOCAL_KEYS } from "../../../../scripts/local-keys.ts";

/** A request of either API version: without a body a GET; of v1 the body is written as a form, of v2 as JSON. */
export type Call = {
  readonly path: string;
  readonly body?: object;
  /** The Idempotency-Key. */
  readonly key?: string | undefined;
  /** Of a session; without one it is live mode's local API key. */
  readonly token?: string | undefined;
};

export type Answer = { readonly status: number; readonly text: string; readonly retry: boolean };

/** How long one attempt may take (ms): a server that was killed keeps no caller waiting for longer. */
const ATTEMPT_MS = 20_000;

/** One attempt: its response, or nothing when the connection was lost before there was one. */
export async function attempt(url: string, call: Call): Promise<Answer | undefined> {
  const { path, body, key, token = LOCAL_KEYS.live } = call;
  const [type, write] = path.startsWith("/v1/")
    ? (["application/x-www-form-urlencoded", formOf] as const)
    : (["application/json", JSON.stringify] as const);
  try {
    const response = await fetch(url + path, {
      method: body === undefined ? "GET" : "POST",
      headers: {
        authorization: `Bearer ${token}`,
        "content-type": type,
        ...(key === undefined ? {} : { "idempotency-key": key }),
      },
      body: body === undefined ? null : write(body),
      signal: AbortSignal.timeout(ATTEMPT_MS),
    });
    const retry = response.headers.get("stripe-should-retry") !== "false";
    return { status: response.status, text: await response.text(), retry };
  } catch {
    return undefined;
  }
}

/** Fields, and maps of fields in them, as a form; absent ones are left out. */
const formOf = (fields: object): string =>
  new URLSearchParams(
    Object.entries(fields).flatMap(([name, value]) => {
      if (typeof value !== "object") return value === undefined ? [] : [[name, String(value)]];
      return Object.entries(value).map(([inner, text]) => [`${name}[${inner}]`, String(text)]);
    }),
  ).toString();

/**
 * The body of a response; whole numbers past 2^53 keep their digits, as bigints. Throws when the server does not
 * answer with a 200.
 */
export async function read<T>(url: string, call: Call): Promise<T> {
  const answer = await attempt(url, call);
  if (answer?.status !== 200) throw new Error(`${call.path}: ${answer?.status ?? "no answer"} ${answer?.text ?? ""}`);
  const exact = (_: string, value: unknown, { source = "" }: { source?: string } = {}): unknown =>
    typeof value === "number" && !Number.isSafeInteger(value) ? BigInt(source) : value;
  return JSON.parse(answer.text, exact);
}

/** All pages of a list. Throws when the server does not answer. */
export async function list<T extends { readonly id: string }>(
  url: string,
  path: string,
  query: Readonly<Record<string, string>>,
): Promise<T[]> {
  const all: T[] = [];
  for (let more = true; more; ) {
    const cursor = all.length === 0 ? {} : { starting_after: all.at(-1)?.id ?? "" };
    const page = await read<{ data: T[]; has_more: boolean }>(url, {
      path: `${path}?${new URLSearchParams({ ...query, limit: "100", ...cursor })}`,
    });
    all.push(...page.data);
    more = page.has_more;
  }
  return all;
}

/**
 * - `ok`: a 200;
 * - `unanswered`: a lost connection or a 5xx, so what came of it is unknown;
 * - `later`: refused for now, and nothing came of it;
 * - the others: refused for good.
 */
export type Verdict = "ok" | "unanswered" | "later" | (typeof REFUSALS)[number][0] | "refused";

const REFUSALS = [
  ["duplicate", "An event already exists with identifier"],
  ["key_reused", '"idempotency_error"'],
  ["already_cancelled", "is already cancelled"],
  ["session_expired", '"billing_meter_event_session_expired"'],
] as const;

/** What a response means to the sender of the request. */
export function verdictOf(answer: Answer | undefined): Verdict {
  if (answer === undefined || answer.status >= 500) return "unanswered";
  const { status, text, retry } = answer;
  if (status === 200) return "ok";
  if (status === 429 || (status === 409 && retry)) return "later";
  return REFUSALS.find(([, sign]) => text.includes(sign))?.[0] ?? "refused";
}
