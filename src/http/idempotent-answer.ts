import { digest } from "../domain/identifiers.ts";
import { err, ok, type Result } from "../domain/result.ts";
import { type Answer, answerFirstGivenTo, type Call } from "./endpoint.ts";
import type { ApiError } from "./errors.ts";
import { findAnswer, type KeyedRequest, saveAnswer } from "./stored-answers.ts";

/** What a POST is going to change, and the body that answers it. */
export type Change = {
  readonly body: string;
  readonly statements: readonly D1PreparedStatement[];
  /** Finds the rule that made the transaction fail with `error`, if it was one. */
  readonly explain?: (error: unknown) => Promise<ApiError | undefined>;
};

/**
 * Carries out a POST at most once per Idempotency-Key: the first answer is stored in the same
 * transaction as the change, and answers every retry. Failures are not stored, so they may be tried again.
 */
export async function commitOnce(
  call: Call<object>,
  prepare: () => Promise<Result<Change, ApiError>>,
): Promise<Answer> {
  const earlier = await answerOf(call);
  if (earlier !== undefined) return earlier;
  const change = await prepare();
  if (!change.ok) return change;
  const { body, statements, explain } = change.value;
  const { env, idempotencyKey, now, token } = call;
  const answer =
    idempotencyKey === undefined ? [] : saveAnswer(env.DB, keyed(call, idempotencyKey), { body, token }, now);
  const all = [...answer, ...statements];
  if (all.length === 0) return ok(body);
  try {
    await env.DB.batch(all);
    return ok(body);
  } catch (error) {
    // Another request with this key was first, or a rule of the schema was in the way, or D1 failed.
    const meanwhile = await answerOf(call);
    if (meanwhile !== undefined) return meanwhile;
    const reason = await explain?.(error);
    if (reason !== undefined) return err(reason);
    throw error;
  }
}

async function answerOf(call: Call<object>): Promise<Answer | undefined> {
  const { env, idempotencyKey, now } = call;
  if (idempotencyKey === undefined) return undefined;
  const found = await findAnswer(env.DB, keyed(call, idempotencyKey), now);
  if (found === undefined) return undefined;
  return found === "reused"
    ? err({ reason: "idempotency_key_reused", key: idempotencyKey })
    : ok(answerFirstGivenTo(found.token, found.body, call));
}

const keyed = ({ endpoint, input, key }: Call<object>, idempotencyKey: string): KeyedRequest => ({
  livemode: key.livemode,
  key: idempotencyKey,
  digest: digest(endpoint, JSON.stringify(input)),
});
