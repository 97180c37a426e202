import { UNIQUENESS_MS } from "../metering/limits.ts";

/** A POST that came with an Idempotency-Key. */
export type KeyedRequest = {
  readonly livemode: boolean;
  readonly key: string;
  /** Digest of method, path and body. */
  readonly digest: string;
};

type FirstAnswer = { request: string; response: string };

const FIND_ANSWER = "SELECT request, response FROM idempotency_keys WHERE livemode = ?1 AND key = ?2 AND created > ?3";

const SAVE_ANSWER =
  "INSERT INTO idempotency_keys (livemode, key, request, response, created) VALUES (?1, ?2, ?3, ?4, ?5)";

const FREE_KEY = "DELETE FROM idempotency_keys WHERE livemode = ?1 AND key = ?2 AND created <= ?3";

const DELETE_EXPIRED = "DELETE FROM idempotency_keys WHERE created <= ?1";

/** The body first answered to this key; `reused` when the key came with another request; nothing when it is new. */
export async function findAnswer(
  db: D1Database,
  request: KeyedRequest,
  now: number,
): Promise<{ body: string } | "reused" | undefined> {
  const row = await db
    .prepare(FIND_ANSWER)
    .bind(request.livemode ? 1 : 0, request.key, now - UNIQUENESS_MS)
    .first<FirstAnswer>();
  if (row === null) return undefined;
  return row.request === request.digest ? { body: row.response } : "reused";
}

/** Statements that remember an answer; in one transaction with the change it answers. A key that is taken makes it fail. */
export function saveAnswer(db: D1Database, request: KeyedRequest, body: string, now: number): D1PreparedStatement[] {
  const livemode = request.livemode ? 1 : 0;
  return [
    db.prepare(FREE_KEY).bind(livemode, request.key, now - UNIQUENESS_MS),
    db.prepare(SAVE_ANSWER).bind(livemode, request.key, request.digest, body, now),
  ];
}

export async function deleteExpiredAnswers(db: D1Database, now: number): Promise<void> {
  await db
    .prepare(DELETE_EXPIRED)
    .bind(now - UNIQUENESS_MS)
    .run();
}
