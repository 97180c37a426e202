// Who holds an identifier: the rows of the log's `identifiers_S` tables. Partitions (partitions.ts) cuts the tables by time.

/** What the log remembers of an accepted entry. Times in ms. */
export type Accepted = {
  /** None for the claim of an Idempotency-Key, which is no event. */
  readonly eventId: string | undefined;
  readonly received: number;
  readonly timestamp: number;
  readonly keyDigest: string | undefined;
  readonly reportDigest: string;
};

/** The cancellation of an event: the adjustment's id, when (ms), and the number of the API key that cancelled it. */
export type Cancelled = { readonly id: string; readonly at: number; readonly by: number };

/** Who holds an identifier. */
export type Holder = Accepted & { readonly cancelled: Cancelled | undefined };

type HolderRow = {
  key: string;
  event_id: string | null;
  received: number;
  timestamp: number;
  key_digest: string | null;
  report_digest: string;
  cancelled: string | null;
};

/** Who held unique keys last, in these partitions, the newest first. */
export function findLastIn(
  sql: SqlStorage,
  partitions: readonly number[],
  keys: readonly string[],
): Map<string, Holder> {
  const found = new Map<string, Holder>();
  let missing = keys;
  for (const partition of partitions) {
    if (missing.length === 0) break;
    const rows = sql.exec<HolderRow>(
      `SELECT key, event_id, received, timestamp, key_digest, report_digest, cancelled
       FROM identifiers_${partition} WHERE key IN (SELECT value FROM json_each(?))`,
      JSON.stringify(missing),
    );
    for (const row of rows.toArray()) found.set(row.key, toHolder(row));
    missing = missing.filter((key) => !found.has(key));
  }
  return found;
}

/** Remembers who holds unique keys. One row each, one statement for all. */
export function insertInto(
  sql: SqlStorage,
  partition: number,
  accepted: readonly (Accepted & { readonly key: string })[],
): void {
  sql.exec(
    `INSERT INTO identifiers_${partition} (key, event_id, received, timestamp, key_digest, report_digest)
     SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5
     FROM json_each(?)`,
    JSON.stringify(
      accepted.map(({ key, eventId, received, timestamp, keyDigest, reportDigest }) => [
        ...[key, eventId, received],
        ...[timestamp, keyDigest, reportDigest],
      ]),
    ),
  );
}

/** Notes that an event was cancelled. One row. */
export function markCancelled(sql: SqlStorage, partition: number, key: string, cancelled: Cancelled): void {
  sql.exec(`UPDATE identifiers_${partition} SET cancelled = ? WHERE key = ?`, JSON.stringify(cancelled), key);
}

const toHolder = (row: HolderRow): Holder => ({
  eventId: row.event_id ?? undefined,
  received: row.received,
  timestamp: row.timestamp,
  keyDigest: row.key_digest ?? undefined,
  reportDigest: row.report_digest,
  cancelled: row.cancelled === null ? undefined : JSON.parse(row.cancelled),
});
