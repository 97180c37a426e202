// The rows of a meter in a slice, wherever the slice is: in its table, or in files of the archive.
import { createHash } from "node:crypto";
import { type KeyNames, namesOfKeys } from "../catalog/api-keys.ts";
import { isLiveMeter } from "../domain/meter.ts";
import type { Env } from "../env.ts";
import { decodeRowsOfMeter } from "./file.ts";
import { filesOfMeter } from "./manifest.ts";
import { LAST, nextSegment, type OfMeter, type Row, type RowKey, readRows } from "./rows.ts";
import { compareSegments, type Segment, timestampsOf } from "./segments.ts";
import { archivedUntil } from "./states.ts";

/** Where a reader of a slice has come to: after a key of a segment. Tables and files are read in the same order. */
export type ScanPlace = { readonly segment: Segment; readonly after: RowKey };

/** Rows of a segment that follow one another, and the key up to which there are no others. */
type Stretch = { readonly segment: Segment; readonly rows: readonly Row[]; readonly end: RowKey };

type Scan = { readonly slice: number; readonly only: OfMeter; readonly from: ScanPlace | undefined };

/** Reads a meter's rows of a slice that has its table, segment by segment, each in the order of the key. Up to `most` rows. */
export async function* scanTable(db: D1Database, { slice, only, from }: Scan, most: number): AsyncGenerator<Stretch> {
  let left = most;
  let after = from?.after;
  let segment = from?.segment ?? (await nextSegment(db, slice, undefined, only));
  while (segment !== undefined) {
    for await (const rows of readRows(db, slice, { segment, only, after }, left)) {
      yield { segment, rows, end: rows.at(-1) ?? LAST };
      left -= rows.length;
      if (left <= 0) return;
    }
    yield { segment, rows: [], end: LAST };
    after = undefined;
    segment = await nextSegment(db, slice, segment, only);
  }
}

/** Events exist no more: all that are wanted have timestamps from a time (ms) on. */
export class DeletedEvents extends Error {
  readonly before: number;

  constructor(what: string, before: number) {
    super(what);
    this.before = before;
  }
}

/**
 * Reads a meter's rows of an archived slice, in the order of `scanTable`. Throws `DeletedEvents` in test mode, which has
 * no archive, and for a file that was deleted; any other error when R2 does not respond, or with other bytes than were
 * checked.
 */
export async function* scanFiles(
  { DB, ARCHIVE }: Env,
  db: D1Database,
  { slice, only, from }: Scan,
): AsyncGenerator<Stretch> {
  if (!isLiveMeter(only.meter)) throw new DeletedEvents("slices of test mode", await archivedUntil(db));
  if (ARCHIVE === undefined) throw new Error("events are in the archive, but no bucket is bound as ARCHIVE");
  let keys: KeyNames | undefined;
  for (const { key, sha256, segment, last } of await filesOfMeter(db, slice, only)) {
    const order = from === undefined ? 1 : compareSegments(segment, from.segment);
    const after = order === 0 ? from?.after : undefined;
    if (order < 0 || (after !== undefined && compareKeys(last, after) <= 0)) continue;
    const object = await ARCHIVE.get(key);
    if (object === null) throw new DeletedEvents(key, timestampsOf(slice, segment).within.end);
    const bytes = await object.arrayBuffer();
    if (createHash("sha256").update(new Uint8Array(bytes)).digest("hex") !== sha256) {
      throw new Error(`${key} in the archive is not the file that was written`);
    }
    keys ??= await namesOfKeys(DB);
    for await (const found of decodeRowsOfMeter(bytes, keys, only, after?.series ?? 0)) {
      const rows = after === undefined ? found : found.filter((row) => compareKeys(row, after) > 0);
      yield { segment, rows, end: rows.at(-1) ?? after ?? LAST };
    }
    yield { segment, rows: [], end: last };
  }
}

const compareKeys = (one: RowKey, other: RowKey): number =>
  one.series - other.series || one.timestamp - other.timestamp || (one.id < other.id ? -1 : Number(one.id > other.id));
