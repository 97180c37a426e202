// Brings a day's events back from their files, for a database that was lost or restored to a time before the logs begin.
import { applyEntries } from "../aggregate/apply.ts";
import { quarterOf, reopenSlice, stateOf, widen } from "../aggregate/sql/slices.ts";
import { ADD_SUMS } from "../aggregate/sql/sums.ts";
import { KEEP_BASES, TAKE_BASES } from "../aggregate/sql/survivors.ts";
import { namesOfKeys } from "../catalog/api-keys.ts";
import { aggregationsOf } from "../catalog/meters.ts";
import type { Aggregation } from "../domain/meter.ts";
import { err, ok, type Result } from "../domain/result.ts";
import { LIMB } from "../domain/value.ts";
import { basesOf } from "./bases.ts";
import { portionsOf } from "./entries.ts";
import { encodeFile } from "./file.ts";
import {
  type ArchiveFile,
  describeRows,
  filesOf,
  insertFile,
  prefixOfDay,
  readKey,
  replaceObject,
  type StoredAs,
} from "./manifest.ts";
import { readRows, readRowsToStore, sha256Of } from "./objects.ts";
import { inParts } from "./parts.ts";
import type { Row } from "./rows.ts";
import { inNamesOf, inNumbersOf } from "./series.ts";
import { countLacking } from "./strays.ts";
import type { ArchiveWork } from "./work.ts";

/** What became of a file: how many events it has, and how many of them the database lacked. */
export type RestoredFile = { readonly key: string; readonly events: number; readonly restored: number };

/**
 * Brings the next file of a UTC day (since 1970) back, after an object's key; nothing when there is none. An event
 * belongs to the slice of its receipt. Where the slice has its table, what the table lacks is stored into it, as when
 * a log sends it again, and the slice will be exported anew. Where it has none, the file is named in the manifest
 * again and its events counted in the sums, both in one transaction: they stay in the archive. So a file that the
 * manifest names changes nothing, and this may run again at any time. Yields a message when the file cannot be used.
 */
export async function restoreNextOfDay(
  work: ArchiveWork,
  day: number,
  after: string | undefined,
  now: number,
): Promise<Result<RestoredFile, string> | undefined> {
  const key = await keyAfter(work, day, after);
  if (key === undefined) return undefined;
  const storedAs = readKey(key);
  // Objects that somebody else put there.
  if (storedAs === undefined) return ok({ key, events: 0, restored: 0 });
  const { slice, file } = storedAs;
  const state = await stateOf(work.db, slice);
  const hasTable = state !== null && state !== "archived";
  const known = hasTable ? undefined : (await filesOf(work.db, slice)).find((each) => each.file === file);
  if (known !== undefined) return ok({ key, events: known.rows, restored: await findAgain(work, known, key) });
  const object = await work.bucket.get(key);
  if (object === null) return err(`${key} was deleted meanwhile`);
  const bytes = await object.arrayBuffer();
  const rows = await readRowsToStore(work, bytes);
  if (rows === undefined) return err(`${key} is damaged`);
  const meters = [...new Set(rows.map(({ meter }) => meter))];
  const aggregations = await aggregationsOf(work.env.DB, meters);
  const unknown = meters.find((meter) => !aggregations.has(meter));
  if (unknown !== undefined) return err(`the control database has no meter ${unknown}: bring its meters back first`);
  const restored = hasTable
    ? await fill(work.db, slice, rows, aggregations, now)
    : await adopt(work, { ...storedAs, key, bytes, rows }, aggregations);
  return ok({ key, events: rows.length, restored });
}

async function keyAfter(
  { bucket, place }: ArchiveWork,
  day: number,
  after: string | undefined,
): Promise<string | undefined> {
  const { objects } = await bucket.list({
    prefix: prefixOfDay(place, day),
    limit: 1,
    ...(after && { startAfter: after }),
  });
  return objects[0]?.key;
}

/**
 * Has the manifest name an object when the one that it names is gone: an erasure put it in its place, and the database
 * was restored to a time before. How many events that brings back.
 */
async function findAgain(work: ArchiveWork, known: ArchiveFile, key: string): Promise<number> {
  const { db, bucket } = work;
  if (known.key === key || (await bucket.head(known.key)) !== null) return 0;
  const bytes = await (await bucket.get(key))?.arrayBuffer();
  const rows = bytes && (await readRows(work, bytes));
  if (bytes === undefined || rows === undefined || describeRows(rows).checksum !== known.checksum) return 0;
  await replaceObject(db, known, { key, bytes: bytes.byteLength, sha256: sha256Of(bytes) }).run();
  return rows.length;
}

/** Stores the events of a file that a slice's table lacks. What was exported of the slice is forgotten first, so that it is exported again. */
async function fill(
  db: D1Database,
  slice: number,
  found: readonly Row[],
  aggregations: ReadonlyMap<string, Aggregation>,
  now: number,
): Promise<number> {
  const rows = await inNamesOf(db, slice, found);
  const lacking = await countLacking(db, slice, rows);
  if (lacking === 0) return 0;
  await db.batch(reopenSlice(db, slice));
  for (const entries of portionsOf(slice, rows, aggregations)) await applyEntries(db, [entries], now);
  return lacking;
}

/**
 * Breaks the transaction that it is in unless a slice (?1) is archived and its manifest lacks a file (?2): no state is
 * NULL.
 */
const UNLESS_LACKING = `
  UPDATE slices SET state = NULL
  WHERE slice = ?1 AND (state <> 'archived' OR EXISTS (SELECT 1 FROM archive_files WHERE slice = ?1 AND file = ?2))`;

const ARCHIVED = "INSERT INTO slices (slice, state) VALUES (?1, 'archived') ON CONFLICT DO NOTHING";

/** Sums of one statement: D1 binds up to 2 MB. */
const SUMS_AT_ONCE = 20_000;

/** An object of the archive, and what is in it. */
type FoundFile = StoredAs & { readonly key: string; readonly bytes: ArrayBuffer; readonly rows: readonly Row[] };

/**
 * Names a file in the manifest and counts its events. A file whose series have other numbers in this database is
 * written again with those, so that readers find its rows: the same bytes, however often this is repeated.
 */
async function adopt(
  { env, db, bucket, pause }: ArchiveWork,
  { slice, file, segment, key, ...found }: FoundFile,
  aggregations: ReadonlyMap<string, Aggregation>,
): Promise<number> {
  const rows = await inNumbersOf(db, found.rows);
  const isNumbered = rows === found.rows;
  const bytes = isNumbered ? new Uint8Array(found.bytes) : await encodeFile(rows, await namesOfKeys(env.DB), pause);
  const sha256 = sha256Of(bytes);
  if (!isNumbered) await bucket.put(key, bytes, { sha256 });
  const described = describeRows(rows);
  const bases = basesOf(rows, aggregations);
  await db.batch([
    db.prepare(ARCHIVED).bind(slice),
    db.prepare(UNLESS_LACKING).bind(slice, file),
    ...sumsOf(rows, aggregations).map((sums) => db.prepare(ADD_SUMS).bind(sums)),
    ...bases.flatMap((some) => [KEEP_BASES, TAKE_BASES].map((sql) => db.prepare(sql).bind(some))),
    insertFile(
      db,
      { slice, file, segment, ...described, bytes: bytes.length, key, sha256, checked: undefined },
      "archived",
    ),
    widen(db, slice, quarterOf(described.minTimestamp), quarterOf(described.maxTimestamp)),
  ]);
  return rows.length;
}

/** What the events of meters that add up make per series and quarter hour, for ADD_SUMS: JSON for a statement each. */
function sumsOf(rows: readonly Row[], aggregations: ReadonlyMap<string, Aggregation>): string[] {
  const sums = new Map<string, { readonly series: number; readonly quarter: number; count: number; sum: bigint }>();
  for (const { series, meter, timestamp, value, cancelled } of rows) {
    if (cancelled !== null || aggregations.get(meter) !== "additive") continue;
    const quarter = quarterOf(timestamp);
    const name = `${series}:${quarter}`;
    const sum = sums.get(name) ?? { series, quarter, count: 0, sum: 0n };
    sum.count++;
    sum.sum += BigInt(value);
    sums.set(name, sum);
  }
  const all = [...sums.values()].map(({ series, quarter, count, sum }) => [
    ...[series, quarter, count],
    ...[Number(sum / BigInt(LIMB)), Number(sum % BigInt(LIMB))],
  ]);
  return inParts(all, SUMS_AT_ONCE).map((part) => JSON.stringify(part));
}
