// One request of the load at a time, and what its answer says.

export type HttpRequest = {
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Without one it is a GET. */
  readonly body?: string;
};

export type Answer = { readonly status: number; readonly text: string; readonly retry: boolean };

/** How long one attempt may take (ms). A server that was killed does not let anyone wait for it. */
const ATTEMPT_MS = 20_000;

/** One attempt: its answer, or nothing when the connection was lost before there was one. */
export async function attempt(url: string, { path, headers, body }: HttpRequest): Promise<Answer | undefined> {
  try {
    const response = await fetch(url + path, {
      method: body === undefined ? "GET" : "POST",
      headers,
      body: body ?? null,
      signal: AbortSignal.timeout(ATTEMPT_MS),
    });
    const retry = response.headers.get("stripe-should-retry") !== "false";
    return { status: response.status, text: await response.text(), retry };
  } catch {
    return undefined;
  }
}

/**
 * - `ok`: a 200;
 * - `unanswered`: a lost connection or a 5xx: nobody can say what came of it;
 * - `later`: refused for now, and nothing came of it;
 * - the others: refused for good.
 */
export type Verdict =
  | "ok"
  | "unanswered"
  | "later"
  | "duplicate"
  | "key_reused"
  | "already_cancelled"
  | "session_expired"
  | "refused";

/** What an answer means to whoever sent the request (wire contract, section 2). */
export function verdictOf(answer: Answer | undefined): Verdict {
  if (answer === undefined || answer.status >= 500) return "unanswered";
  const { status, text, retry } = answer;
  if (status === 200) return "ok";
  if (status === 429 || (status === 409 && retry)) return "later";
  if (text.includes("An event already exists with identifier")) return "duplicate";
  if (text.includes('"idempotency_error"')) return "key_reused";
  if (text.includes("is already cancelled")) return "already_cancelled";
  return text.includes('"billing_meter_event_session_expired"') ? "session_expired" : "refused";
}
