import { RANK, SURVIVOR_ORDER, WINDOW_LENGTH, WINDOW_START } from "../aggregate/sql/statements.ts";
import { LIMB } from "../domain/value.ts";

/** What to look at: ?1, a JSON array of Span. */
const SPANS = `
  spans AS (
    SELECT
      item.value ->> 'meter' AS meter,
      item.value ->> 'customer' AS customer,
      item.value ->> 'start' AS span_start,
      item.value ->> 'end' AS span_end,
      item.value ->> 'aggregation' AS aggregation
    FROM json_each(?1) AS item
  )`;

/** What counts in them. CROSS JOIN keeps the order: for each span, its events. */
const COUNTED = `
  spans CROSS JOIN events USING (meter, customer)
  WHERE timestamp >= span_start AND timestamp < span_end AND cancelled IS NULL`;

/** Whether a summary may be made to say less; ?2 is since when (ms). Before, lost events are as likely as a wrong summary. */
const maySayLess = (start: string): string => `${start} >= ?2`;

/** Whether the event of a survivor is stored, counting or not. */
const hasItsEvent = (survivor: string): string => `EXISTS (
  SELECT 1 FROM events
  WHERE events.meter = ${survivor}.meter AND events.customer = ${survivor}.customer
    AND events.timestamp = ${survivor}.timestamp AND events.id = ${survivor}.id
)`;

const HOURS = `
  truth AS (
    SELECT
      meter, customer, timestamp - timestamp % 3600000 AS hour,
      COUNT(*) AS count, SUM(value / ${LIMB}) AS sum_high, SUM(value % ${LIMB}) AS sum_low
    FROM ${COUNTED} AND aggregation = 'additive'
    GROUP BY 1, 2, 3
  )`;

/** Hours that say something though nothing counts. */
const EMPTY_HOURS = `
  spans CROSS JOIN hourly_summaries AS hours USING (meter, customer)
  WHERE aggregation = 'additive' AND hour >= span_start AND hour < span_end
    AND (count <> 0 OR sum_high <> 0 OR sum_low <> 0)
    AND NOT EXISTS (
      SELECT 1 FROM events
      WHERE events.meter = hours.meter AND events.customer = hours.customer
        AND timestamp >= hour AND timestamp < hour + 3600000 AND cancelled IS NULL
    )`;

const SURVIVORS = `
  ordered AS (
    SELECT
      meter, customer, ${WINDOW_START} AS window_start, ${RANK} AS rank, timestamp, id, value,
      ROW_NUMBER() OVER (PARTITION BY meter, customer, ${WINDOW_START} ORDER BY ${SURVIVOR_ORDER}) AS place
    FROM ${COUNTED} AND aggregation <> 'additive'
  ),
  truth AS (SELECT * FROM ordered WHERE place = 1)`;

/** Windows with a survivor though nothing counts. */
const EMPTY_WINDOWS = `
  spans CROSS JOIN window_survivors AS windows USING (meter, customer)
  WHERE aggregation <> 'additive' AND window_start >= span_start AND window_start < span_end
    AND NOT EXISTS (
      SELECT 1 FROM events
      WHERE events.meter = windows.meter AND events.customer = windows.customer
        AND events.timestamp >= window_start AND events.timestamp < window_start + ${WINDOW_LENGTH}
        AND cancelled IS NULL
    )`;

/**
 * Find the summaries that say more than their events, so long ago that the log cannot tell which of the
 * two is wrong. A row for each; they are left as they are.
 */
export const FIND_SUSPECT = [
  `WITH ${SPANS}, ${HOURS}
  SELECT hours.meter, hours.hour AS start
  FROM hourly_summaries AS hours JOIN truth USING (meter, customer, hour)
  WHERE hours.count > truth.count AND NOT ${maySayLess("hour")}
  UNION ALL
  SELECT meter, hour FROM ${EMPTY_HOURS} AND NOT ${maySayLess("hour")}`,

  `WITH ${SPANS}, ${SURVIVORS}
  SELECT windows.meter, windows.window_start AS start
  FROM window_survivors AS windows JOIN truth USING (meter, customer, window_start)
  WHERE windows.id <> truth.id AND NOT ${maySayLess("window_start")} AND NOT ${hasItsEvent("windows")}
  UNION ALL
  SELECT meter, window_start FROM ${EMPTY_WINDOWS}
    AND NOT ${maySayLess("window_start")} AND NOT ${hasItsEvent("windows")}`,
] as const;

/**
 * Recompute summaries from their events; each gives a row for every summary that it had to change.
 * Each compares and repairs in one statement, so nothing can come in between.
 */
export const REPAIR = [
  // Hours that are wrong or missing.
  `WITH ${SPANS}, ${HOURS}
  INSERT INTO hourly_summaries (meter, customer, hour, count, sum_high, sum_low)
  SELECT meter, customer, hour, count, sum_high, sum_low
  FROM truth
  WHERE true
  ON CONFLICT (meter, customer, hour) DO UPDATE SET
    count = excluded.count,
    sum_high = excluded.sum_high,
    sum_low = excluded.sum_low
  WHERE (hourly_summaries.count, hourly_summaries.sum_high, hourly_summaries.sum_low)
      IS NOT (excluded.count, excluded.sum_high, excluded.sum_low)
    AND (${maySayLess("hourly_summaries.hour")} OR hourly_summaries.count <= excluded.count)
  RETURNING meter, hour AS start`,

  `WITH ${SPANS}
  DELETE FROM hourly_summaries
  WHERE (meter, customer, hour) IN (
    SELECT meter, customer, hour FROM ${EMPTY_HOURS} AND ${maySayLess("hour")}
  )
  RETURNING meter, hour AS start`,

  // Windows whose survivor is wrong or missing.
  `WITH ${SPANS}, ${SURVIVORS}
  INSERT INTO window_survivors (meter, customer, window_start, rank, timestamp, id, value)
  SELECT meter, customer, window_start, rank, timestamp, id, value
  FROM truth
  WHERE true
  ON CONFLICT (meter, customer, window_start) DO UPDATE SET
    rank = excluded.rank,
    timestamp = excluded.timestamp,
    id = excluded.id,
    value = excluded.value
  WHERE (
      window_survivors.rank, window_survivors.timestamp, window_survivors.id, window_survivors.value
    ) IS NOT (excluded.rank, excluded.timestamp, excluded.id, excluded.value)
    AND (${maySayLess("window_survivors.window_start")} OR ${hasItsEvent("window_survivors")})
  RETURNING meter, window_start AS start`,

  `WITH ${SPANS}
  DELETE FROM window_survivors
  WHERE (meter, customer, window_start) IN (
    SELECT meter, customer, window_start
    FROM ${EMPTY_WINDOWS} AND (${maySayLess("window_start")} OR ${hasItsEvent("windows")})
  )
  RETURNING meter, window_start AS start`,
] as const;

const fromHere = (time: string): string =>
  `(meter, customer, ${time}) >= (?1, ?2, ?3) ORDER BY meter, customer, ${time} LIMIT ?4`;

const nextDaysIn = (table: string, time: string): string => `
  SELECT meter, customer, ${time} - ${time} % 86400000 AS day, COUNT(*) AS count
  FROM (SELECT meter, customer, ${time} FROM ${table} WHERE ${fromHere(time)})
  GROUP BY 1, 2, 3
  ORDER BY 1, 2, 3`;

/**
 * The next days, by the next ?4 rows of each table from (?1 meter, ?2 customer, ?3 ms) on, and how many
 * rows each has there. Summaries are looked at too, for those without events.
 */
export const NEXT_DAYS_BY_TABLE = [
  nextDaysIn("events", "timestamp"),
  nextDaysIn("hourly_summaries", "hour"),
  nextDaysIn("window_survivors", "window_start"),
] as const;

/**
 * How many events are stored from (?1, ?2, ?3) to (?4, ?5, ?6) that were received from ?7 to ?8 (ms, half
 * open), by the minute of their receipt.
 */
export const COUNT_BY_RECEIPT = `
  SELECT received - received % 60000 AS minute, COUNT(*) AS count
  FROM events
  WHERE (meter, customer, timestamp) >= (?1, ?2, ?3) AND (meter, customer, timestamp) < (?4, ?5, ?6)
    AND received >= ?7 AND received < ?8
  GROUP BY 1`;
