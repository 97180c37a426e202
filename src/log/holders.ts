// Who holds a unique key: the rows of the log's `holders_S` tables. Partitions (partitions.ts) cuts the tables by time.
import type { LogEntry } from "./codec.ts";
import { packDigest, packedAt, packKey, unpackDigest } from "./packed.ts";

/** The cancellation of an event: the adjustment's id, when (ms), and the number of the API key that cancelled it. */
export type Cancelled = { readonly id: string; readonly at: number; readonly by: number };

/** Where an event is: its group's id, and how many entries of the group come before it. */
export type EventPlace = { readonly group: number; readonly index: number };

/** Who holds a unique key. Times in ms. */
export type Holder = {
  readonly received: number;
  /** What it says; two of the same key are the same when this is. */
  readonly reportDigest: string;
  readonly keyDigest: string | undefined;
  /** The event, looked up when it is asked for; none for the claim of an Idempotency-Key and for a rejection. */
  readonly event: () => Pick<LogEntry, "id" | "timestamp" | "received"> | undefined;
};

/** A holder as it is stored. */
export type StoredHolder = Holder & {
  readonly place: EventPlace | undefined;
  /** That of its event; or what the Idempotency-Key of a cancellation was answered. */
  readonly cancelled: Cancelled | undefined;
};

/** A row to be: `group` names the time of receipt also where there is no event. */
export type NewHolder = Pick<Holder, "reportDigest" | "keyDigest"> & {
  readonly key: string;
  readonly group: number;
  readonly index: number | undefined;
  readonly cancelled?: Cancelled;
};

export type HolderRow = {
  key: ArrayBuffer | string;
  grp: number;
  place: number | null;
  report: ArrayBuffer | string;
  key_digest: ArrayBuffer | string | null;
  answer: string | null;
};

/** The rows of unique keys in one partition, by their keys. */
export function findIn(sql: SqlStorage, partition: number, keys: readonly string[]): Map<string, HolderRow> {
  const packed = keys.map((key) => ({ key, packed: packKey(key) }));
  const rows = sql
    .exec<HolderRow>(
      `SELECT key, grp, place, report, key_digest, answer
       FROM holders_${partition} WHERE key IN (SELECT ${packedAt(0)} FROM json_each(?))`,
      JSON.stringify(packed.map((each) => each.packed)),
    )
    .toArray();
  if (rows.length === 0) return new Map();
  const byKey = new Map(rows.map((row) => [nameOf(row.key), row]));
  return new Map(
    packed.flatMap(({ key, packed: [hex, text] }) => {
      const row = byKey.get(hex === null ? `=${text}` : hex);
      return row === undefined ? [] : [[key, row]];
    }),
  );
}

/** A stored key as a name: its bytes in hex, or `=` and its text. */
const nameOf = (key: ArrayBuffer | string): string =>
  typeof key === "string" ? `=${key}` : Buffer.from(key).toString("hex");

/** Remembers who holds unique keys. One row each, one statement for all. `first`: the first group id of the partition. */
export function insertInto(sql: SqlStorage, partition: number, first: number, holders: readonly NewHolder[]): void {
  sql.exec(
    `INSERT INTO holders_${partition} (key, grp, place, report, key_digest, answer)
     SELECT ${packedAt(0)}, value ->> 2, value ->> 3, ${packedAt(4)}, ${packedAt(6)}, value ->> 8 FROM json_each(?)`,
    JSON.stringify(
      holders.map(({ key, group, index, reportDigest, keyDigest, cancelled }) => [
        ...packKey(key),
        group - first,
        index,
        ...packDigest(reportDigest),
        ...(keyDigest === undefined ? [null, null] : packDigest(keyDigest)),
        cancelled && JSON.stringify(cancelled),
      ]),
    ),
  );
}

/** Notes that an event was cancelled. One row. */
export function markCancelled(sql: SqlStorage, partition: number, key: string, cancelled: Cancelled): void {
  sql.exec(
    `UPDATE holders_${partition} SET answer = ?1 WHERE key = (SELECT ${packedAt(0)} FROM json_each(?2))`,
    JSON.stringify(cancelled),
    JSON.stringify([packKey(key)]),
  );
}

/** A row as a holder. `eventAt` looks an event up, `timeOf` gives a group's time of receipt (ms). */
export function toHolder(
  row: HolderRow,
  first: number,
  timeOf: (group: number) => number,
  eventAt: (place: EventPlace) => LogEntry,
): StoredHolder {
  const group = first + row.grp;
  const place = row.place === null ? undefined : { group, index: row.place };
  return {
    received: timeOf(group),
    reportDigest: unpackDigest(row.report),
    keyDigest: row.key_digest === null ? undefined : unpackDigest(row.key_digest),
    place,
    event: () => place && eventAt(place),
    cancelled: row.answer === null ? undefined : JSON.parse(row.answer),
  };
}
