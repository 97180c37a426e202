-- schema.sql says what each table is for.

CREATE TABLE api_keys (
  hash TEXT PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  number INTEGER NOT NULL UNIQUE,
  name TEXT NOT NULL,
  livemode INTEGER NOT NULL,
  created INTEGER NOT NULL,
  revoked_at INTEGER,
  permissions TEXT NOT NULL DEFAULT 'ingest read manage',
  last_used INTEGER
) WITHOUT ROWID;

CREATE TABLE meters (
  id TEXT PRIMARY KEY,
  livemode INTEGER NOT NULL,
  event_name TEXT NOT NULL,
  display_name TEXT NOT NULL,
  formula TEXT NOT NULL,
  event_time_window TEXT,
  customer_key TEXT NOT NULL,
  value_key TEXT NOT NULL,
  dimension_keys TEXT NOT NULL DEFAULT '[]',
  status TEXT NOT NULL,
  created INTEGER NOT NULL,
  updated INTEGER NOT NULL,
  deactivated_at INTEGER
) WITHOUT ROWID;

CREATE UNIQUE INDEX active_meters ON meters (livemode, event_name) WHERE status = 'active';

CREATE INDEX meters_by_name ON meters (livemode, event_name);

CREATE INDEX meters_by_mode ON meters (livemode, id);
CREATE INDEX meters_by_status ON meters (livemode, status, id);

CREATE TABLE idempotency_keys (
  livemode INTEGER NOT NULL,
  key TEXT NOT NULL,
  request TEXT NOT NULL,
  response TEXT NOT NULL,
  token TEXT NOT NULL,
  created INTEGER NOT NULL,
  PRIMARY KEY (livemode, key)
) WITHOUT ROWID;

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created);

CREATE TABLE audits (
  name TEXT PRIMARY KEY,
  position TEXT NOT NULL,
  checked INTEGER NOT NULL,
  repaired INTEGER NOT NULL,
  skipped INTEGER NOT NULL DEFAULT 0,
  updated INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE deployment (
  name TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE sizes (
  name TEXT NOT NULL,
  hour INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  entries INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (name, hour)
) WITHOUT ROWID;
