-- What the numbered migrations of src/migrations add up to; test/deploy/migrations.test.ts compares them. The first part is
-- the control database (DB), the second every events database (EVENTS_0 and on, TEST_EVENTS).

-- ======== The control database: keys, meters, settings. Nothing in it grows with events. ========

-- API keys. Written by `npm run keys`, read (and cached) by every request.
-- A key itself is never stored, only its SHA-256 in hex; its mode is in its prefix, and whether it is
-- restricted. A row that says otherwise than the prefix is no key.
CREATE TABLE api_keys (
  hash TEXT PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  number INTEGER NOT NULL UNIQUE, -- what events and cancellations carry; the greatest plus one, never used again
  name TEXT NOT NULL,
  livemode INTEGER NOT NULL,
  created INTEGER NOT NULL, -- ms
  revoked_at INTEGER, -- ms; NULL while the key works
  permissions TEXT NOT NULL DEFAULT 'ingest read manage', -- words of src/domain/permissions.ts
  last_used INTEGER -- ms, to the hour or so; NULL while nobody has used it
) WITHOUT ROWID;

-- Meters. Written by /v1/billing/meters, read (and cached) by every event. Never deleted.
CREATE TABLE meters (
  id TEXT PRIMARY KEY, -- sorts by creation, so lists page by it
  livemode INTEGER NOT NULL,
  event_name TEXT NOT NULL,
  display_name TEXT NOT NULL,
  formula TEXT NOT NULL, -- 'count', 'last', 'max', 'min', 'sum'
  event_time_window TEXT, -- 'day', 'hour' or NULL
  customer_key TEXT NOT NULL,
  value_key TEXT NOT NULL,
  dimension_keys TEXT NOT NULL DEFAULT '[]', -- JSON: payload keys whose values tell series apart
  status TEXT NOT NULL, -- 'active', 'inactive'
  created INTEGER NOT NULL, -- ms
  updated INTEGER NOT NULL, -- ms
  deactivated_at INTEGER -- ms
) WITHOUT ROWID;

-- One active meter per event name and mode; inactive ones give their name up.
CREATE UNIQUE INDEX active_meters ON meters (livemode, event_name) WHERE status = 'active';

-- For archived_meter and for cancellations: the meters that ever had a name.
CREATE INDEX meters_by_name ON meters (livemode, event_name);

-- For lists: a mode's meters, and those of a status.
CREATE INDEX meters_by_mode ON meters (livemode, id);
CREATE INDEX meters_by_status ON meters (livemode, status, id);

-- First answers to POSTs with an Idempotency-Key, except events, which the log remembers.
-- Written in the same transaction as the change they answer, read by retries, deleted after a day
-- by the scheduled handler.
CREATE TABLE idempotency_keys (
  livemode INTEGER NOT NULL,
  key TEXT NOT NULL,
  request TEXT NOT NULL, -- digest of method, path and body
  response TEXT NOT NULL, -- the body that was answered with 200
  token TEXT NOT NULL, -- of the request that it answered: its id without `req_`
  created INTEGER NOT NULL, -- ms
  PRIMARY KEY (livemode, key)
) WITHOUT ROWID;

-- For deleting what has expired.
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created);

-- How far the auditor has come: one row for each shard of a log, and one for each events database. Written by
-- the scheduled handler, read by it and by /v1/edgemeter/pipeline.
CREATE TABLE audits (
  name TEXT PRIMARY KEY, -- 'log live-0', 'sums EVENTS_0', …
  position TEXT NOT NULL, -- where the next run begins, as JSON; with which hashes of customers have the most events so far
  checked INTEGER NOT NULL, -- events or summaries, ever
  repaired INTEGER NOT NULL, -- of these
  skipped INTEGER NOT NULL DEFAULT 0, -- groups that were left out because the audit lagged, ever
  updated INTEGER NOT NULL -- ms
) WITHOUT ROWID;

-- What a deployment may not change while there is data, or not at once. Recorded by the first event, adjustment
-- or claimed key; the numbers of databases and shards also by `npm run deploy` and `npm start`. Read by every isolate.
CREATE TABLE deployment (
  name TEXT PRIMARY KEY, -- 'event_log_shards', 'test_event_log_shards', 'jurisdiction', 'databases': see src/catalog/deployment.ts;
  -- 'self_test': the deployment that passed it last
  value TEXT NOT NULL
) WITHOUT ROWID;

-- The size of each events database and of each shard of a log, once an hour, kept for two days. Written by the
-- scheduled handler; tells /v1/edgemeter/pipeline how fast they fill.
CREATE TABLE sizes (
  name TEXT NOT NULL, -- 'EVENTS_0', 'live-0', …
  hour INTEGER NOT NULL, -- since 1970
  bytes INTEGER NOT NULL,
  entries INTEGER NOT NULL DEFAULT 0, -- that a shard has taken ever
  PRIMARY KEY (name, hour)
) WITHOUT ROWID;

-- ======== An events database: the events of some customers and meters of one mode, and their sums. ========

-- What is counted apart: a customer on a meter, and the values of the dimensions that the meter declares. Written by
-- the aggregator when it meets a new one, read by everything that reads events or sums.
CREATE TABLE series (
  id INTEGER PRIMARY KEY,
  meter TEXT NOT NULL,
  customer TEXT NOT NULL,
  dimensions TEXT NOT NULL DEFAULT '', -- canonical JSON of the declared keys; '' without
  UNIQUE (meter, customer, dimensions)
);

-- Customers that were erased: an alias has the series that were theirs. Written by /v1/edgemeter/erasures, read by what looks up
-- the series of an entry, since one that was received before may come again. When none can, the scheduled handler
-- blanks the customer.
CREATE TABLE erasures (
  alias TEXT PRIMARY KEY,
  customer TEXT, -- NULL 5 days after
  erased_at INTEGER NOT NULL, -- ms; the alias has what was received until then, and the customer what is received later
  finished INTEGER -- ms; NULL while events or files may still name the customer. The archive waits until then
) WITHOUT ROWID;

CREATE INDEX erased_customers ON erasures (customer, erased_at) WHERE customer IS NOT NULL;

-- A customer's erasure is resumed, not begun anew.
CREATE UNIQUE INDEX unfinished_erasures ON erasures (customer) WHERE finished IS NULL;

-- For exports, which read a meter's series in the order of their ids.
CREATE INDEX series_of_meter ON series (meter);

-- The template of the slices: this table itself stays empty. A slice `events_S` holds the accepted events of 12 hours
-- of receipt, S being the first of them (hours since 1970); src/aggregate/sql/slices.ts makes it from this table's own text.
-- Written by the aggregator and by redriven dead letters, repaired by the auditor, always in one transaction with the
-- sums; read by summaries where a range cuts a quarter hour, by lists and by the auditor.
-- The key clusters what is read together, so an event on time pays for no secondary index.
CREATE TABLE events (
  series INTEGER NOT NULL,
  timestamp INTEGER NOT NULL, -- ms
  id TEXT NOT NULL,
  identifier NOT NULL, -- a canonical UUID as its 16 bytes, anything else as text
  value INTEGER NOT NULL,
  delay INTEGER NOT NULL, -- ms from the timestamp to the receipt; less than 0 when the timestamp is ahead
  payload BLOB, -- JSONB: what is neither customer, value nor a declared dimension
  api_key INTEGER NOT NULL, -- api_keys.number of the key that reported it
  cancelled INTEGER, -- ms; NULL while it counts. A cancellation that comes first brings its event along
  cancelled_by INTEGER, -- api_keys.number
  PRIMARY KEY (series, timestamp, id)
) WITHOUT ROWID;

-- For lists of late events, in the order of receipt: one row more for an event that was received an hour after its
-- timestamp or later (LATE_MS of src/domain/limits.ts), none for the others.
CREATE INDEX late_events ON events (id) WHERE delay >= 3600000;

-- The slices that there are or were: src/archive/states.ts tells their lives. Written by the aggregator with every transaction
-- that widens a range, and by the archive; read by everything that reads events.
CREATE TABLE slices (
  slice INTEGER PRIMARY KEY, -- first hour of receipt, since 1970
  state TEXT NOT NULL, -- 'open', 'sealed', 'exported', 'checked'; 'archived' once its table is gone
  min_timestamp INTEGER, -- ms, on a quarter hour; NULL while it is empty. All its timestamps lie from here
  max_timestamp INTEGER, -- to here, which is not among them
  checked INTEGER, -- ms; when all its files were read back and compared
  recounted INTEGER NOT NULL DEFAULT 0, -- files whose events were counted once more before the drop
  skipped_to TEXT, -- test mode: JSON of the last row whose window is looked after; see src/archive/archive.ts
  failed INTEGER, -- ms; when a file was found to differ. It is left alone until an operator has it exported again
  kept_until INTEGER -- ms; until when a table that an operator has brought back is not dropped again
);

-- For readers, who ask for the slices that have tables.
CREATE INDEX live_slices ON slices (slice) WHERE state <> 'archived';

-- The manifest of the archive: its files, in the order in which they were written. Written by the archive, read by it and
-- by what reads events of archived slices.
CREATE TABLE archive_files (
  slice INTEGER NOT NULL,
  file INTEGER NOT NULL, -- from 0 on
  late INTEGER NOT NULL, -- 1: its timestamps lie outside the hours of its slice
  day INTEGER NOT NULL, -- UTC day of its timestamps, since 1970
  first_series INTEGER NOT NULL, -- the key of its first row
  first_timestamp INTEGER NOT NULL,
  first_id TEXT NOT NULL,
  last_series INTEGER NOT NULL, -- and of its last; the next file begins after it
  last_timestamp INTEGER NOT NULL,
  last_id TEXT NOT NULL,
  min_timestamp INTEGER NOT NULL, -- ms
  max_timestamp INTEGER NOT NULL, -- ms; among its timestamps
  max_delay INTEGER NOT NULL, -- ms from timestamp to receipt; the greatest of its events
  min_received INTEGER NOT NULL, -- ms
  max_received INTEGER NOT NULL, -- ms; among its times of receipt
  rows INTEGER NOT NULL,
  counted INTEGER NOT NULL, -- of these, those that are not cancelled
  sum_high INTEGER NOT NULL, -- of their values
  sum_low INTEGER NOT NULL,
  checksum TEXT NOT NULL, -- over ids, timestamps, values and cancellations, in any order; see src/archive/file.ts
  bytes INTEGER NOT NULL,
  key TEXT NOT NULL, -- of the object in R2
  sha256 TEXT NOT NULL, -- of the object, in hex
  checked INTEGER, -- ms; NULL until it was read back and compared
  PRIMARY KEY (slice, file)
) WITHOUT ROWID;

-- For readers, who look for a day's files of some series.
CREATE INDEX archive_files_by_day ON archive_files (day, first_series, last_series);

-- For lists of late events, in the order of receipt.
CREATE INDEX late_files ON archive_files (max_received) WHERE max_delay >= 3600000;

-- How many files the manifest has, and their bytes: one row, once there was a file. Kept by the triggers, whoever writes
-- the manifest; read by /v1/edgemeter/pipeline, which must not count the files of years.
CREATE TABLE archive_totals (
  id INTEGER PRIMARY KEY, -- 1
  files INTEGER NOT NULL,
  bytes INTEGER NOT NULL
);

CREATE TRIGGER archive_file_added AFTER INSERT ON archive_files BEGIN
  INSERT INTO archive_totals (id, files, bytes) VALUES (1, 1, NEW.bytes)
  ON CONFLICT (id) DO UPDATE SET files = files + 1, bytes = bytes + NEW.bytes;
END;

CREATE TRIGGER archive_file_replaced AFTER UPDATE OF bytes ON archive_files BEGIN
  UPDATE archive_totals SET bytes = bytes - OLD.bytes + NEW.bytes;
END;

CREATE TRIGGER archive_file_removed AFTER DELETE ON archive_files BEGIN
  UPDATE archive_totals SET files = files - 1, bytes = bytes - OLD.bytes;
END;

-- Who works on the database's archive. Written by the archive when there is work.
CREATE TABLE leases (
  name TEXT PRIMARY KEY, -- 'archive'
  holder TEXT NOT NULL,
  until INTEGER NOT NULL -- ms
) WITHOUT ROWID;

-- Counts and sums per quarter hour of meters that add up (`sum`, `count`). A time zone is a multiple of a quarter hour
-- away from UTC, so local hours and days are made of these. Written by the aggregator, repaired by the auditor, read by
-- summaries. The sum is high * 1,000,000,000 + low; see src/domain/value.ts.
CREATE TABLE sums (
  series INTEGER NOT NULL,
  quarter_hour INTEGER NOT NULL, -- since 1970
  count INTEGER NOT NULL,
  sum_high INTEGER NOT NULL,
  sum_low INTEGER NOT NULL,
  PRIMARY KEY (series, quarter_hour)
) WITHOUT ROWID;

-- The one event that stands for its UTC window, for meters that keep one: a quarter hour's latest by timestamp (`last`),
-- its greatest or least (`max`, `min`), or an hour's or day's last received (event time windows). Written by the
-- aggregator, repaired by the auditor, read by summaries.
CREATE TABLE survivors (
  series INTEGER NOT NULL,
  window_start INTEGER NOT NULL, -- ms
  rank INTEGER NOT NULL, -- what the window keeps the greatest of, before receipt order; see src/aggregate/sql/survivors.ts
  timestamp INTEGER NOT NULL, -- ms
  id TEXT NOT NULL, -- ids sort in receipt order
  value INTEGER NOT NULL,
  vacated INTEGER NOT NULL DEFAULT 0, -- 1: its event was cancelled, and the next one is being looked for
  base_rank INTEGER, -- the greatest event of dropped slices, which cannot be cancelled; NULL without
  base_timestamp INTEGER,
  base_id TEXT,
  base_value INTEGER,
  PRIMARY KEY (series, window_start)
) WITHOUT ROWID;

-- Events of streams that were refused: a row for those of one commit of the log, meter and code. Written by the
-- aggregator into a mode's first events database, and of events past the limit of combinations of dimensions into the
-- database that counts them; read by /v2/core/events, deleted by the scheduled handler 30 days
-- after their report was created. The key leaves the report out: which report that is depends on when the row arrives,
-- so a redelivered row would have another one, and must change nothing.
CREATE TABLE error_reports (
  id TEXT PRIMARY KEY, -- of the log's entry
  report TEXT NOT NULL, -- id; sorts by mode and creation. See src/aggregate/error-report.ts
  meter TEXT, -- NULL when there is no meter of the name
  code TEXT NOT NULL,
  count INTEGER NOT NULL,
  samples TEXT NOT NULL, -- JSON: the first ten, each [message, identifier]
  received INTEGER NOT NULL -- ms; all of one report are of the same 10 seconds
) WITHOUT ROWID;

-- Reports are listed, counted and deleted by the first index alone, those of one meter or of none listed by the second.
CREATE INDEX error_reports_by_report ON error_reports (report, meter, code, received);
CREATE INDEX error_reports_by_meter ON error_reports (meter, report);

-- Entries of the log that this database refuses for their data. Parked by the aggregator, listed, redriven
-- and discarded by /v1/edgemeter/dead_letters; counted by /v1/edgemeter/pipeline. The auditor takes them for accounted for. Empty unless
-- something is wrong.
CREATE TABLE dead_letters (
  id TEXT PRIMARY KEY, -- of the entry's group, shard, database and place in its share: sorts by receipt, and is parked once
  kind TEXT NOT NULL, -- 'events', 'cancellations', 'rejections'
  slice INTEGER NOT NULL, -- that it belongs into
  entry TEXT NOT NULL, -- JSON, as the log carried it
  reason TEXT NOT NULL, -- what was said when it was refused
  parked INTEGER NOT NULL, -- ms
  redriven INTEGER, -- ms, also when it was discarded; NULL while it waits. Kept for a day, so that a repeated call finds what it did
  discarded INTEGER -- ms; NULL unless it was. Kept for good, so that what the log sends again of it is left out
) WITHOUT ROWID;

-- For lists and counts.
CREATE INDEX waiting_dead_letters ON dead_letters (id) WHERE redriven IS NULL;
CREATE INDEX redriven_dead_letters ON dead_letters (redriven) WHERE redriven IS NOT NULL;
