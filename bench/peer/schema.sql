-- The peer's database: one PostgreSQL for everything, since nothing forces it apart.

CREATE TABLE api_keys (
  hash text PRIMARY KEY, -- SHA-256, hex
  livemode boolean NOT NULL
);

CREATE TABLE meters (
  id text PRIMARY KEY,
  livemode boolean NOT NULL,
  event_name text NOT NULL,
  formula text NOT NULL CHECK (formula IN ('sum', 'count')),
  customer_key text NOT NULL,
  value_key text NOT NULL,
  status text NOT NULL CHECK (status IN ('active', 'inactive'))
);

CREATE UNIQUE INDEX active_meters ON meters (livemode, event_name) WHERE status = 'active';
CREATE INDEX meters_by_name ON meters (livemode, event_name);

-- Who holds an identifier, for a rolling 24 hours. Beside the events, which outlive it.
CREATE TABLE identifiers (
  livemode boolean NOT NULL,
  identifier text NOT NULL,
  received timestamptz NOT NULL,
  PRIMARY KEY (livemode, identifier)
);

-- For the hourly purge. Rows come in the order of their time, so ranges of blocks are enough.
CREATE INDEX identifiers_by_age ON identifiers USING brin (received);

-- Accepted events, and the aggregation's queue in one: by the transaction that stored them, which
-- is committed for good and complete once it lies below every running one.
CREATE TABLE events (
  transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id(),
  id bigint GENERATED ALWAYS AS IDENTITY,
  meter text NOT NULL REFERENCES meters,
  customer text NOT NULL,
  timestamp timestamptz NOT NULL,
  identifier text NOT NULL,
  value bigint NOT NULL,
  received timestamptz NOT NULL,
  dimensions json, -- the payload without customer and value
  PRIMARY KEY (transaction_id, id)
);

-- For the edges of a summary that cut through an hour, and for listing a customer's events.
CREATE INDEX events_by_customer ON events (meter, customer, timestamp);

CREATE TABLE hourly_summaries (
  meter text NOT NULL,
  customer text NOT NULL,
  hour timestamptz NOT NULL,
  count bigint NOT NULL,
  sum numeric NOT NULL,
  PRIMARY KEY (meter, customer, hour)
);

-- Up to where events are counted: one row, changed in the same transaction as the summaries.
CREATE TABLE aggregation (
  single boolean PRIMARY KEY DEFAULT true CHECK (single),
  next xid8 NOT NULL -- the first transaction that is not counted yet
);

INSERT INTO aggregation (next) VALUES ('0');
