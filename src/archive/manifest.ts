// The table `archive_files`: what each file of the archive has, and where it is.
import { bind } from "../aggregate/sql/bind.ts";
import { DIRECTION, type Order } from "../aggregate/sql/events.ts";
import { LATE_MS } from "../domain/limits.ts";
import { LIMB } from "../domain/value.ts";
import { DAY_MS } from "../domain/window.ts";
import { checksumOf } from "./file.ts";
import { type OfMeter, type Row, type RowKey, type RowRange, type Totals, totalsOf } from "./rows.ts";
import { compareSegments, type Segment } from "./segments.ts";

/** A file of the archive. */
export type ArchiveFile = Totals & {
  readonly slice: number;
  /** From 0 on within its slice, in the order of segments and keys. */
  readonly file: number;
  readonly segment: Segment;
  readonly first: RowKey;
  readonly last: RowKey;
  /** Of its timestamps (ms); both are among them. */
  readonly minTimestamp: number;
  readonly maxTimestamp: number;
  /** Of the times from timestamp to receipt (ms), the greatest or more. */
  readonly maxDelay: number;
  /** Its events were received between them (ms); both may be among the times. */
  readonly minReceived: number;
  readonly maxReceived: number;
  /** See `checksumOf`. */
  readonly checksum: string;
  readonly bytes: number;
  /** Of the object in R2. */
  readonly key: string;
  /** Of the object, in hex. */
  readonly sha256: string;
  /** When it was read back and compared with its events (ms). */
  readonly checked: number | undefined;
};

const COLUMNS = `
  slice, file, late, day, first_series, first_timestamp, first_id, last_series, last_timestamp, last_id,
  min_timestamp, max_timestamp, max_delay, min_received, max_received, rows, counted, sum_high, sum_low, checksum, bytes,
  key, sha256`;

/**
 * An archiver that is late repeats what another has done: its row says the same. A slice that was opened again meanwhile
 * has no files.
 */
const INSERT = `
  INSERT INTO archive_files (${COLUMNS})
  SELECT
    :slice, :file, :late, :day, :first_series, :first_timestamp, :first_id, :last_series, :last_timestamp, :last_id,
    :min_timestamp, :max_timestamp, :max_delay, :min_received, :max_received, :rows, :counted, :sum_high, :sum_low,
    :checksum, :bytes, :key, :sha256
  WHERE :slice IN (SELECT slice FROM slices WHERE state = :state)
  ON CONFLICT DO NOTHING`;

const OF_SLICE = `SELECT ${COLUMNS}, checked FROM archive_files WHERE slice = ?1 ORDER BY file`;

const LAST_OF_SLICE = `SELECT ${COLUMNS}, checked FROM archive_files WHERE slice = ?1 ORDER BY file DESC LIMIT 1`;

/** The files that may have rows of a meter with timestamps of a range (ms, half open). */
const OF_METER = `
  SELECT ${COLUMNS}, checked FROM archive_files
  WHERE slice = :slice AND min_timestamp < :end AND max_timestamp >= :start AND EXISTS (
    SELECT 1 FROM series WHERE meter = :meter AND id BETWEEN first_series AND last_series
  )
  ORDER BY file`;

const NEXT_OF_DAY = `
  SELECT ${COLUMNS}, checked FROM archive_files
  WHERE day = ?1 AND (slice, file) > (?2, ?3) ORDER BY slice, file LIMIT 1`;

const UNCHECKED = `SELECT ${COLUMNS}, checked FROM archive_files
  WHERE slice = ?1 AND file >= (SELECT MIN(file) FROM archive_files WHERE slice = ?1 AND checked IS NULL) - 1
  ORDER BY file LIMIT 3`;

/** The first file after :slice and :file whose range has one of :series (a JSON array). */
const NEXT_WITH = `SELECT ${COLUMNS}, checked FROM archive_files
  WHERE (slice, file) > (:slice, :file)
    AND EXISTS (SELECT 1 FROM json_each(:series) WHERE value BETWEEN first_series AND last_series)
  ORDER BY slice, file LIMIT 1`;

/** What has its table is compared again; what has none was compared before it was written again. */
const REPLACE = `
  UPDATE archive_files SET key = :key, bytes = :bytes, sha256 = :sha256,
    checked = IIF((SELECT state FROM slices WHERE slice = :slice) = 'archived', checked, NULL)
  WHERE slice = :slice AND file = :file AND key = :replaced`;

const KEY_OF = "SELECT key FROM archive_files WHERE slice = ?1 AND file = ?2";

const CHECKED = "UPDATE archive_files SET checked = ?3 WHERE slice = ?1 AND file = ?2";

/**
 * The files of archived slices (:slices, a JSON array) that may hold rows from :from to :to (ms, half open) of the series
 * that `wanted` selects: those that begin before the last such row can stand, and end after the first can. In the order
 * of their timestamps, for which days come first, since a file is of one.
 */
export const filesHolding = (wanted: string, order: Order): string => `
  WITH wanted AS MATERIALIZED (${wanted})
  SELECT ${COLUMNS}, checked FROM archive_files
  WHERE day >= CAST(:from AS INTEGER) / ${DAY_MS} AND day <= CAST(:to - 1 AS INTEGER) / ${DAY_MS}
    AND min_timestamp < :to AND max_timestamp >= :from
    AND slice IN (SELECT value FROM json_each(:slices))
    AND EXISTS (
      SELECT 1 FROM wanted
      WHERE (first_series, first_timestamp) < (series, :to) AND (last_series, last_timestamp) >= (series, :from)
    )
  ORDER BY day ${DIRECTION[order]}, ${order === "newest_first" ? "max_timestamp DESC" : "min_timestamp"}
  LIMIT :limit`;

/**
 * The files of archived slices (:slices, a JSON array) that may have events of a meter (and of :customer, unless that is
 * NULL) which came at least :delay late (LATE_MS or more), with timestamps from :from to :to and received from
 * :received_from to :received_to (ms, half open). In the order of receipt, which the index has.
 */
export const filesOfLate = (order: Order): string => `
  SELECT ${COLUMNS}, checked FROM archive_files INDEXED BY late_files
  WHERE max_delay >= ${LATE_MS} AND max_delay >= :delay
    AND min_received < :received_to AND max_received >= :received_from
    AND min_timestamp < :to AND max_timestamp >= :from
    AND slice IN (SELECT value FROM json_each(:slices))
    AND EXISTS (
      SELECT 1 FROM series
      WHERE meter = :meter AND (:customer IS NULL OR customer = :customer) AND id BETWEEN first_series AND last_series
    )
  ORDER BY ${order === "newest_first" ? "max_received DESC" : "min_received"}
  LIMIT :limit`;

export type FileRow = {
  slice: number;
  file: number;
  late: number;
  day: number;
  first_series: number;
  first_timestamp: number;
  first_id: string;
  last_series: number;
  last_timestamp: number;
  last_id: string;
  min_timestamp: number;
  max_timestamp: number;
  max_delay: number;
  min_received: number;
  max_received: number;
  rows: number;
  counted: number;
  sum_high: number;
  sum_low: number;
  checksum: string;
  bytes: number;
  key: string;
  sha256: string;
  checked: number | null;
};

export const toFile = (row: FileRow): ArchiveFile => ({
  slice: row.slice,
  file: row.file,
  segment: { isLate: row.late === 1, day: row.day },
  first: { series: row.first_series, timestamp: row.first_timestamp, id: row.first_id },
  last: { series: row.last_series, timestamp: row.last_timestamp, id: row.last_id },
  minTimestamp: row.min_timestamp,
  maxTimestamp: row.max_timestamp,
  maxDelay: row.max_delay,
  minReceived: row.min_received,
  maxReceived: row.max_received,
  rows: row.rows,
  counted: row.counted,
  sum: BigInt(row.sum_high) * BigInt(LIMB) + BigInt(row.sum_low),
  checksum: row.checksum,
  bytes: row.bytes,
  key: row.key,
  sha256: row.sha256,
  checked: row.checked ?? undefined,
});

/** What the manifest says of rows that are one file. Throws for none. */
export function describeRows(
  rows: readonly Row[],
): Omit<ArchiveFile, "slice" | "file" | "segment" | "bytes" | "key" | "sha256" | "checked"> {
  const [first, last] = [rows[0], rows.at(-1)];
  if (first === undefined || last === undefined) throw new Error("a file without rows");
  let [minTimestamp, maxTimestamp] = [first.timestamp, first.timestamp];
  let [minReceived, maxReceived] = [first.received, first.received];
  let maxDelay = first.received - first.timestamp;
  for (const { timestamp, received } of rows) {
    minTimestamp = Math.min(minTimestamp, timestamp);
    maxTimestamp = Math.max(maxTimestamp, timestamp);
    minReceived = Math.min(minReceived, received);
    maxReceived = Math.max(maxReceived, received);
    maxDelay = Math.max(maxDelay, received - timestamp);
  }
  const bounds = { minTimestamp, maxTimestamp, maxDelay, minReceived, maxReceived };
  return { ...totalsOf(rows), ...bounds, first, last, checksum: checksumOf(rows) };
}

/** Whether two descriptions are of the same rows. */
export const isSameTotal = (one: Totals, other: Totals): boolean =>
  one.rows === other.rows && one.counted === other.counted && one.sum === other.sum;

/** Names a file in the manifest while its slice has a state: `sealed` as it is exported, `archived` when it is restored. */
export const insertFile = (
  db: D1Database,
  file: ArchiveFile,
  state: "sealed" | "archived" = "sealed",
): D1PreparedStatement =>
  bind(db, INSERT, {
    state,
    ...{ slice: file.slice, file: file.file, late: Number(file.segment.isLate), day: file.segment.day },
    ...{ first_series: file.first.series, first_timestamp: file.first.timestamp, first_id: file.first.id },
    ...{ last_series: file.last.series, last_timestamp: file.last.timestamp, last_id: file.last.id },
    ...{ min_timestamp: file.minTimestamp, max_timestamp: file.maxTimestamp },
    ...{ max_delay: file.maxDelay, min_received: file.minReceived, max_received: file.maxReceived },
    ...{ rows: file.rows, counted: file.counted },
    ...{ sum_high: Number(file.sum / BigInt(LIMB)), sum_low: Number(file.sum % BigInt(LIMB)) },
    ...{ checksum: file.checksum, bytes: file.bytes, key: file.key, sha256: file.sha256 },
  });

export const markChecked = (db: D1Database, { slice, file }: ArchiveFile, now: number): D1PreparedStatement =>
  db.prepare(CHECKED).bind(slice, file, now);

/** The next file after another, in the order of slices and files, that may have events of some series. */
export async function nextFileWith(
  db: D1Database,
  series: readonly number[],
  after: Pick<ArchiveFile, "slice" | "file">,
): Promise<ArchiveFile | undefined> {
  const values = { slice: after.slice, file: after.file, series: JSON.stringify(series) };
  const row = await bind(db, NEXT_WITH, values).first<FileRow>();
  return row === null ? undefined : toFile(row);
}

/** The statement that puts another object in the place of a file's. */
export const replaceObject = (
  db: D1Database,
  { slice, file, key: replaced }: ArchiveFile,
  object: Pick<ArchiveFile, "key" | "bytes" | "sha256">,
): D1PreparedStatement => bind(db, REPLACE, { slice, file, replaced, ...object });

/** The key that the manifest names for a file; nothing when its slice was opened again. */
export const keyInManifest = (db: D1Database, { slice, file }: ArchiveFile): Promise<string | null> =>
  db.prepare(KEY_OF).bind(slice, file).first<string>("key");

/** The files of a slice, in their order. */
export async function filesOf(db: D1Database, slice: number): Promise<ArchiveFile[]> {
  return (await db.prepare(OF_SLICE).bind(slice).all<FileRow>()).results.map(toFile);
}

/** The files of a slice that may have some rows of a meter, in their order. */
export async function filesOfMeter(
  db: D1Database,
  slice: number,
  { meter, timestamps }: OfMeter,
): Promise<ArchiveFile[]> {
  return (await bind(db, OF_METER, { slice, meter, ...timestamps }).all<FileRow>()).results.map(toFile);
}

/** The first file of a UTC day (since 1970) after another, by slice and number. */
export async function nextFileOfDay(
  db: D1Database,
  day: number,
  after: { readonly slice: number; readonly file: number },
): Promise<ArchiveFile | undefined> {
  const row = await db.prepare(NEXT_OF_DAY).bind(day, after.slice, after.file).first<FileRow>();
  return row === null ? undefined : toFile(row);
}

export async function lastFileOf(db: D1Database, slice: number): Promise<ArchiveFile | undefined> {
  const row = await db.prepare(LAST_OF_SLICE).bind(slice).first<FileRow>();
  return row === null ? undefined : toFile(row);
}

/** A file and the range of the rows that must be in it: no row of a segment is outside of its files' ranges. */
export type FileWithRange = { readonly file: ArchiveFile; readonly range: RowRange };

/** The ranges of consecutive files of a slice; `before` and `behind` are the files next to them. */
export const rangesOf = (files: readonly ArchiveFile[], before?: ArchiveFile, behind?: ArchiveFile): FileWithRange[] =>
  files.map((file, i) => ({
    file,
    range: {
      segment: file.segment,
      after: isSameSegment(file, files[i - 1] ?? before) ? (files[i - 1] ?? before)?.last : undefined,
      through: isSameSegment(file, files[i + 1] ?? behind) ? file.last : undefined,
    },
  }));

const isSameSegment = ({ segment }: ArchiveFile, other: ArchiveFile | undefined): boolean =>
  other !== undefined && compareSegments(segment, other.segment) === 0;

/** The first file of a slice that was not read back yet; nothing when all were. */
export async function firstUnchecked(db: D1Database, slice: number): Promise<FileWithRange | undefined> {
  const files = (await db.prepare(UNCHECKED).bind(slice).all<FileRow>()).results.map(toFile);
  return rangesOf(files).find(({ file }) => file.checked === undefined);
}

/** Where a database's objects of a UTC day (since 1970) stand. */
export const prefixOfDay = (place: number, day: number): string =>
  `events/day=${new Date(day * DAY_MS).toISOString().slice(0, 10)}/db=${String(place).padStart(2, "0")}/`;

/** Where a slice's objects of a UTC day stand. */
export const prefixOf = (place: number, slice: number, day: number): string =>
  `${prefixOfDay(place, day)}slice=${slice}/`;

/** What a key says of its file. */
export type StoredAs = Pick<ArchiveFile, "slice" | "file" | "segment">;

const KEY = /^events\/day=([\d-]{10})\/db=\d+\/slice=(\d+)\/late=([01])\/(\d+)\b.*\.parquet$/;

/** What an object's key says; nothing when it is none of a file. */
export function readKey(key: string): StoredAs | undefined {
  const [, day = "", slice, late, file] = KEY.exec(key) ?? [];
  const segment = { isLate: late === "1", day: Date.parse(day) / DAY_MS };
  return Number.isInteger(segment.day) ? { slice: Number(slice), file: Number(file), segment } : undefined;
}

/** What the keys of a file and of those that took its place begin with. */
export const stemOf = (place: number, slice: number, { isLate, day }: Segment, file: number): string =>
  `${prefixOf(place, slice, day)}late=${Number(isLate)}/${String(file).padStart(5, "0")}.`;

/**
 * The key of a file: the same for the same file, so that a repetition overwrites the same bytes. One that is written
 * again because of an erasure has another for each `revision`.
 */
export const keyOf = (place: number, slice: number, segment: Segment, file: number, revision?: string): string =>
  `${stemOf(place, slice, segment, file)}${revision === undefined ? "" : `${revision}.`}parquet`;
