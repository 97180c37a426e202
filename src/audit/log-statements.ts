import { LOGGED_EVENT } from "../aggregate/sql/statements.ts";
import type { GroupKind } from "../log/groups.ts";

/** The entries of ?1: a JSON array of groups, each `{"prefix", "entries"}`. What is no object was parked. */
const ENTRIES = `
  json_each(?1) AS listed
  CROSS JOIN json_each(listed.value, '$.entries') AS item`;

const STORED = `
  LEFT JOIN events AS stored
    ON stored.meter = item.value ->> 'meter'
    AND stored.customer = item.value ->> 'customer'
    AND stored.timestamp = item.value ->> 'timestamp'
    AND stored.id = item.value ->> 'id'`;

const PARKED = "EXISTS (SELECT 1 FROM dead_letters WHERE id = listed.value ->> 'prefix' || item.key)";

/** The groups that differ: their place in ?1, how many entries the database has not, and how many otherwise. */
const differing = (missing: string, altered: string, stored: string): string => `
  SELECT
    listed.key AS place,
    COUNT(*) FILTER (WHERE (${missing}) AND NOT ${PARKED}) AS missing,
    COUNT(*) FILTER (WHERE ${altered}) AS altered
  FROM ${ENTRIES} ${stored}
  WHERE item.type = 'object' AND ((${missing}) OR ${altered})
  GROUP BY listed.key`;

/** How the groups of a kind (?1) differ from what the database holds; a row for each that does. */
export const CHECK: Record<GroupKind, string> = {
  events: differing(
    "stored.id IS NULL",
    `(stored.id IS NOT NULL AND (
      stored.value IS NOT item.value ->> 'value'
      OR stored.received IS NOT item.value ->> 'received'
      OR stored.identifier IS NOT item.value ->> 'identifier'
      OR stored.dimensions IS NOT item.value -> 'dimensions'
    ))`,
    STORED,
  ),
  // A cancellation that is sent again cancels what is there, so an event that is not cancelled counts as missing.
  cancellations: differing("stored.cancelled IS NULL", "false", STORED),
  rejections: differing(
    "stored.id IS NULL",
    "false",
    "LEFT JOIN rejections AS stored ON stored.id = item.value ->> 'id'",
  ),
};

/** Puts stored events back to what was logged of them (?1); their summaries are to be recomputed after it. */
export const RESTORE_EVENTS = `
  UPDATE events SET
    identifier = logged.identifier,
    value = logged.value,
    received = logged.received,
    dimensions = logged.dimensions
  FROM (
    SELECT ${LOGGED_EVENT}
    FROM json_each(?1) AS item
  ) AS logged
  WHERE events.meter = logged.meter
    AND events.customer = logged.customer
    AND events.timestamp = logged.timestamp
    AND events.id = logged.id`;
