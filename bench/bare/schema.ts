/** The tables of the yardsticks, in the Durable Objects and in D1 alike. */
export const SCHEMA = `
  -- One small row per request.
  CREATE TABLE IF NOT EXISTS single (key TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;

  -- A thousand rows per request, of an event's size.
  CREATE TABLE IF NOT EXISTS bulk (
    key TEXT PRIMARY KEY,
    customer TEXT NOT NULL,
    timestamp INTEGER NOT NULL,
    value INTEGER NOT NULL,
    identifier TEXT NOT NULL,
    body TEXT NOT NULL
  ) WITHOUT ROWID;`;
