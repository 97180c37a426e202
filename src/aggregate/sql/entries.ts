// The log's entries in SQL: ?1 is a JSON array of them, each an array as src/log/codec.ts writes it.
import { OWN_PREFIX } from "../../domain/identifiers.ts";
import { LIMITS } from "../../domain/limits.ts";

/**
 * The entries of ?1. `json_each` would write each as text again, to be parsed once more for
 * every column; this took half of these statements' time.
 */
const ITEMS = "jsonb_each(?1) AS item";

/** Where an entry's columns are. */
const PLACES = {
  meter: 0,
  customer: 1,
  dimensions: 2,
  timestamp: 3,
  id: 4,
  value: 7,
  received: 8,
  payload: 9,
  api_key: 10,
  aggregation: 11,
  cancelled: 12,
  cancelled_by: 13,
} as const;

/** A column of an entry, in SQL. */
export const column = (name: keyof typeof PLACES): string => `item.value ->> ${PLACES[name]}`;

/** Whether entries may come of customers that were erased after they were received; asked once a statement. */
const IS_ANY_ERASED = "EXISTS (SELECT 1 FROM erasures WHERE customer IS NOT NULL)";

/** The alias that has an entry, when its customer was erased after it was received; of several erasures, by the first. */
const ALIAS = `IIF(${IS_ANY_ERASED}, (
    SELECT alias FROM erasures
    WHERE customer = ${column("customer")} AND erased_at >= ${column("received")}
    ORDER BY erased_at LIMIT 1
  ), NULL)`;

/** What an erased event has for an identifier: its own id, as if it had come without one. */
export const blankIdentifier = (id: string): string => `'${OWN_PREFIX}' || (${id})`;

/** Whether an entry is of a customer that was erased after it was received. */
export const IS_ERASED = `${ALIAS} IS NOT NULL`;

/** Who an entry counts for. */
const CUSTOMER = `COALESCE(${ALIAS}, ${column("customer")})`;

/** An entry's identifier as `events` keeps it: a canonical UUID comes as its bytes in hex. */
export const IDENTIFIER = `IIF(${IS_ERASED}, ${blankIdentifier(column("id"))}, COALESCE(unhex(item.value ->> 6), item.value ->> 5))`;

/** How long after its timestamp an entry was received (ms): a column that is shorter than both. */
export const DELAY = `(${column("received")}) - (${column("timestamp")})`;

/** Whether a series is that of an entry's own combination of dimensions. */
const isOwn = (series: string): string => `${series}.meter = ${column("meter")}
      AND ${series}.customer = ${CUSTOMER}
      AND ${series}.dimensions = ${column("dimensions")}`;

const HAS_OWN = `EXISTS (SELECT 1 FROM series AS own WHERE ${isOwn("own")})`;

/**
 * Joins an entry with its series: its own, or, when that is past the limit of combinations, the one without dimensions.
 * Series are never deleted, and none is added past the limit, so a redelivery or a cancellation meets the same one.
 */
export const SERIES = `series.meter = ${column("meter")}
      AND series.customer = ${CUSTOMER}
      AND series.dimensions = IIF(${column("dimensions")} = '' OR ${HAS_OWN}, ${column("dimensions")}, '')`;

/** An entry's payload, to which its dimensions go back when its series, which is joined, does not tell them. */
const WHOLE_PAYLOAD = `IIF(
    series.dimensions = ${column("dimensions")},
    ${column("payload")},
    json_patch(${column("dimensions")}, COALESCE(${column("payload")}, '{}'))
  )`;

/** An entry's payload as `events` keeps it: JSON that SQLite has parsed, which is shorter than its text. */
export const PAYLOAD = `IIF(${IS_ERASED}, NULL, jsonb(${WHOLE_PAYLOAD}))`;

/** How many combinations of dimensions the customer of a `found` entry has on its meter. */
const COMBINATIONS = `(
        SELECT COUNT(*) FROM series
        WHERE series.meter = found.meter AND series.customer = found.customer AND series.dimensions <> ''
      )`;

/**
 * Makes the series of entries that have none yet; it runs first in a transaction, so that the others find them all
 * without a round trip. Of a customer on a meter, the combinations of dimensions become series in the order of their
 * first entries, up to the limit; one without dimensions takes the rest. They are counted where there is a new one.
 */
export const INSERT_SERIES = `
  INSERT INTO series (meter, customer, dimensions)
  SELECT DISTINCT meter, customer, IIF(place + known <= ${LIMITS.dimensionCombinations}, dimensions, '')
  FROM (
    SELECT *, MAX(IIF(place = 1, ${COMBINATIONS}, 0)) OVER (PARTITION BY meter, customer) AS known
    FROM (
      SELECT *, ROW_NUMBER() OVER (PARTITION BY meter, customer, dimensions = '' ORDER BY first) AS place
      FROM (
        SELECT ${column("meter")} AS meter, ${CUSTOMER} AS customer, ${column("dimensions")} AS dimensions,
          MIN(item.key) AS first
        FROM ${ITEMS}
        WHERE NOT ${HAS_OWN}
        GROUP BY 1, 2, 3
      )
    ) AS found
  )
  WHERE true
  ON CONFLICT DO NOTHING`;

/** The ids of the entries that are past the limit of combinations, once INSERT_SERIES has run. */
export const FIND_OVERFLOW = `
  SELECT ${column("id")} AS id FROM ${ITEMS} WHERE ${column("dimensions")} <> '' AND NOT ${HAS_OWN}`;

/** What a statement needs of each entry, by name. */
const COLUMNS = {
  timestamp: column("timestamp"),
  id: column("id"),
  identifier: IDENTIFIER,
  value: column("value"),
  delay: DELAY,
  payload: PAYLOAD,
  api_key: column("api_key"),
  aggregation: column("aggregation"),
  cancelled: column("cancelled"),
  cancelled_by: column("cancelled_by"),
} as const;

type Column = keyof typeof COLUMNS;

/**
 * A common table `entries` with the series of each entry and some of its columns, in the order of the key of
 * `events`: so D1's pages are touched once. CROSS JOIN keeps the order: for each entry, its series.
 */
export const entries = (...columns: readonly Column[]): string => `
  entries AS MATERIALIZED (
    SELECT series.id AS series, ${columns.map((name) => `${COLUMNS[name]} AS ${name}`).join(", ")}
    FROM ${ITEMS} CROSS JOIN series
    WHERE ${SERIES}
    ORDER BY 1, 2, 3
  )`;
