-- The whole D1 schema. Every statement can run again on a database that has it already.

-- API keys. Written by `npm run keys`, read (and cached) by every request.
-- A key itself is never stored, only its SHA-256 in hex; its mode is in its prefix, and whether it is
-- restricted. A row that says otherwise than the prefix is no key.
CREATE TABLE IF NOT EXISTS api_keys (
  hash TEXT PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  livemode INTEGER NOT NULL,
  created INTEGER NOT NULL, -- ms
  revoked_at INTEGER, -- ms; NULL while the key works
  permissions TEXT NOT NULL DEFAULT 'ingest read manage' -- words of src/domain/permissions.ts
) WITHOUT ROWID;

-- Meters. Written by /v1/billing/meters, read (and cached) by every event. Never deleted.
CREATE TABLE IF NOT EXISTS meters (
  id TEXT PRIMARY KEY, -- sorts by creation, so lists page by it
  livemode INTEGER NOT NULL,
  event_name TEXT NOT NULL,
  display_name TEXT NOT NULL,
  formula TEXT NOT NULL, -- 'count', 'last', 'sum'
  event_time_window TEXT, -- 'day', 'hour' or NULL
  customer_key TEXT NOT NULL,
  value_key TEXT NOT NULL,
  status TEXT NOT NULL, -- 'active', 'inactive'
  created INTEGER NOT NULL, -- ms
  updated INTEGER NOT NULL, -- ms
  deactivated_at INTEGER -- ms
) WITHOUT ROWID;

-- One active meter per event name and mode; inactive ones give their name up.
CREATE UNIQUE INDEX IF NOT EXISTS active_meters ON meters (livemode, event_name) WHERE status = 'active';

-- For archived_meter and for cancellations: the meters that ever had a name.
CREATE INDEX IF NOT EXISTS meters_by_name ON meters (livemode, event_name);

-- For lists: a mode's meters, and those of a status.
CREATE INDEX IF NOT EXISTS meters_by_mode ON meters (livemode, id);
CREATE INDEX IF NOT EXISTS meters_by_status ON meters (livemode, status, id);

-- First answers to POSTs with an Idempotency-Key, except events, which the log remembers.
-- Written in the same transaction as the change they answer, read by retries, deleted after a day
-- by the scheduled handler.
CREATE TABLE IF NOT EXISTS idempotency_keys (
  livemode INTEGER NOT NULL,
  key TEXT NOT NULL,
  request TEXT NOT NULL, -- digest of method, path and body
  response TEXT NOT NULL, -- the body that was answered with 200
  token TEXT NOT NULL, -- of the request that it answered: its id without `req_`
  created INTEGER NOT NULL, -- ms
  PRIMARY KEY (livemode, key)
) WITHOUT ROWID;

-- For deleting what has expired.
CREATE INDEX IF NOT EXISTS idempotency_keys_by_age ON idempotency_keys (created);

-- Accepted events. Written by the aggregator and by redriven dead letters, repaired by the auditor,
-- always in one transaction with the summaries; read by summaries where a range cuts through an hour, by
-- lists and by the auditor. The mode is the meter's.
-- The key clusters what is read together, so no secondary index is paid for.
CREATE TABLE IF NOT EXISTS events (
  meter TEXT NOT NULL,
  customer TEXT NOT NULL,
  timestamp INTEGER NOT NULL, -- ms
  id TEXT NOT NULL,
  identifier TEXT NOT NULL,
  value INTEGER NOT NULL,
  received INTEGER NOT NULL, -- ms
  dimensions TEXT, -- JSON: the payload without customer and value
  cancelled INTEGER, -- ms; NULL while it counts. A cancellation that comes first brings its event along
  PRIMARY KEY (meter, customer, timestamp, id)
) WITHOUT ROWID;

-- Counts and sums per UTC hour of meters that add up (`sum`, `count`). Written by the aggregator,
-- repaired by the auditor, read by summaries. The sum is high * 1,000,000,000 + low; see src/domain/value.ts.
CREATE TABLE IF NOT EXISTS hourly_summaries (
  meter TEXT NOT NULL,
  customer TEXT NOT NULL,
  hour INTEGER NOT NULL, -- start, ms
  count INTEGER NOT NULL,
  sum_high INTEGER NOT NULL,
  sum_low INTEGER NOT NULL,
  PRIMARY KEY (meter, customer, hour)
) WITHOUT ROWID;

-- The one event that stands for its UTC window, for meters that keep one: the latest by timestamp
-- (`last`), or the last received (event time windows). Written by the aggregator, repaired by the
-- auditor, read by summaries.
CREATE TABLE IF NOT EXISTS window_survivors (
  meter TEXT NOT NULL,
  customer TEXT NOT NULL,
  window_start INTEGER NOT NULL, -- ms
  rank INTEGER NOT NULL, -- what the window keeps the greatest of, before receipt order: the timestamp (ms) for `last`, else 0
  timestamp INTEGER NOT NULL, -- ms
  id TEXT NOT NULL, -- ids sort in receipt order
  value INTEGER NOT NULL,
  PRIMARY KEY (meter, customer, window_start)
) WITHOUT ROWID;

-- Events of streams that were refused. Written by the aggregator, read by /v2/core/events, deleted by
-- the scheduled handler 30 days after their report was created. The key is the rejected event's own,
-- without its report: which report that is depends on when it arrives, so a redelivered row would
-- have another one, and must change nothing.
CREATE TABLE IF NOT EXISTS rejections (
  id TEXT PRIMARY KEY,
  livemode INTEGER NOT NULL,
  meter TEXT, -- NULL when there is no meter of the name
  code TEXT NOT NULL,
  message TEXT NOT NULL,
  identifier TEXT NOT NULL,
  received INTEGER NOT NULL, -- ms; all of one report are of the same 10 seconds
  report TEXT NOT NULL -- id; sorts by mode and creation. See src/aggregate/error-report.ts
) WITHOUT ROWID;

-- Reports are listed, counted and deleted by the first index alone, those of one meter or of none listed by
-- the second. They are two more rows to pay for per rejected event, which is rare beside accepted ones.
CREATE INDEX IF NOT EXISTS rejections_by_report ON rejections (report, meter, code, received);
CREATE INDEX IF NOT EXISTS rejections_by_meter ON rejections (meter, report);

-- Entries of the log that this database refuses for their data. Parked by the aggregator, listed and
-- redriven by /v1/edgemeter/dead_letters, which deletes what went through; counted by
-- /v1/edgemeter/pipeline. The auditor takes them for accounted for. Empty unless something is wrong.
CREATE TABLE IF NOT EXISTS dead_letters (
  id TEXT PRIMARY KEY, -- of the entry's group, shard and place: sorts by receipt, and is parked once
  livemode INTEGER NOT NULL,
  kind TEXT NOT NULL, -- 'events', 'cancellations', 'rejections'
  entry TEXT NOT NULL, -- JSON, as the log carried it
  reason TEXT NOT NULL, -- what was said when it was refused
  parked INTEGER NOT NULL -- ms
) WITHOUT ROWID;

-- For lists and counts.
CREATE INDEX IF NOT EXISTS dead_letters_by_mode ON dead_letters (livemode, id);

-- How far the auditor has come. One row for each log's shard, and one for the summaries. Written by the
-- scheduled handler, read by it and by /v1/edgemeter/pipeline.
CREATE TABLE IF NOT EXISTS audits (
  name TEXT PRIMARY KEY, -- 'log-0', 'log-1', …, 'summaries'
  position TEXT NOT NULL, -- where the next run begins, as JSON
  checked INTEGER NOT NULL, -- events or summaries, ever
  repaired INTEGER NOT NULL, -- of these
  updated INTEGER NOT NULL -- ms
) WITHOUT ROWID;

-- What a deployment may not change while there is data, recorded by the first event, adjustment or claimed key.
-- Read once by every isolate.
CREATE TABLE IF NOT EXISTS deployment (
  name TEXT PRIMARY KEY, -- 'event_log_shards', 'jurisdiction'; 'self_test': the deployment that passed it last
  value TEXT NOT NULL
) WITHOUT ROWID;
