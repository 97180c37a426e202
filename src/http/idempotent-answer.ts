// The first response to a POST with an Idempotency-Key is stored with the change that it responds to.
import { deleteInPortions } from "../catalog/queries.ts";
import { digest } from "../domain/identifiers.ts";
import { UNIQUENESS_MS } from "../domain/limits.ts";
import { err, ok, type Result } from "../domain/result.ts";
import type { Call } from "./endpoint.ts";
import type { ApiError } from "./errors.ts";
import { firstGivenTo, type Handled, toJson } from "./response.ts";

/** What a POST is going to change, and the response to it. */
export type Change<T extends object> = {
  readonly response: T;
  readonly statements: readonly D1PreparedStatement[];
  /** Finds the rule that made the transaction fail with `error`, if it was one. */
  readonly explain?: (error: unknown) => Promise<ApiError | undefined>;
};

/** A POST that came with an Idempotency-Key. */
type KeyedRequest = {
  readonly livemode: 0 | 1;
  readonly key: string;
  /** Digest of the endpoint and its parameters. */
  readonly digest: string;
};

const FIND_RESPONSE =
  "SELECT request, response, token FROM idempotency_keys WHERE livemode = ?1 AND key = ?2 AND created > ?3";

const SAVE_RESPONSE =
  "INSERT INTO idempotency_keys (livemode, key, request, response, token, created) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

const FREE_KEY = "DELETE FROM idempotency_keys WHERE livemode = ?1 AND key = ?2 AND created <= ?3";

/** The responses of a mode (?1) that have a text, ?2. */
const FIND_WITH = "SELECT key, response FROM idempotency_keys WHERE livemode = ?1 AND instr(response, ?2) > 0";

const REPLACE_RESPONSE = "UPDATE idempotency_keys SET response = ?3 WHERE livemode = ?1 AND key = ?2";

const DELETE_EXPIRED = `
  DELETE FROM idempotency_keys
  WHERE (livemode, key) IN (SELECT livemode, key FROM idempotency_keys WHERE created <= ?1 LIMIT ?2)`;

/**
 * Carries out a POST at most once per Idempotency-Key: the first response is stored in the same
 * transaction as the change, and every retry gets it. Failures are not stored, so they may be retried.
 */
export async function commitOnce<T extends object>(
  call: Call<object>,
  prepare: () => Promise<Result<Change<T>, ApiError>>,
): Promise<Handled<T>> {
  const request = keyedRequest(call);
  const earlier = await findResponse(request, call);
  if (earlier !== undefined) return earlier;
  const change = await prepare();
  if (!change.ok) return change;
  const { response, statements, explain } = change.value;
  const all = [...saveResponse(request, response, call), ...statements];
  if (all.length === 0) return ok(response);
  try {
    await call.env.DB.batch(all);
    return ok(response);
  } catch (error) {
    // Another request with this key was first, or a rule of the schema was in the way, or D1 failed.
    const meanwhile = await findResponse(request, call);
    if (meanwhile !== undefined) return meanwhile;
    const reason = await explain?.(error);
    if (reason !== undefined) return err(reason);
    throw error;
  }
}

/**
 * Replaces the stored responses of a mode that have a text in a string: `erase` gives what takes a response's place, or
 * nothing. How many.
 */
export async function eraseResponses(
  db: D1Database,
  livemode: boolean,
  text: string,
  erase: (response: unknown) => object | undefined,
): Promise<number> {
  const mode = livemode ? 1 : 0;
  const stored = JSON.stringify(text).slice(1, -1);
  const { results } = await db.prepare(FIND_WITH).bind(mode, stored).all<{ key: string; response: string }>();
  const statements = results.flatMap(({ key, response }) => {
    const erased = erase(JSON.parse(response));
    return erased === undefined ? [] : [db.prepare(REPLACE_RESPONSE).bind(mode, key, toJson(erased))];
  });
  if (statements.length > 0) await db.batch(statements);
  return statements.length;
}

/** Deletes the responses that have expired, so many at a time that others of the database are not held up. `now` in ms. */
export const deleteExpiredResponses = (db: D1Database, now: number): Promise<void> =>
  deleteInPortions((rows) => db.prepare(DELETE_EXPIRED).bind(now - UNIQUENESS_MS, rows));

function keyedRequest({ endpoint, idempotencyKey, input, key }: Call<object>): KeyedRequest | undefined {
  if (idempotencyKey === undefined) return undefined;
  return { livemode: key.livemode ? 1 : 0, key: idempotencyKey, digest: digest(endpoint, JSON.stringify(input)) };
}

/** The first response to a request's key; a failure when the key came with another request; nothing when it is new. */
async function findResponse(
  request: KeyedRequest | undefined,
  call: Call<object>,
): Promise<Handled<never> | undefined> {
  if (request === undefined) return undefined;
  const found = await call.env.DB.prepare(FIND_RESPONSE)
    .bind(request.livemode, request.key, call.now - UNIQUENESS_MS)
    .first<{ request: string; response: string; token: string }>();
  if (found === null) return undefined;
  return found.request === request.digest
    ? firstGivenTo<never>(found.token, found.response)
    : err({ reason: "idempotency_key_reused", key: request.key });
}

/** Statements that remember a response; in one transaction with its change. A key that is taken makes it fail. */
function saveResponse(
  request: KeyedRequest | undefined,
  response: object,
  { env, now, token }: Call<object>,
): D1PreparedStatement[] {
  if (request === undefined) return [];
  const { livemode, key, digest } = request;
  return [
    env.DB.prepare(FREE_KEY).bind(livemode, key, now - UNIQUENESS_MS),
    env.DB.prepare(SAVE_RESPONSE).bind(livemode, key, digest, toJson(response), token, now),
  ];
}
