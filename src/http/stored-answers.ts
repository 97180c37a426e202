import { deleteInPortions } from "../catalog/placement.ts";
import { UNIQUENESS_MS } from "../domain/limits.ts";

/** A POST that came with an Idempotency-Key. */
export type KeyedRequest = {
  readonly livemode: boolean;
  readonly key: string;
  /** Digest of method, path and body. */
  readonly digest: string;
};

/** A body that was answered with 200, and the token of the request that it answered. */
type FirstAnswer = { readonly body: string; readonly token: string };

const FIND_ANSWER =
  "SELECT request, response, token FROM idempotency_keys WHERE livemode = ?1 AND key = ?2 AND created > ?3";

const SAVE_ANSWER =
  "INSERT INTO idempotency_keys (livemode, key, request, response, token, created) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

const FREE_KEY = "DELETE FROM idempotency_keys WHERE livemode = ?1 AND key = ?2 AND created <= ?3";

const DELETE_EXPIRED = `
  DELETE FROM idempotency_keys
  WHERE (livemode, key) IN (SELECT livemode, key FROM idempotency_keys WHERE created <= ?1 LIMIT ?2)`;

/** The first answer to this key; `reused` when the key came with another request; nothing when it is new. */
export async function findAnswer(
  db: D1Database,
  request: KeyedRequest,
  now: number,
): Promise<FirstAnswer | "reused" | undefined> {
  const row = await db
    .prepare(FIND_ANSWER)
    .bind(request.livemode ? 1 : 0, request.key, now - UNIQUENESS_MS)
    .first<{ request: string; response: string; token: string }>();
  if (row === null) return undefined;
  return row.request === request.digest ? { body: row.response, token: row.token } : "reused";
}

/** Statements that remember an answer; in one transaction with the change it answers. A key that is taken makes it fail. */
export function saveAnswer(
  db: D1Database,
  request: KeyedRequest,
  { body, token }: FirstAnswer,
  now: number,
): D1PreparedStatement[] {
  const livemode = request.livemode ? 1 : 0;
  return [
    db.prepare(FREE_KEY).bind(livemode, request.key, now - UNIQUENESS_MS),
    db.prepare(SAVE_ANSWER).bind(livemode, request.key, request.digest, body, token, now),
  ];
}

/** Deletes the answers that have expired, so many at a time that others of the database are not held up. `now` in ms. */
export const deleteExpiredAnswers = (db: D1Database, now: number): Promise<void> =>
  deleteInPortions((rows) => db.prepare(DELETE_EXPIRED).bind(now - UNIQUENESS_MS, rows));
