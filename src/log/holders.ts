// Who holds a unique key: the rows of the log's `holders_S` tables. Partitions (partitions.ts) cuts the tables by time.
import type { LogEntry } from "./codec.ts";
import { packDigest, packedAt, packKey, toStored, unpackDigest } from "./packed.ts";

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

/** The most parameters that a statement of an object's SQLite takes. */
const PARAMETERS = 100;

/**
 * Remembers who holds unique keys. One row each. `first`: the first group id of the partition. When it throws, a part may
 * be there: a statement that takes itself back (one without FAIL, or with a function in it) has SQLite copy each page
 * before it changes it, a page a row, which takes longer than the rows do.
 */
export function insertInto(sql: SqlStorage, partition: number, first: number, holders: readonly NewHolder[]): void {
  const isWide = holders.some(({ keyDigest, cancelled }) => keyDigest !== undefined || cancelled !== undefined);
  const columns = ["key", "grp", "place", "report", ...(isWide ? ["key_digest", "answer"] : [])];
  const row = `(${columns.map(() => "?").join(", ")})`;
  const most = Math.floor(PARAMETERS / columns.length);
  for (let from = 0; from < holders.length; from += most) {
    const rows = holders.slice(from, from + most);
    const values = rows.flatMap(({ key, group, index, reportDigest, keyDigest, cancelled }) => [
      packKey(key),
      group - first,
      index ?? null,
      packDigest(reportDigest),
      ...(isWide
        ? [keyDigest === undefined ? null : packDigest(keyDigest), cancelled ? JSON.stringify(cancelled) : null]
        : []),
    ]);
    sql.exec(
      `INSERT OR FAIL INTO holders_${partition} (${columns.join(", ")}) VALUES ${rows.map(() => row).join(", ")}`,
      ...toStored(values),
    );
  }
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
