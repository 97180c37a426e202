import type { GroupKind } from "../metering/groups.ts";

/** The entries of ?1, a JSON array; none when it is not JSON, which its dead letter says. */
const ENTRIES = "json_each(IIF(json_valid(?1), ?1, '[]')) AS item";

const STORED = `
  LEFT JOIN events AS stored
    ON stored.meter = item.value ->> 'meter'
    AND stored.customer = item.value ->> 'customer'
    AND stored.timestamp = item.value ->> 'timestamp'
    AND stored.id = item.value ->> 'id'`;

/** Whether an entry is a dead letter; ?2 is what the ids of its group's dead letters begin with. */
const PARKED = "EXISTS (SELECT 1 FROM dead_letters WHERE id = ?2 || item.key)";

/**
 * How many entries of a group (?1) the database has not, and how many it has otherwise than they were
 * logged. One row.
 */
export const CHECK: Record<GroupKind, string> = {
  events: `
    SELECT
      COUNT(*) FILTER (WHERE stored.id IS NULL AND NOT ${PARKED}) AS missing,
      COUNT(*) FILTER (
        WHERE stored.value <> item.value ->> 'value'
          OR stored.received <> item.value ->> 'received'
          OR stored.identifier <> item.value ->> 'identifier'
          OR stored.dimensions IS NOT item.value -> 'dimensions' AND stored.id IS NOT NULL
      ) AS altered
    FROM ${ENTRIES} ${STORED}`,
  // A cancellation that is sent again cancels what is there, so one that is not cancelled counts as missing.
  cancellations: `
    SELECT COUNT(*) FILTER (WHERE stored.cancelled IS NULL AND NOT ${PARKED}) AS missing, 0 AS altered
    FROM ${ENTRIES} ${STORED}`,
  rejections: `
    SELECT COUNT(*) FILTER (WHERE stored.id IS NULL AND NOT ${PARKED}) AS missing, 0 AS altered
    FROM ${ENTRIES} LEFT JOIN rejections AS stored ON stored.id = item.value ->> 'id'`,
};

/** Puts stored events back to what was logged of them (?1); their summaries are to be recomputed after it. */
export const RESTORE_EVENTS = `
  UPDATE events SET
    identifier = logged.identifier,
    value = logged.value,
    received = logged.received,
    dimensions = logged.dimensions
  FROM (
    SELECT
      item.value ->> 'meter' AS meter,
      item.value ->> 'customer' AS customer,
      item.value ->> 'timestamp' AS timestamp,
      item.value ->> 'id' AS id,
      item.value ->> 'identifier' AS identifier,
      item.value ->> 'value' AS value,
      item.value ->> 'received' AS received,
      item.value -> 'dimensions' AS dimensions
    FROM json_each(?1) AS item
  ) AS logged
  WHERE events.meter = logged.meter
    AND events.customer = logged.customer
    AND events.timestamp = logged.timestamp
    AND events.id = logged.id`;
