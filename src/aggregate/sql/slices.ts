// The slices of an events database: tables `events_S`, made from the template that is its table `events`.
import { TIMESTAMP_AHEAD_MS } from "../../domain/limits.ts";
import { HOUR_MS, QUARTER_HOUR_MS, sliceOf, type TimeRange } from "../../domain/window.ts";
import { bind } from "./bind.ts";
import { tableOf } from "./events.ts";

/**
 * - `open`: takes events and cancellations.
 * - `sealed`: can change no more; is being exported.
 * - `exported`: all of it is in files, which are being compared with it.
 * - `checked`: the files are right; it may be dropped.
 * - `archived`: its table is gone.
 */
export type SliceState = "open" | "sealed" | "exported" | "checked" | "archived";

/** A slice that has its table. */
export type LiveSlice = {
  readonly slice: number;
  /** Holds all its timestamps (ms, half open); nothing while it is empty. */
  readonly timestamps: TimeRange | undefined;
};

/** Slices whose tables are gone. */
export type ArchivedSlices = {
  readonly slices: readonly number[];
  /** Holds the timestamps of all of them (ms, half open). */
  readonly timestamps: TimeRange;
};

/** The slices that may hold timestamps of a range, as one moment has them. */
export type Holding = {
  readonly range: TimeRange;
  readonly live: readonly LiveSlice[];
  /** Nothing when there is none. */
  readonly archived: ArchivedSlices | undefined;
};

type RangeRow = { min_timestamp: number | null; max_timestamp: number | null };

const STATE = "SELECT state FROM slices WHERE slice = ?1";

const LIVE = "SELECT slice, min_timestamp, max_timestamp FROM slices WHERE state <> 'archived' ORDER BY slice";

/**
 * The slices that have their tables, a row each; and in one row those that have none any more and may hold timestamps
 * from :from to :to (ms, half open). One statement, so that a slice which is dropped meanwhile is in one of both.
 */
const BY_STATE = `
  SELECT slice, min_timestamp, max_timestamp, NULL AS archived FROM slices WHERE state <> 'archived'
  UNION ALL
  SELECT NULL, MIN(min_timestamp), MAX(max_timestamp), json_group_array(slice) FROM slices
  WHERE state = 'archived' AND slice >= :first AND min_timestamp < :to AND max_timestamp > :from`;

/** Breaks the transaction that it is in when a slice (?1) is archived: no state is NULL. */
const UNLESS_ARCHIVED = "UPDATE slices SET state = NULL WHERE slice = ?1 AND state = 'archived'";

const REGISTER = "INSERT INTO slices (slice, state) VALUES (?1, 'open') ON CONFLICT DO NOTHING";

/** A slice's files say what it held: once it holds something else they are forgotten, and it is as if it were new. */
const REOPEN = [
  `DELETE FROM archive_files WHERE slice = ?1
    AND ?1 IN (SELECT slice FROM slices WHERE state IN ('sealed', 'exported', 'checked'))`,
  `UPDATE slices SET state = 'open', skipped_to = NULL, checked = NULL, recounted = 0, failed = NULL
    WHERE slice = ?1 AND state IN ('sealed', 'exported', 'checked')`,
] as const;

/** Makes a slice's range hold what is stored into it: ?2 to ?3 (ms, half open). Writes only when it grows. */
const WIDEN = `
  UPDATE slices SET
    min_timestamp = MIN(COALESCE(min_timestamp, ?2), ?2),
    max_timestamp = MAX(COALESCE(max_timestamp, ?3), ?3)
  WHERE slice = ?1 AND (min_timestamp IS NULL OR min_timestamp > ?2 OR max_timestamp < ?3)`;

/** The template, its indexes, and what tables of slices have of it. */
const DEFINITIONS = `
  SELECT name, sql FROM sqlite_schema WHERE tbl_name = 'events' AND sql IS NOT NULL ORDER BY type DESC`;

const MISSING_INDEXES = `
  SELECT own.name AS slice, wanted.name, wanted.sql
  FROM sqlite_schema AS own JOIN sqlite_schema AS wanted ON wanted.tbl_name = 'events'
  WHERE own.type = 'table' AND own.name GLOB 'events_[0-9]*' AND wanted.type = 'index' AND wanted.sql IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM sqlite_schema AS known WHERE known.name = wanted.name || '_' || own.name)`;

const MISSING_COLUMNS = `
  SELECT own.name AS slice, wanted.name, wanted.type, wanted.dflt_value AS initial
  FROM sqlite_schema AS own JOIN pragma_table_info('events') AS wanted
  WHERE own.type = 'table' AND own.name GLOB 'events_[0-9]*'
    AND NOT EXISTS (SELECT 1 FROM pragma_table_info(own.name) AS known WHERE known.name = wanted.name)`;

/** The slices that have their tables, oldest first. */
export async function liveSlices(db: D1Database): Promise<LiveSlice[]> {
  const { results } = await db.prepare(LIVE).all<RangeRow & { slice: number }>();
  return results.map((row) => ({ slice: row.slice, timestamps: rangeOf(row) }));
}

const rangeOf = ({ min_timestamp: start, max_timestamp: end }: RangeRow): TimeRange | undefined =>
  start === null || end === null ? undefined : { start, end };

/** Those of some slices that may hold timestamps of a range. */
export const holding = (slices: readonly LiveSlice[], range: TimeRange): LiveSlice[] =>
  slices.filter(({ timestamps }) => timestamps && timestamps.start < range.end && range.start < timestamps.end);

/** By how much the clocks of an edge and of a log may differ (ms). */
export const CLOCKS_MS = HOUR_MS;

/** The slices, live and archived, that may hold timestamps of each of some ranges. */
export async function slicesHolding(db: D1Database, ranges: readonly TimeRange[]): Promise<Holding[]> {
  const answers = await db.batch<RangeRow & { slice: number | null; archived: string | null }>(
    ranges.map(({ start, end }) => {
      // An event is received at most five minutes before its timestamp. How long after it has no limit: what was a dead
      // letter may be in a much later slice.
      const first = sliceOf(Math.max(0, start - TIMESTAMP_AHEAD_MS - CLOCKS_MS));
      return bind(db, BY_STATE, { first, from: start, to: end });
    }),
  );
  return ranges.map((range, i) => {
    const rows = answers[i]?.results ?? [];
    const live = rows.flatMap((row) => (row.slice === null ? [] : { slice: row.slice, timestamps: rangeOf(row) }));
    const gone = rows.find(({ archived }) => archived !== null);
    const timestamps = gone && rangeOf(gone);
    const archived = timestamps && { slices: JSON.parse(gone?.archived ?? "[]"), timestamps };
    return { range, live: holding(live, range), archived };
  });
}

/** The quarter hour (since 1970) of a time (ms). */
export const quarterOf = (time: number): number => Math.floor(time / QUARTER_HOUR_MS);

/** The statement that has a slice's range hold quarter hours, from the first to the last (since 1970). */
export const widen = (db: D1Database, slice: number, from: number, to: number): D1PreparedStatement =>
  db.prepare(WIDEN).bind(slice, from * QUARTER_HOUR_MS, (to + 1) * QUARTER_HOUR_MS);

/**
 * Gives a slice its table, unless it had one that is gone: then `archived`. May run again at any time; it makes
 * the shape that the template has now. The slice's state.
 */
export async function openSlice(db: D1Database, slice: number): Promise<SliceState> {
  const state = await stateOf(db, slice);
  if (state === "archived") return state;
  const definitions = await definitionsOf(db, tableOf(slice));
  try {
    await db.batch([db.prepare(UNLESS_ARCHIVED).bind(slice), ...definitions, db.prepare(REGISTER).bind(slice)]);
  } catch (error) {
    // Its table was dropped meanwhile.
    if ((await stateOf(db, slice)) === "archived") return "archived";
    throw error;
  }
  return state ?? "open";
}

/**
 * The statements that make a table of the template's shape of today, with its indexes, unless it is there. Indexes are
 * named after the table that it will be in the end, since they cannot be renamed.
 */
export async function definitionsOf(
  db: D1Database,
  table: string,
  inTheEnd: string = table,
): Promise<D1PreparedStatement[]> {
  const { results } = await db.prepare(DEFINITIONS).all<{ name: string; sql: string }>();
  return results.map(({ name, sql }) => db.prepare(definitionOf(sql, name, table, inTheEnd)));
}

/** A slice's state; nothing when the database knows no such slice. */
export const stateOf = (db: D1Database, slice: number): Promise<SliceState | null> =>
  db.prepare(STATE).bind(slice).first<SliceState>("state");

/**
 * For the transaction that changes a slice which was sealed, or for one before it: the slice is opened again and its
 * files are forgotten, so that it is sealed and exported anew. The last statement changes a row when it was. No effect
 * on a slice that is open or has no table.
 */
export const reopenSlice = (db: D1Database, slice: number): D1PreparedStatement[] =>
  REOPEN.map((sql) => db.prepare(sql).bind(slice));

/** The slice whose table D1 says that it has not. */
export function sliceWithoutTable(error: unknown): number | undefined {
  const [, slice] = /no such table: events_(\d+)/.exec(error instanceof Error ? error.message : "") ?? [];
  return slice === undefined ? undefined : Number(slice);
}

/** Whether D1 says that a table lacks a column or an index: a live slice may be older than the template. */
export const isAboutShape = (error: unknown): boolean =>
  error instanceof Error && /no such column|has no column named|no such index/.test(error.message);

/** The template's definition under a slice's name: the table's, or that of an index of it. */
function definitionOf(sql: string, name: string, table: string, inTheEnd: string): string {
  const made = sql.replace(/^CREATE (TABLE|UNIQUE INDEX|INDEX) /i, "CREATE $1 IF NOT EXISTS ");
  if (name === "events") return made.replace(/\bevents\b/, table);
  return made.replace(name, `${name}_${inTheEnd}`).replace(/\bON events\b/i, `ON ${table}`);
}

/**
 * Gives live slices the columns and indexes that a migration has given the template since, also those that are sealed:
 * readers ask all of them in the same words. A file keeps the columns of its day, and what compares it looks at no others.
 */
export async function bringSlicesForward(db: D1Database): Promise<void> {
  const { results } = await db
    .prepare(MISSING_COLUMNS)
    .all<{ slice: string; name: string; type: string; initial: string | null }>();
  for (const { slice, name, type, initial } of results) {
    await db.prepare(`ALTER TABLE ${slice} ADD COLUMN ${name} ${type} DEFAULT ${initial ?? "NULL"}`).run();
  }
  const indexes = await db.prepare(MISSING_INDEXES).all<{ slice: string; name: string; sql: string }>();
  for (const { slice, name, sql } of indexes.results) await db.prepare(definitionOf(sql, name, slice, slice)).run();
}
