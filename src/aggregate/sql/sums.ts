// Counts and sums per quarter hour, of meters that add up.
import { LIMB } from "../../domain/value.ts";
import { QUARTER_HOUR_MS } from "../../domain/window.ts";
import { entries } from "./entries.ts";
import { countedCancellations, DIRECTION, freshEntries, OF_CUSTOMER, type Order, tableOf } from "./events.ts";

/** Events added up by series and quarter hour, from a table with their columns. */
export const added = (table: string, condition: string): string => `
  SELECT series, timestamp / ${QUARTER_HOUR_MS} AS quarter_hour,
    COUNT(*) AS count, SUM(value / ${LIMB}) AS sum_high, SUM(value % ${LIMB}) AS sum_low
  FROM ${table}
  WHERE ${condition}
  GROUP BY 1, 2`;

/** Adds rows of `added` to the sums. */
export const ADD = `
  ON CONFLICT (series, quarter_hour) DO UPDATE SET
    count = count + excluded.count,
    sum_high = sum_high + excluded.sum_high,
    sum_low = sum_low + excluded.sum_low`;

/** Adds to the sums: ?1, a JSON array of [series, quarter hour, count, high, low]. */
export const ADD_SUMS = `
  INSERT INTO sums (series, quarter_hour, count, sum_high, sum_low)
  SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?1)
  WHERE true
  ${ADD}`;

export const addToSums = (slice: number): string => `
  WITH ${freshEntries(slice)}
  INSERT INTO sums (series, quarter_hour, count, sum_high, sum_low)
  ${added("fresh", "aggregation = 'additive'")}
  ${ADD}`;

/** Takes what is cancelled now out of the sums that counted it; runs before `cancelEvents`. */
export const subtractFromSums = (slice: number): string => `
  WITH ${countedCancellations(slice)},
  lost AS (${added("counted", "aggregation = 'additive'")})
  UPDATE sums SET
    count = sums.count - lost.count,
    sum_high = sums.sum_high - lost.sum_high,
    sum_low = sums.sum_low - lost.sum_low
  FROM lost
  WHERE sums.series = lost.series AND sums.quarter_hour = lost.quarter_hour`;

/** Totals as text, since they may be past 2^53. */
const TOTALS = (count: string, high: string, low: string): string => `
    CAST(SUM(${count}) AS TEXT) AS count,
    CAST(SUM(${high} + (${low}) / ${LIMB}) AS TEXT) AS sum_high,
    CAST(SUM((${low}) % ${LIMB}) AS TEXT) AS sum_low`;

/**
 * Sums of quarter hours :from to :to (since 1970, half open) by windows of :length ms counted from :origin (ms), those
 * that something counts in. D1 binds every number as a real, which does not divide like an integer.
 */
export const readSums = (order: Order): string => `
  SELECT
    CAST(:origin AS INTEGER)
      + (quarter_hour * ${QUARTER_HOUR_MS} - CAST(:origin AS INTEGER)) / CAST(:length AS INTEGER) * CAST(:length AS INTEGER)
      AS start,${TOTALS("count", "sum_high", "sum_low")}
  FROM sums
  WHERE ${OF_CUSTOMER} AND quarter_hour >= :from AND quarter_hour < :to
  GROUP BY 1
  HAVING SUM(count) > 0
  ORDER BY 1 ${DIRECTION[order]}
  LIMIT :limit`;

/** The series of a customer on a meter that something counts of in the quarter hours of :from to :to (ms, half open). */
export const SERIES_IN_SUMS = `
  SELECT DISTINCT series FROM sums
  WHERE ${OF_CUSTOMER} AND quarter_hour >= CAST(:from AS INTEGER) / ${QUARTER_HOUR_MS}
    AND quarter_hour <= CAST(:to - 1 AS INTEGER) / ${QUARTER_HOUR_MS} AND count > 0`;

/** The sums of series from :first to :last, of quarter hours :from to :to (since 1970, half open). */
export const SUMS_OF_RANGE = `
  SELECT series, quarter_hour, count, CAST(sum_high AS TEXT) AS high, CAST(sum_low AS TEXT) AS low
  FROM series CROSS JOIN sums ON sums.series = series.id
  WHERE series.id BETWEEN :first AND :last AND quarter_hour >= :from AND quarter_hour < :to`;

/** The sum of a slice's events from :from to :to (ms, half open). */
export const sumSlice = (slice: number): string => `
  SELECT${TOTALS("1", `value / ${LIMB}`, `value % ${LIMB}`)}
  FROM ${tableOf(slice)}
  WHERE ${OF_CUSTOMER} AND timestamp >= :from AND timestamp < :to AND cancelled IS NULL
  HAVING COUNT(*) > 0`;

/** Replaces, in their sums, what is stored of events by what was logged of them; runs before `restoreEvents`. */
export const correctSums = (slice: number): string => `
  WITH ${entries("timestamp", "id", "value", "aggregation")},
  changed AS (
    SELECT entries.series, entries.timestamp / ${QUARTER_HOUR_MS} AS quarter_hour,
      SUM(entries.value / ${LIMB} - stored.value / ${LIMB}) AS sum_high,
      SUM(entries.value % ${LIMB} - stored.value % ${LIMB}) AS sum_low
    FROM entries CROSS JOIN ${tableOf(slice)} AS stored
    WHERE stored.series = entries.series AND stored.timestamp = entries.timestamp AND stored.id = entries.id
      AND stored.cancelled IS NULL AND aggregation = 'additive'
    GROUP BY 1, 2
  )
  UPDATE sums SET
    sum_high = sums.sum_high + changed.sum_high,
    sum_low = sums.sum_low + changed.sum_low
  FROM changed
  WHERE sums.series = changed.series AND sums.quarter_hour = changed.quarter_hour`;

/** A slice's events that count, in parts of series: of each element of ?1, `wanted`, the first is the series. */
const counted = (slice: number, from: string, to: string): string => `
  (SELECT stored.series, stored.timestamp, stored.value
  FROM json_each(?1) AS wanted CROSS JOIN ${tableOf(slice)} AS stored
  WHERE stored.series = wanted.value ->> 0 AND stored.timestamp >= ${from} AND stored.timestamp < ${to}
    AND stored.cancelled IS NULL)`;

/** The sums that a slice's events make in parts of series: ?1, a JSON array of [series, from, to (ms, half open)]. */
export const sumsOfSlice = (slice: number): string =>
  added(counted(slice, "wanted.value ->> 1", "wanted.value ->> 2"), "true");

/** Forgets the sums of quarter hours: ?1, a JSON array of [series, quarter hour]. `addSlice` makes them again. */
export const CLEAR_SUMS = `
  DELETE FROM sums
  WHERE (series, quarter_hour) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?1))`;

const QUARTER_START = `(wanted.value ->> 1) * ${QUARTER_HOUR_MS}`;

/** Adds a slice's events of quarter hours (?1, as for CLEAR_SUMS) to their sums. */
export const addSlice = (slice: number): string => `
  INSERT INTO sums (series, quarter_hour, count, sum_high, sum_low)
  ${added(counted(slice, QUARTER_START, `${QUARTER_START} + ${QUARTER_HOUR_MS}`), "true")}
  ${ADD}`;
