/** The tables of the yardsticks, in the Durable Objects and in D1 alike. */
export const SCHEMA = `
  -- One small row a request.
  CREATE TABLE IF NOT EXISTS single (key TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;

  -- A thousand rows a request, of an event's size.
  CREATE TABLE IF NOT EXISTS bulk (
    key TEXT PRIMARY KEY,
    customer TEXT NOT NULL,
    timestamp INTEGER NOT NULL,
    value INTEGER NOT NULL,
    identifier TEXT NOT NULL,
    body TEXT NOT NULL
  ) WITHOUT ROWID;`;

/**
 * ?1 is what the keys of this call begin with, ?2 are the rows. Nothing is faster than one bound JSON text that SQLite
 * takes apart: no parameter a value, no parsing in JavaScript, and keys that grow, so that rows are appended.
 */
export const INSERT_BULK = `
  INSERT INTO bulk (key, customer, timestamp, value, identifier, body)
  SELECT ?1 || (value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5
  FROM json_each(?2)`;
