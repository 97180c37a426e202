// What is done to the events of a slice.
import { LATE_MS } from "../../domain/limits.ts";
import { entries } from "./entries.ts";

/** The table of a slice. */
export const tableOf = (slice: number): string => `events_${Number(slice)}`;

const STORED = "series, timestamp, id, identifier, value, delay, payload, api_key";

const COLUMNS = ["timestamp", "id", "identifier", "value", "delay", "payload", "api_key"] as const;

/**
 * The entries that are not stored yet. Every statement that counts reads through it and runs before `insertEvents`
 * in the same transaction: that is what makes a redelivered event count once.
 */
export const freshEntries = (slice: number): string => `
  ${entries("timestamp", "id", "value", "aggregation")},
  fresh AS (
    SELECT * FROM entries
    WHERE NOT EXISTS (
      SELECT 1 FROM ${tableOf(slice)} AS stored
      WHERE stored.series = entries.series AND stored.timestamp = entries.timestamp AND stored.id = entries.id
    )
  )`;

/** The cancellations whose events are stored and count still. */
export const countedCancellations = (slice: number): string => `
  ${entries("timestamp", "id", "aggregation")},
  counted AS (
    SELECT entries.series, entries.timestamp, stored.value, aggregation
    FROM entries CROSS JOIN ${tableOf(slice)} AS stored
    WHERE stored.series = entries.series AND stored.timestamp = entries.timestamp AND stored.id = entries.id
      AND stored.cancelled IS NULL
  )`;

/** A row when an entry (?1, an array of the one) is stored; of a cancellation, when its event is cancelled. */
export const isEntryStored = (slice: number, isCancellation: boolean): string => `
  WITH ${entries("timestamp", "id")}
  SELECT 1
  FROM entries CROSS JOIN ${tableOf(slice)} AS stored
  WHERE stored.series = entries.series AND stored.timestamp = entries.timestamp AND stored.id = entries.id
    ${isCancellation ? "AND stored.cancelled IS NOT NULL" : ""}`;

/** How many of some entries are stored; of cancellations, those whose events are cancelled. */
export const countStored = (slice: number, areCancellations: boolean): string => `
  WITH ${entries("timestamp", "id")}
  SELECT COUNT(*) AS stored
  FROM entries CROSS JOIN ${tableOf(slice)} AS stored
  WHERE stored.series = entries.series AND stored.timestamp = entries.timestamp AND stored.id = entries.id
    ${areCancellations ? "AND stored.cancelled IS NOT NULL" : ""}`;

/** The series of a customer on a meter, with their dimensions. */
export const SERIES_OF_CUSTOMER = "SELECT id, dimensions FROM series WHERE meter = :meter AND customer = :customer";

/** Newest first or oldest first, by timestamp and receipt. */
export type Order = "newest_first" | "oldest_first";

export const DIRECTION: Record<Order, "DESC" | "ASC"> = { newest_first: "DESC", oldest_first: "ASC" };

/** What a list shows of an event. */
const LISTED = `
    series, customer, dimensions, timestamp, stored.id AS id, value, timestamp + delay AS received, json(payload) AS payload, api_key,
    cancelled, cancelled_by,
    IIF(typeof(identifier) = 'blob', NULL, identifier) AS identifier,
    IIF(typeof(identifier) = 'blob', hex(identifier), NULL) AS uuid`;

/**
 * Which events every list may be asked for: with timestamps from :from to :to, received from :received_from to
 * :received_to (ms, half open); :cancelled 1 for cancelled ones alone, 0 for the others, -1 for all.
 */
const FILTERED = `
    timestamp >= :from AND timestamp < :to
    AND timestamp + delay >= :received_from AND timestamp + delay < :received_to
    AND (:cancelled < 0 OR (cancelled IS NOT NULL) = :cancelled)`;

/**
 * A page of a slice's events of some series: :series, a JSON array of ids, or the one id when there is one, since only
 * then the table's key has the page's order.
 */
export const listSlice = (slice: number, order: Order, ofOne: boolean): string => `
  SELECT ${LISTED}
  FROM ${tableOf(slice)} AS stored CROSS JOIN series ON series.id = stored.series
  WHERE series ${ofOne ? "= :series" : "IN (SELECT value FROM json_each(:series))"}
    AND (timestamp, stored.id) ${order === "newest_first" ? "<" : ">"} (:timestamp, :id)
    AND ${FILTERED}
  ORDER BY timestamp ${DIRECTION[order]}, stored.id ${DIRECTION[order]}
  LIMIT :limit`;

/**
 * A page of a slice's late events of a meter (of :customer, unless that is NULL), in the order of receipt, with ids
 * between :after and :before: those that came at least :delay (LATE_MS or more) after their timestamps. INDEXED BY, since
 * any other way is a walk over the slice.
 */
export const listLate = (slice: number, order: Order): string => `
  SELECT ${LISTED}
  FROM ${tableOf(slice)} AS stored INDEXED BY late_events_${tableOf(slice)}
  CROSS JOIN series ON series.id = stored.series
  WHERE delay >= ${LATE_MS} AND delay >= :delay AND stored.id > :after AND stored.id < :before
    AND meter = :meter AND (:customer IS NULL OR customer = :customer)
    AND ${FILTERED}
  ORDER BY stored.id ${DIRECTION[order]}
  LIMIT :limit`;

export const insertEvents = (slice: number, table: string = tableOf(slice)): string => `
  WITH ${entries(...COLUMNS)}
  INSERT INTO ${table} (${STORED})
  SELECT ${STORED} FROM entries
  WHERE true
  ON CONFLICT DO NOTHING`;

/** Marks events as cancelled; one that is not there yet is stored as cancelled, and never counts. */
export const cancelEvents = (slice: number, table: string = tableOf(slice)): string => `
  WITH ${entries(...COLUMNS, "cancelled", "cancelled_by")}
  INSERT INTO ${table} (${STORED}, cancelled, cancelled_by)
  SELECT ${STORED}, cancelled, cancelled_by FROM entries
  WHERE true
  ON CONFLICT (series, timestamp, id) DO UPDATE SET
    cancelled = excluded.cancelled,
    cancelled_by = excluded.cancelled_by
  WHERE ${table}.cancelled IS NULL`;

/** Puts stored events back to what was logged of them. The sums that count them are corrected in the same transaction. */
export const restoreEvents = (slice: number): string => `
  WITH ${entries(...COLUMNS)}
  UPDATE ${tableOf(slice)} AS stored SET
    identifier = entries.identifier,
    value = entries.value,
    delay = entries.delay,
    payload = entries.payload,
    api_key = entries.api_key
  FROM entries
  WHERE stored.series = entries.series AND stored.timestamp = entries.timestamp AND stored.id = entries.id`;
