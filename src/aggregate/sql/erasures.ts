// Erased customers: an alias has what was theirs, without identifiers and payloads.
import { blankIdentifier } from "./entries.ts";
import { tableOf } from "./events.ts";
import { ALL_METERS } from "./series.ts";

/** The series of :customer on all meters, a look into the index for each. */
export const SERIES_OF_ALL_METERS = `
  WITH RECURSIVE ${ALL_METERS}
  SELECT series.id FROM meters CROSS JOIN series ON series.meter = meters.meter
  WHERE series.customer = :customer`;

/** Breaks the transaction that it is in when there are slices from :first on that are not in :slices (a JSON array). */
export const UNLESS_OTHER_SLICES = `
  UPDATE slices SET state = NULL
  WHERE slice >= :first AND state <> 'archived' AND slice NOT IN (SELECT value FROM json_each(:slices))`;

/**
 * Writes an erasure, which is of what was received until :now (ms). Clocks differ, so there may be later events in the
 * newest slices already; they are the alias's too. An erasure of :customer comes after the one before. Fails when it is written, or another of :customer is under way.
 */
export const insertErasure = (slices: readonly number[]): string => `
  INSERT INTO erasures (alias, customer, erased_at)
  SELECT :alias, :customer, MAX(
    :now, COALESCE((SELECT MAX(erased_at) + 1 FROM erasures WHERE customer = :customer), 0)${slices.map((slice) => `, COALESCE(${lastReceived(slice)}, 0)`).join("")}
  )`;

const lastReceived = (slice: number): string => `(
    SELECT MAX(timestamp + delay)
    FROM (${SERIES_OF_ALL_METERS}) AS own CROSS JOIN ${tableOf(slice)} AS stored ON stored.series = own.id
  )`;

/** Gives :alias the series of :customer; in the transaction of `insertErasure`. */
export const RENAME_SERIES = `UPDATE series SET customer = :alias WHERE id IN (${SERIES_OF_ALL_METERS})`;

/** The erasure of an alias. */
export const FIND_ERASURE = "SELECT alias, customer, erased_at, finished FROM erasures WHERE alias = :alias";

/** The erasure of a customer that is under way. */
export const FIND_UNFINISHED = "SELECT alias FROM erasures WHERE customer = :customer AND finished IS NULL";

export const FINISH_ERASURE = "UPDATE erasures SET finished = COALESCE(finished, :now) WHERE alias = :alias";

/** Erasures that are under way since before :begun (ms), or whose customers are to be forgotten: those of before :erased (ms). */
export const FIND_DUE_ERASURES = `
  SELECT alias, customer, erased_at, finished FROM erasures
  WHERE customer IS NOT NULL AND erased_at < IIF(finished IS NULL, :begun, :erased)`;

export const FORGET_CUSTOMER = "UPDATE erasures SET customer = NULL WHERE alias = :alias";

const IN_PAGE = "series = :series AND (timestamp, id) > (:timestamp, :id)";

/** Those of series (?1, a JSON array of ids) that a slice has events of. */
export const seriesWithEvents = (slice: number): string => `
  SELECT value AS series FROM json_each(?1) AS own
  WHERE EXISTS (SELECT 1 FROM ${tableOf(slice)} AS stored WHERE stored.series = own.value)`;

/** The last of :most events of a series after a place; none when there are fewer. */
export const lastOfPage = (slice: number): string => `
  SELECT timestamp, id FROM ${tableOf(slice)}
  WHERE ${IN_PAGE}
  ORDER BY timestamp, id LIMIT 1 OFFSET :most - 1`;

/** Blanks those :most events; one that is blank is not written. */
export const blankPage = (slice: number): string => `
  UPDATE ${tableOf(slice)} SET identifier = ${blankIdentifier("id")}, payload = NULL
  WHERE series = :series
    AND (timestamp, id) IN (
      SELECT timestamp, id FROM ${tableOf(slice)} WHERE ${IN_PAGE} ORDER BY timestamp, id LIMIT :most
    )
    AND (payload IS NOT NULL OR identifier IS NOT ${blankIdentifier("id")})`;
