import { RANK, WINDOW_LENGTH } from "../aggregation/statements.ts";
import { LIMB } from "../metering/values.ts";

/** The UTC days of customers on meters to look at: ?1, a JSON array of AuditedDay. */
const DAYS = `
  days AS (
    SELECT
      item.value ->> 'meter' AS meter,
      item.value ->> 'customer' AS customer,
      item.value ->> 'day' AS day,
      item.value ->> 'aggregation' AS aggregation
    FROM json_each(?1) AS item
  )`;

/** What counts on these days. CROSS JOIN keeps the order: for each day, its events. */
const COUNTED = `
  days CROSS JOIN events USING (meter, customer)
  WHERE timestamp >= day AND timestamp < day + 86400000 AND cancelled IS NULL`;

/**
 * Recompute the summaries of days from their events; each gives a row for every summary that it had
 * to change. Each compares and repairs in one statement, so nothing can come in between.
 */
export const RECOMPUTE = [
  // Hours that are wrong or missing.
  `WITH ${DAYS}
  INSERT INTO hourly_summaries (meter, customer, hour, count, sum_high, sum_low)
  SELECT meter, customer, timestamp - timestamp % 3600000, COUNT(*), SUM(value / ${LIMB}), SUM(value % ${LIMB})
  FROM ${COUNTED} AND aggregation = 'additive'
  GROUP BY 1, 2, 3
  ON CONFLICT (meter, customer, hour) DO UPDATE SET
    count = excluded.count,
    sum_high = excluded.sum_high,
    sum_low = excluded.sum_low
  WHERE (hourly_summaries.count, hourly_summaries.sum_high, hourly_summaries.sum_low)
    IS NOT (excluded.count, excluded.sum_high, excluded.sum_low)
  RETURNING meter, hour AS start`,

  // Hours that say something though nothing counts.
  `WITH ${DAYS}
  DELETE FROM hourly_summaries
  WHERE (meter, customer, hour) IN (
    SELECT meter, customer, hour
    FROM days CROSS JOIN hourly_summaries AS hours USING (meter, customer)
    WHERE hour >= day AND hour < day + 86400000
      AND (count <> 0 OR sum_high <> 0 OR sum_low <> 0)
      AND NOT EXISTS (
        SELECT 1 FROM events
        WHERE events.meter = hours.meter AND events.customer = hours.customer
          AND timestamp >= hour AND timestamp < hour + 3600000 AND cancelled IS NULL
      )
  )
  RETURNING meter, hour AS start`,

  // Windows whose survivor is wrong or missing.
  `WITH ${DAYS},
  ordered AS (
    SELECT
      meter, customer, timestamp - timestamp % ${WINDOW_LENGTH} AS window_start, ${RANK} AS rank,
      timestamp, received, id, value,
      ROW_NUMBER() OVER (
        PARTITION BY meter, customer, timestamp - timestamp % ${WINDOW_LENGTH}
        ORDER BY ${RANK} DESC, received DESC, id DESC
      ) AS place
    FROM ${COUNTED} AND aggregation <> 'additive'
  )
  INSERT INTO window_survivors (meter, customer, window_start, rank, timestamp, received, id, value)
  SELECT meter, customer, window_start, rank, timestamp, received, id, value
  FROM ordered
  WHERE place = 1
  ON CONFLICT (meter, customer, window_start) DO UPDATE SET
    rank = excluded.rank,
    timestamp = excluded.timestamp,
    received = excluded.received,
    id = excluded.id,
    value = excluded.value
  WHERE (window_survivors.rank, window_survivors.timestamp, window_survivors.received, window_survivors.id, window_survivors.value)
    IS NOT (excluded.rank, excluded.timestamp, excluded.received, excluded.id, excluded.value)
  RETURNING meter, window_start AS start`,

  // Windows with a survivor though nothing counts.
  `WITH ${DAYS}
  DELETE FROM window_survivors
  WHERE (meter, customer, window_start) IN (
    SELECT meter, customer, window_start
    FROM days CROSS JOIN window_survivors AS windows USING (meter, customer)
    WHERE window_start >= day AND window_start < day + 86400000
      AND NOT EXISTS (
        SELECT 1 FROM events
        WHERE events.meter = windows.meter AND events.customer = windows.customer
          AND events.timestamp >= window_start AND events.timestamp < window_start + ${WINDOW_LENGTH}
          AND cancelled IS NULL
      )
  )
  RETURNING meter, window_start AS start`,
] as const;

const FROM_HERE = (time: string): string =>
  `(meter, customer, ${time}) >= (?1, ?2, ?3) ORDER BY meter, customer, ${time} LIMIT ?4`;

const NEXT_DAYS = (table: string, time: string): string => `
  SELECT meter, customer, ${time} - ${time} % 86400000 AS day, COUNT(*) AS count
  FROM (SELECT meter, customer, ${time} FROM ${table} WHERE ${FROM_HERE(time)})
  GROUP BY 1, 2, 3
  ORDER BY 1, 2, 3`;

/**
 * The next days, by the next ?4 rows of each table from (?1 meter, ?2 customer, ?3 ms) on, and how many
 * rows each has there. Summaries are looked at too, for those without events.
 */
export const NEXT_DAYS_BY_TABLE = [
  NEXT_DAYS("events", "timestamp"),
  NEXT_DAYS("hourly_summaries", "hour"),
  NEXT_DAYS("window_survivors", "window_start"),
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
