import { LIMB } from "../../domain/value.ts";

/** The columns of `events` that an event is stored with. */
const EVENT_COLUMNS = "meter, customer, timestamp, id, identifier, value, received, dimensions";

/**
 * The entries of ?1, a JSON array. `json_each` would write each as text again, to be parsed once more for
 * every column; this took half of these statements' time.
 */
const ITEMS = "jsonb_each(?1) AS item";

/** An event as it was logged (`item`, of a json_each or jsonb_each), in EVENT_COLUMNS. */
export const LOGGED_EVENT = `
    item.value ->> 'meter' AS meter,
    item.value ->> 'customer' AS customer,
    item.value ->> 'timestamp' AS timestamp,
    item.value ->> 'id' AS id,
    item.value ->> 'identifier' AS identifier,
    item.value ->> 'value' AS value,
    item.value ->> 'received' AS received,
    item.value -> 'dimensions' AS dimensions`;

/**
 * The events of ?1 (a JSON array of LogEntry) that are not stored yet. Every statement that
 * counts reads through it and runs before INSERT_EVENTS in the same transaction: that is what makes
 * a redelivered event count once.
 */
const INCOMING = `
  incoming AS (
    SELECT
      item.value ->> 'meter' AS meter,
      item.value ->> 'customer' AS customer,
      item.value ->> 'timestamp' AS timestamp,
      item.value ->> 'id' AS id,
      item.value ->> 'value' AS value,
      item.value ->> 'aggregation' AS aggregation
    FROM ${ITEMS}
    WHERE NOT EXISTS (
      SELECT 1 FROM events
      WHERE meter = item.value ->> 'meter'
        AND customer = item.value ->> 'customer'
        AND timestamp = item.value ->> 'timestamp'
        AND id = item.value ->> 'id'
    )
  )`;

export const ADD_TO_HOURLY_SUMMARIES = `
  WITH ${INCOMING}
  INSERT INTO hourly_summaries (meter, customer, hour, count, sum_high, sum_low)
  SELECT
    meter, customer, timestamp - timestamp % 3600000,
    COUNT(*), SUM(value / ${LIMB}), SUM(value % ${LIMB})
  FROM incoming
  WHERE aggregation = 'additive'
  GROUP BY 1, 2, 3
  ON CONFLICT (meter, customer, hour) DO UPDATE SET
    count = count + excluded.count,
    sum_high = sum_high + excluded.sum_high,
    sum_low = sum_low + excluded.sum_low`;

/** The length of a surviving event's window (ms), by its meter's aggregation. */
export const WINDOW_LENGTH = "IIF(aggregation = 'last_received_of_day', 86400000, 3600000)";

/** The start of the window (ms) that an event is in. */
export const WINDOW_START = `timestamp - timestamp % ${WINDOW_LENGTH}`;

/** What a window keeps the greatest of, before receipt order: the timestamp, or nothing where receipt alone decides. */
export const RANK = "IIF(aggregation = 'latest_of_hour', timestamp, 0)";

/** A window keeps the first of these: the greatest (rank, id), whatever the order of arrival. Ids sort in receipt order. */
export const SURVIVOR_ORDER = `${RANK} DESC, id DESC`;

/** Between what comes and what a window has already the same order decides, in its last condition. */
export const KEEP_WINDOW_SURVIVORS = `
  WITH ${INCOMING},
  ordered AS (
    SELECT
      meter, customer, ${WINDOW_START} AS window_start, ${RANK} AS rank, timestamp, id, value,
      ROW_NUMBER() OVER (PARTITION BY meter, customer, ${WINDOW_START} ORDER BY ${SURVIVOR_ORDER}) AS place
    FROM incoming
    WHERE aggregation <> 'additive'
  )
  INSERT INTO window_survivors (meter, customer, window_start, rank, timestamp, id, value)
  SELECT meter, customer, window_start, rank, timestamp, id, value
  FROM ordered
  WHERE place = 1
  ON CONFLICT (meter, customer, window_start) DO UPDATE SET
    rank = excluded.rank,
    timestamp = excluded.timestamp,
    id = excluded.id,
    value = excluded.value
  WHERE (excluded.rank, excluded.id) > (window_survivors.rank, window_survivors.id)`;

export const INSERT_EVENTS = `
  INSERT INTO events (${EVENT_COLUMNS})
  SELECT ${LOGGED_EVENT}
  FROM ${ITEMS}
  WHERE true
  ON CONFLICT DO NOTHING`;

/** The cancellations of ?1 (a JSON array of LogCancellation). */
const CANCELLATIONS = `
  cancellations AS (
    SELECT
      item.value ->> 'meter' AS meter,
      item.value ->> 'customer' AS customer,
      item.value ->> 'timestamp' AS timestamp,
      item.value ->> 'id' AS id,
      item.value ->> 'aggregation' AS aggregation
    FROM ${ITEMS}
  )`;

/** Takes what is cancelled now out of the summaries that counted it; runs before CANCEL_EVENTS. */
export const SUBTRACT_FROM_HOURLY_SUMMARIES = `
  WITH ${CANCELLATIONS},
  lost AS (
    SELECT
      meter, customer, timestamp - timestamp % 3600000 AS hour,
      COUNT(*) AS count, SUM(value / ${LIMB}) AS sum_high, SUM(value % ${LIMB}) AS sum_low
    FROM cancellations JOIN events USING (meter, customer, timestamp, id)
    WHERE aggregation = 'additive' AND cancelled IS NULL
    GROUP BY 1, 2, 3
  )
  UPDATE hourly_summaries SET
    count = hourly_summaries.count - lost.count,
    sum_high = hourly_summaries.sum_high - lost.sum_high,
    sum_low = hourly_summaries.sum_low - lost.sum_low
  FROM lost
  WHERE (hourly_summaries.meter, hourly_summaries.customer, hourly_summaries.hour) = (lost.meter, lost.customer, lost.hour)`;

/** Marks events as cancelled; one that is not there yet is stored as cancelled, and never counts. */
export const CANCEL_EVENTS = `
  INSERT INTO events (${EVENT_COLUMNS}, cancelled)
  SELECT ${LOGGED_EVENT},
    item.value ->> 'cancelled'
  FROM ${ITEMS}
  WHERE true
  ON CONFLICT (meter, customer, timestamp, id) DO UPDATE SET cancelled = excluded.cancelled
  WHERE events.cancelled IS NULL`;

/** Removes the survivors that are cancelled; RESTORE_WINDOW_SURVIVORS finds who stands for their windows now. */
export const DELETE_CANCELLED_SURVIVORS = `
  WITH ${CANCELLATIONS}
  DELETE FROM window_survivors
  WHERE (meter, customer, window_start, id) IN (
    SELECT meter, customer, ${WINDOW_START}, id FROM cancellations WHERE aggregation <> 'additive'
  )`;

/** Fills the windows of cancelled events that have no survivor with the greatest of what is left. */
export const RESTORE_WINDOW_SURVIVORS = `
  WITH ${CANCELLATIONS},
  emptied AS (
    SELECT DISTINCT meter, customer, aggregation, ${WINDOW_START} AS window_start
    FROM cancellations
    WHERE aggregation <> 'additive'
  ),
  left_over AS (
    SELECT
      meter, customer, window_start, ${RANK} AS rank, timestamp, id, value,
      ROW_NUMBER() OVER (PARTITION BY meter, customer, window_start ORDER BY ${SURVIVOR_ORDER}) AS place
    FROM emptied JOIN events USING (meter, customer)
    WHERE timestamp >= window_start AND timestamp < window_start + ${WINDOW_LENGTH} AND cancelled IS NULL
  )
  INSERT INTO window_survivors (meter, customer, window_start, rank, timestamp, id, value)
  SELECT meter, customer, window_start, rank, timestamp, id, value
  FROM left_over
  WHERE place = 1
  ON CONFLICT DO NOTHING`;

/** Where windows are counted from and their length (ms). D1 binds every number as a real, which does not divide like an integer. */
const WINDOWS = "windows AS (SELECT CAST(?9 AS INTEGER) AS origin, CAST(?10 AS INTEGER) AS length)";

/**
 * Summaries of a meter that adds up. Whole hours come from their rows, the edges of
 * the range from the events. ?1 meter, ?2 customer, ?3 to ?4 whole hours, ?5 to ?6 and ?7 to ?8 the
 * edges, ?9 where windows are counted from, ?10 their length, ?11 how many rows. Sums as text: they
 * may be past 2^53.
 */
const ADDITIVE = `
  WITH ${WINDOWS},
  parts AS (
    SELECT hour AS timestamp, count, sum_high, sum_low
    FROM hourly_summaries
    WHERE meter = ?1 AND customer = ?2 AND hour >= ?3 AND hour < ?4
    UNION ALL
    SELECT timestamp, 1, value / ${LIMB}, value % ${LIMB}
    FROM events
    WHERE meter = ?1 AND customer = ?2 AND timestamp >= ?5 AND timestamp < ?6 AND cancelled IS NULL
    UNION ALL
    SELECT timestamp, 1, value / ${LIMB}, value % ${LIMB}
    FROM events
    WHERE meter = ?1 AND customer = ?2 AND timestamp >= ?7 AND timestamp < ?8 AND cancelled IS NULL
  )
  SELECT
    windows.origin + (timestamp - windows.origin) / windows.length * windows.length AS start,
    CAST(SUM(count) AS TEXT) AS count,
    CAST(SUM(sum_high + sum_low / ${LIMB}) AS TEXT) AS sum_high,
    CAST(SUM(sum_low % ${LIMB}) AS TEXT) AS sum_low
  FROM parts, windows
  GROUP BY 1
  HAVING SUM(count) > 0
  ORDER BY 1`;

/**
 * The same for a meter that keeps one event per window; ?3 to ?4 are window starts, and survivors
 * outside ?12 to ?13 are left out (a day's survivor may lie outside the range that cuts its day).
 */
const SURVIVORS = `
  WITH ${WINDOWS},
  parts AS (
    SELECT timestamp, id, value
    FROM window_survivors
    WHERE meter = ?1 AND customer = ?2 AND window_start >= ?3 AND window_start < ?4
      AND timestamp >= ?12 AND timestamp < ?13
    UNION ALL
    SELECT timestamp, id, value
    FROM events
    WHERE meter = ?1 AND customer = ?2 AND timestamp >= ?5 AND timestamp < ?6 AND cancelled IS NULL
    UNION ALL
    SELECT timestamp, id, value
    FROM events
    WHERE meter = ?1 AND customer = ?2 AND timestamp >= ?7 AND timestamp < ?8 AND cancelled IS NULL
  ),
  placed AS (
    SELECT *, windows.origin + (timestamp - windows.origin) / windows.length * windows.length AS start, ROW_NUMBER() OVER (
      PARTITION BY (timestamp - windows.origin) / windows.length ORDER BY timestamp DESC, id DESC
    ) AS place
    FROM parts, windows
  )
  SELECT
    start,
    CAST(COUNT(*) AS TEXT) AS count,
    CAST(SUM(value / ${LIMB}) AS TEXT) AS sum_high,
    CAST(SUM(value % ${LIMB}) AS TEXT) AS sum_low,
    CAST(MAX(IIF(place = 1, value, 0)) AS TEXT) AS last
  FROM placed
  GROUP BY 1
  ORDER BY 1`;

/** Both kinds of summaries, in either order of their start. */
export const SUMMARIES = {
  additive: { newest_first: `${ADDITIVE} DESC LIMIT ?11`, oldest_first: `${ADDITIVE} ASC LIMIT ?11` },
  survivors: { newest_first: `${SURVIVORS} DESC LIMIT ?11`, oldest_first: `${SURVIVORS} ASC LIMIT ?11` },
} as const;
