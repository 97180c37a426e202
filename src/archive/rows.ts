// The rows of a slice as the archive has them, in the order of the table's key.
import { bind } from "../aggregate/sql/bind.ts";
import { tableOf } from "../aggregate/sql/events.ts";
import { keepBasesOf } from "../aggregate/sql/survivors.ts";
import { uuidOf } from "../domain/identifiers.ts";
import type { Aggregation } from "../domain/meter.ts";
import { LIMB } from "../domain/value.ts";
import type { TimeRange } from "../domain/window.ts";
import { dayOf, firstSegment, onTimeOf, type Segment, timestampsOf } from "./segments.ts";

/** A stored event with everything that is known of it. Times in ms. */
export type Row = {
  readonly series: number;
  readonly meter: string;
  readonly customer: string;
  readonly timestamp: number;
  readonly id: string;
  readonly identifier: string;
  readonly value: number;
  readonly received: number;
  /** JSON of the dimensions that the meter declares; null without. */
  readonly dimensions: string | null;
  /** JSON of what else was in the payload; null for nothing. */
  readonly payload: string | null;
  /** The number of the API key that reported it. */
  readonly apiKey: number;
  readonly cancelled: number | null;
  readonly cancelledBy: number | null;
};

/** Where a row stands in its table. */
export type RowKey = Pick<Row, "series" | "timestamp" | "id">;

/** The rows of a meter whose timestamps lie in a range (ms). */
export type OfMeter = { readonly meter: string; readonly timestamps: TimeRange };

/** Rows of a segment, after one key and up to another; all of them, or those of a meter. */
export type RowRange = {
  readonly segment: Segment;
  readonly only?: OfMeter;
  /** Without this one; from the segment's first row when there is none. */
  readonly after?: RowKey | undefined;
  /** With this one; to the segment's last row when there is none. */
  readonly through?: RowKey | undefined;
};

/** What rows add up to. */
export type Totals = {
  readonly rows: number;
  /** Those that are not cancelled, and the sum of their values. */
  readonly counted: number;
  readonly sum: bigint;
};

/** Beyond each series, timestamp (ms) and id. */
export const LAST: RowKey = { series: Number.MAX_SAFE_INTEGER, timestamp: Number.MAX_SAFE_INTEGER, id: "" };
const FIRST: RowKey = { series: 0, timestamp: 0, id: "" };

const ALWAYS: TimeRange = { start: 0, end: Number.MAX_SAFE_INTEGER };

/**
 * Of each series in turn the stretch of its key that the range has. A range that begins within a series begins there,
 * not at the series' first row.
 */
const inRange = (slice: number, ofMeter = false): string => `
  FROM series CROSS JOIN ${tableOf(slice)} AS stored ON stored.series = series.id
  WHERE ${ofMeter ? "meter = :meter AND " : ""}series.id BETWEEN :after_series AND :through_series
    AND timestamp >= IIF(series.id = :after_series, MAX(:from, :after_timestamp), :from) AND timestamp < :to
    AND NOT (timestamp >= :except_from AND timestamp < :except_to)
    AND (series.id > :after_series OR (timestamp, stored.id) > (:after_timestamp, :after_id))
    AND (series.id < :through_series OR (timestamp, stored.id) <= (:through_timestamp, :through_id))`;

const readPage = (slice: number, ofMeter: boolean): string => `
  SELECT series.id, meter, customer, timestamp, stored.id,
    IIF(typeof(identifier) = 'blob', hex(identifier), NULL), IIF(typeof(identifier) = 'blob', NULL, identifier),
    value, timestamp + delay, NULLIF(dimensions, ''), json(payload), api_key, cancelled, cancelled_by
  ${inRange(slice, ofMeter)}
  ORDER BY series.id, timestamp, stored.id
  LIMIT :limit`;

const countRange = (slice: number): string => `
  SELECT COUNT(*) AS rows, COUNT(*) FILTER (WHERE cancelled IS NULL) AS counted,
    CAST(COALESCE(SUM(value / ${LIMB}) FILTER (WHERE cancelled IS NULL), 0) AS TEXT) AS high,
    CAST(COALESCE(SUM(value % ${LIMB}) FILTER (WHERE cancelled IS NULL), 0) AS TEXT) AS low
  ${inRange(slice)}`;

function valuesOf(slice: number, { segment, only, after = FIRST, through = LAST }: RowRange): Record<string, unknown> {
  const { within, except } = timestampsOf(slice, segment);
  const timestamps = only?.timestamps ?? ALWAYS;
  return {
    ...(only && { meter: only.meter }),
    from: Math.max(within.start, timestamps.start),
    to: Math.min(within.end, timestamps.end),
    except_from: except.start,
    except_to: except.end,
    after_series: after.series,
    after_timestamp: after.timestamp,
    after_id: after.id,
    through_series: through.series,
    through_timestamp: through.timestamp,
    through_id: through.id,
  };
}

type RawRow = [
  ...[series: number, meter: string, customer: string, timestamp: number, id: string],
  ...[uuid: string | null, identifier: string | null, value: number, received: number],
  ...[dimensions: string | null, payload: string | null],
  ...[apiKey: number, cancelled: number | null, cancelledBy: number | null],
];

function toRow(row: RawRow): Row {
  const [series, meter, customer, timestamp, id, uuid, identifier, value, received, ...rest] = row;
  const [dimensions, payload, apiKey, cancelled, cancelledBy] = rest;
  return {
    ...{ series, meter, customer, timestamp, id, identifier: uuid === null ? (identifier ?? "") : uuidOf(uuid) },
    ...{ value, received, dimensions, payload, apiKey, cancelled, cancelledBy },
  };
}

/** Rows of the first page, before it is known how large they are, and of any page. */
const FIRST_PAGE = 1_000;
const LARGEST_PAGE = 10_000;

/** What a page may take (bytes). */
const PAGE_BYTES = 2_000_000;

/** What a row takes about (bytes), by what can be long in it. */
export const sizeOf = ({ customer, identifier, dimensions, payload }: Row): number =>
  150 + customer.length + identifier.length + (dimensions?.length ?? 0) + (payload?.length ?? 0);

/** The rows of a range in pages, in the order of the key: up to `most` rows. */
export async function* readRows(
  db: D1Database,
  slice: number,
  range: RowRange,
  most = Number.POSITIVE_INFINITY,
): AsyncGenerator<readonly Row[]> {
  let { after } = range;
  let limit = FIRST_PAGE;
  let left = most;
  while (left > 0) {
    const asked = Math.min(limit, left);
    const statement = bind(db, readPage(slice, range.only !== undefined), {
      ...valuesOf(slice, { ...range, after }),
      limit: asked,
    });
    const rows = (await statement.raw<RawRow>()).map(toRow);
    if (rows.length > 0) yield rows;
    if (rows.length < asked) return;
    after = rows.at(-1);
    left -= rows.length;
    const bytes = rows.reduce((sum, row) => sum + sizeOf(row), 0);
    limit = Math.max(1, Math.min(LARGEST_PAGE, Math.floor((PAGE_BYTES / bytes) * rows.length)));
  }
}

/** What the rows of each of some ranges add up to, as one moment has them. */
export async function countRanges(db: D1Database, slice: number, ranges: readonly RowRange[]): Promise<Totals[]> {
  if (ranges.length === 0) return [];
  const results = await db.batch<{ rows: number; counted: number; high: string; low: string }>(
    ranges.map((range) => bind(db, countRange(slice), valuesOf(slice, range))),
  );
  return results.map(({ results: [found] }) => ({
    rows: found?.rows ?? 0,
    counted: found?.counted ?? 0,
    sum: BigInt(found?.high ?? 0) * BigInt(LIMB) + BigInt(found?.low ?? 0),
  }));
}

/**
 * The statements that keep, of ranges that are about to be dropped, what windows may fall back to. None where no meter
 * keeps survivors.
 */
export const keepBasesIn = (
  db: D1Database,
  slice: number,
  ranges: readonly RowRange[],
  aggregations: ReadonlyMap<string, Aggregation>,
): D1PreparedStatement[] => {
  if (aggregations.size === 0) return [];
  const named = { aggregations: JSON.stringify(Object.fromEntries(aggregations)) };
  const sql = keepBasesOf(inRange(slice));
  return ranges.map((range) => bind(db, sql, { ...valuesOf(slice, range), ...named }));
};

export const totalsOf = (rows: readonly Row[]): Totals => {
  const counted = rows.filter(({ cancelled }) => cancelled === null);
  return {
    rows: rows.length,
    counted: counted.length,
    sum: counted.reduce((sum, { value }) => sum + BigInt(value), 0n),
  };
};

/**
/**
 * The first timestamp (ms) of any series, or any of a meter (?4), from ?1 to ?2 (ms, half open): a look at each series,
 * however much it has; and none where the range of the slice (?3) says that it has no such timestamps.
 */
const firstTimestamp = (slice: number, ofMeter: boolean): string => `
  SELECT MIN((
    SELECT timestamp FROM ${tableOf(slice)} AS stored
    WHERE stored.series = series.id AND timestamp >= ?1 AND timestamp < ?2
    ORDER BY timestamp LIMIT 1
  )) AS timestamp
  FROM slices CROSS JOIN series
  WHERE slices.slice = ?3 AND min_timestamp < ?2 AND max_timestamp > ?1${ofMeter ? " AND meter = ?4" : ""}`;

/** The next segment of a slice after another that has rows, or those of a meter; nothing after the last. */
export async function nextSegment(
  db: D1Database,
  slice: number,
  after: Segment | undefined,
  only?: OfMeter,
): Promise<Segment | undefined> {
  const onTime = onTimeOf(slice);
  const { meter, timestamps = ALWAYS } = only ?? {};
  const find = (from: number, to: number): D1PreparedStatement =>
    db
      .prepare(firstTimestamp(slice, meter !== undefined))
      .bind(
        Math.max(from, timestamps.start),
        Math.min(to, timestamps.end),
        slice,
        ...(meter === undefined ? [] : [meter]),
      );
  const from = after?.isLate ? timestampsOf(slice, after).within.end : 0;
  const found = await db.batch<{ timestamp: number | null }>([
    find(from, onTime.start),
    find(Math.max(from, onTime.end), Number.MAX_SAFE_INTEGER),
    ...(after === undefined ? [find(onTime.start, onTime.end)] : []),
  ]);
  const [before, behind, within] = found.map(({ results: [first] }) => first?.timestamp ?? undefined);
  if (within !== undefined) return firstSegment(slice);
  const first = before ?? behind;
  return first === undefined ? undefined : { isLate: true, day: dayOf(first) };
}
