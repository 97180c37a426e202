// The auditor's comparison of the log with what a database holds.
import { column, DELAY, IDENTIFIER, IS_ERASED, PAYLOAD, SERIES } from "../aggregate/sql/entries.ts";
import { tableOf } from "../aggregate/sql/events.ts";
import { MINUTE_MS } from "../domain/window.ts";
import type { GroupKind } from "../log/groups.ts";

/**
 * The entries of ?1, a JSON array of lines, each [the prefix of its share's dead letters, its first entry's place in
 * the share, the entries].
 */
const ENTRIES = "jsonb_each(?1) AS line CROSS JOIN jsonb_each(line.value, '$[2]') AS item";

const PARKED = `EXISTS (
  SELECT 1 FROM dead_letters WHERE id = (line.value ->> 0) || ((line.value ->> 1) + item.key)
)`;

/** The event of an entry. LEFT JOIN keeps the order: for each entry, its series and its event. */
const stored = (slice: number): string => `
  LEFT JOIN series ON ${SERIES}
  LEFT JOIN ${tableOf(slice)} AS stored
    ON stored.series = series.id
    AND stored.timestamp = ${column("timestamp")}
    AND stored.id = ${column("id")}`;

/** Of an erased customer's event, identifier and payload are blank, or soon will be. */
const ALTERED = `stored.id IS NOT NULL AND (
    stored.value IS NOT ${column("value")}
    OR stored.delay IS NOT ${DELAY}
    OR (NOT (${IS_ERASED}) AND (stored.identifier IS NOT ${IDENTIFIER} OR stored.payload IS NOT ${PAYLOAD}))
    OR stored.api_key IS NOT ${column("api_key")}
  )`;

/** The entries that a database does not hold as they were logged: their line's place in ?1, and their place in the line. */
const differing = (join: string, missing: string, altered: string): string => `
  SELECT line.key AS line, item.key AS place, ${missing} AS missing
  FROM ${ENTRIES} ${join}
  WHERE (${missing} AND NOT ${PARKED}) OR (${altered})`;

/** How entries of a kind differ from what a slice holds. */
export const COMPARE: Record<GroupKind, (slice: number) => string> = {
  events: (slice) => differing(stored(slice), "stored.id IS NULL", ALTERED),
  // A cancellation that is sent again cancels what is there, so an event that is not cancelled counts as missing.
  cancellations: (slice) => differing(stored(slice), "stored.cancelled IS NULL", "false"),
  rejections: () =>
    differing("LEFT JOIN error_reports AS stored ON stored.id = item.value ->> 'id'", "stored.id IS NULL", "false"),
};

/**
 * How many events of parts of series (?1, a JSON array of [series, from, to], ms, half open) a slice holds that were
 * received from ?2 to ?3 (ms, half open), by the minute of their receipt.
 */
export const countReceived = (slice: number): string => `
  SELECT (timestamp + delay) - (timestamp + delay) % ${MINUTE_MS} AS minute, COUNT(*) AS count
  FROM json_each(?1) AS wanted CROSS JOIN ${tableOf(slice)} AS stored
  WHERE stored.series = wanted.value ->> 0
    AND stored.timestamp >= wanted.value ->> 1 AND stored.timestamp < wanted.value ->> 2
    AND timestamp + delay >= ?2 AND timestamp + delay < ?3
  GROUP BY 1`;
