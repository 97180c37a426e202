// Counts and sums per quarter hour, of meters that add up.
import { LIMB } from "../../domain/value.ts";
import { QUARTER_HOUR_MS } from "../../domain/window.ts";
import { entries } from "./entries.ts";
import { countedCancellations, freshEntries, tableOf } from "./events.ts";
import {
  afterGroup,
  customerOf,
  groupOf,
  inOrder,
  MOST_SERIES,
  type RowOrder,
  RUNS,
  type Shape,
  wantedSeries,
  windowStart,
} from "./usage.ts";

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

/**
 * Totals by window, customer and group, those that something counts in. `parts` are the rows of series, with their
 * series joined and `start`; they are added up by series first, which needs no sorting when there is one window, since
 * the index of series gives them in its order. As text, since totals may be past 2^53.
 */
const totals = (shape: Shape, order: RowOrder, isOneWindow: boolean, parts: string): string => `
  WITH ${RUNS}
  SELECT start, customer, grp, CAST(SUM(count) AS TEXT) AS count, CAST(SUM(high) AS TEXT) AS sum_high,
    CAST(SUM(low) AS TEXT) AS sum_low
  FROM (
    SELECT start, customer, count, high, low, ${groupOf(shape)} AS grp
    FROM (
      SELECT series.dimensions, ${customerOf(shape)} AS customer, ${parts}
      GROUP BY series.customer, series.dimensions${isOneWindow ? "" : ", start"}
    )
  )
  WHERE ${afterGroup(order)}
  GROUP BY 1, 2, 3
  HAVING SUM(count) > 0
  ORDER BY ${inOrder(order)}
  LIMIT :limit`;

/** The totals of whole quarter hours; :runs from and to quarter hours (since 1970). */
export const readSums = (shape: Shape, order: RowOrder, isOneWindow: boolean): string =>
  totals(
    shape,
    order,
    isOneWindow,
    `${windowStart(`quarter_hour * ${QUARTER_HOUR_MS}`)} AS start, SUM(count) AS count,
        SUM(sum_high + sum_low / ${LIMB}) AS high, SUM(sum_low % ${LIMB}) AS low
      FROM series CROSS JOIN runs CROSS JOIN sums
      WHERE ${wantedSeries(shape)}
        AND sums.series = series.id AND quarter_hour >= runs.first AND quarter_hour < runs.last`,
  );

/** The totals of a slice's events; :runs from and to times (ms). */
export const sumSlice = (slice: number, shape: Shape, order: RowOrder): string =>
  totals(
    shape,
    order,
    false,
    `${windowStart("timestamp")} AS start, COUNT(*) AS count, SUM(value / ${LIMB}) AS high, SUM(value % ${LIMB}) AS low
      FROM series CROSS JOIN runs CROSS JOIN ${tableOf(slice)} AS stored
      WHERE ${wantedSeries(shape)}
        AND stored.series = series.id AND timestamp >= runs.first AND timestamp < runs.last AND cancelled IS NULL`,
  );

/** The series that something counts of in the quarter hours of :from to :to (ms, half open), and what they are. */
export const seriesInSums = (shape: Shape): string => `
  SELECT series.id AS series, series.customer, ${groupOf(shape)} AS grp FROM series
  WHERE ${wantedSeries(shape)} AND EXISTS (
    SELECT 1 FROM sums
    WHERE sums.series = series.id AND quarter_hour >= CAST(:from AS INTEGER) / ${QUARTER_HOUR_MS}
      AND quarter_hour <= CAST(:to - 1 AS INTEGER) / ${QUARTER_HOUR_MS} AND count > 0
  )
  ${MOST_SERIES}`;

/** The sums of series from :first to :last, of quarter hours :from to :to (since 1970, half open). */
export const SUMS_OF_RANGE = `
  SELECT series, quarter_hour, count, CAST(sum_high AS TEXT) AS high, CAST(sum_low AS TEXT) AS low
  FROM series CROSS JOIN sums ON sums.series = series.id
  WHERE series.id BETWEEN :first AND :last AND quarter_hour >= :from AND quarter_hour < :to`;

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
