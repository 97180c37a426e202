// The table of series. Those that come with the numbers that another database gave them are ?1, a JSON array of
// [number, meter, customer, dimensions].
import { tableOf } from "./events.ts";

const NAMED =
  "series.meter = wanted.value ->> 1 AND series.customer = wanted.value ->> 2 AND series.dimensions = wanted.value ->> 3";

const UNKNOWN = `json_each(?1) AS wanted WHERE NOT EXISTS (SELECT 1 FROM series WHERE ${NAMED})`;

/** Makes those that there are not: with their own numbers where these are free, else with new ones. */
export const ADOPT_SERIES = [
  `INSERT INTO series (id, meter, customer, dimensions)
  SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM ${UNKNOWN}
  ON CONFLICT DO NOTHING`,
  `INSERT INTO series (meter, customer, dimensions)
  SELECT value ->> 1, value ->> 2, value ->> 3 FROM ${UNKNOWN}
  ON CONFLICT DO NOTHING`,
] as const;

/** The numbers that they have in this database, by their places in ?1. */
export const NUMBERS_OF_SERIES = `
  SELECT wanted.key AS place, series.id FROM json_each(?1) AS wanted CROSS JOIN series WHERE ${NAMED}`;

/**
 * The customers that this database has for series whose names it does not know: those of its series of the same
 * numbers, where a slice has one of their events (of each in ?1 a fifth element, a JSON array of [timestamp (ms), id]).
 */
export const namesInSlice = (slice: number): string => `
  SELECT wanted.key AS place, own.customer
  FROM json_each(?1) AS wanted CROSS JOIN series AS own ON own.id = wanted.value ->> 0
  WHERE own.meter = wanted.value ->> 1 AND own.dimensions = wanted.value ->> 3
    AND NOT EXISTS (SELECT 1 FROM series WHERE ${NAMED})
    AND EXISTS (
      SELECT 1 FROM json_each(wanted.value, '$[4]') AS event CROSS JOIN ${tableOf(slice)} AS stored
      WHERE stored.series = own.id AND stored.timestamp = event.value ->> 0 AND stored.id = event.value ->> 1
    )`;

/** A recursive common table of the meters that a database has, and NULL: a look into the index for each. */
export const ALL_METERS = `meters (meter) AS (
    SELECT MIN(meter) FROM series
    UNION ALL
    SELECT (SELECT MIN(meter) FROM series WHERE meter > meters.meter) FROM meters WHERE meter IS NOT NULL
  )`;
