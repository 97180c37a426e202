// Statements of the version that test/deploy/schema-before.sql is of, as its code ran them: what is still
// running while a deployment has brought the database forward already.

const LIMB = 1_000_000_000;

export const INSERT_KEY = "INSERT INTO api_keys (hash, id, name, livemode, created) VALUES (?1, ?2, 'before', ?3, 0)";

export const VALID_KEYS = `
  SELECT hash, id, livemode FROM api_keys
  WHERE hash IN (SELECT value FROM json_each(?1)) AND revoked_at IS NULL`;

export const INSERT_METER = `
  INSERT INTO meters (
    id, livemode, event_name, display_name, formula, event_time_window, customer_key, value_key,
    status, created, updated, deactivated_at
  ) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)`;

export const ACTIVE_METERS = `
  SELECT * FROM meters
  WHERE status = 'active' AND (livemode, event_name) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?1))`;

const INCOMING = `
  incoming AS (
    SELECT
      item.value ->> 'meter' AS meter,
      item.value ->> 'customer' AS customer,
      item.value ->> 'timestamp' AS timestamp,
      item.value ->> 'id' AS id,
      item.value ->> 'value' AS value,
      item.value ->> 'received' AS received,
      item.value ->> 'aggregation' AS aggregation
    FROM json_each(?1) AS item
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

export const INSERT_EVENTS = `
  INSERT INTO events (meter, customer, timestamp, id, identifier, value, received, dimensions)
  SELECT
    item.value ->> 'meter',
    item.value ->> 'customer',
    item.value ->> 'timestamp',
    item.value ->> 'id',
    item.value ->> 'identifier',
    item.value ->> 'value',
    item.value ->> 'received',
    item.value -> 'dimensions'
  FROM json_each(?1) AS item
  WHERE true
  ON CONFLICT DO NOTHING`;
