-- schema.sql says what each table is for.

CREATE TABLE series (
  id INTEGER PRIMARY KEY,
  meter TEXT NOT NULL,
  customer TEXT NOT NULL,
  dimensions TEXT NOT NULL DEFAULT '',
  UNIQUE (meter, customer, dimensions)
);

CREATE TABLE erasures (
  alias TEXT PRIMARY KEY,
  customer TEXT,
  erased_at INTEGER NOT NULL,
  finished INTEGER
) WITHOUT ROWID;

CREATE INDEX erased_customers ON erasures (customer, erased_at) WHERE customer IS NOT NULL;

CREATE UNIQUE INDEX unfinished_erasures ON erasures (customer) WHERE finished IS NULL;

CREATE INDEX series_of_meter ON series (meter);

CREATE TABLE events (
  series INTEGER NOT NULL,
  timestamp INTEGER NOT NULL,
  id TEXT NOT NULL,
  identifier NOT NULL,
  value INTEGER NOT NULL,
  delay INTEGER NOT NULL,
  payload BLOB,
  api_key INTEGER NOT NULL,
  cancelled INTEGER,
  cancelled_by INTEGER,
  PRIMARY KEY (series, timestamp, id)
) WITHOUT ROWID;

CREATE INDEX late_events ON events (id) WHERE delay >= 3600000;

CREATE TABLE slices (
  slice INTEGER PRIMARY KEY,
  state TEXT NOT NULL,
  min_timestamp INTEGER,
  max_timestamp INTEGER,
  checked INTEGER,
  recounted INTEGER NOT NULL DEFAULT 0,
  skipped_to TEXT,
  failed INTEGER,
  kept_until INTEGER
);

CREATE INDEX live_slices ON slices (slice) WHERE state <> 'archived';

CREATE TABLE archive_files (
  slice INTEGER NOT NULL,
  file INTEGER NOT NULL,
  late INTEGER NOT NULL,
  day INTEGER NOT NULL,
  first_series INTEGER NOT NULL,
  first_timestamp INTEGER NOT NULL,
  first_id TEXT NOT NULL,
  last_series INTEGER NOT NULL,
  last_timestamp INTEGER NOT NULL,
  last_id TEXT NOT NULL,
  min_timestamp INTEGER NOT NULL,
  max_timestamp INTEGER NOT NULL,
  max_delay INTEGER NOT NULL,
  min_received INTEGER NOT NULL,
  max_received INTEGER NOT NULL,
  rows INTEGER NOT NULL,
  counted INTEGER NOT NULL,
  sum_high INTEGER NOT NULL,
  sum_low INTEGER NOT NULL,
  checksum TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  key TEXT NOT NULL,
  sha256 TEXT NOT NULL,
  checked INTEGER,
  PRIMARY KEY (slice, file)
) WITHOUT ROWID;

CREATE INDEX archive_files_by_day ON archive_files (day, first_series, last_series);

CREATE INDEX late_files ON archive_files (max_received) WHERE max_delay >= 3600000;

CREATE TABLE archive_totals (
  id INTEGER PRIMARY KEY,
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

CREATE TABLE leases (
  name TEXT PRIMARY KEY,
  holder TEXT NOT NULL,
  until INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE sums (
  series INTEGER NOT NULL,
  quarter_hour INTEGER NOT NULL,
  count INTEGER NOT NULL,
  sum_high INTEGER NOT NULL,
  sum_low INTEGER NOT NULL,
  PRIMARY KEY (series, quarter_hour)
) WITHOUT ROWID;

CREATE TABLE survivors (
  series INTEGER NOT NULL,
  window_start INTEGER NOT NULL,
  rank INTEGER NOT NULL,
  timestamp INTEGER NOT NULL,
  id TEXT NOT NULL,
  value INTEGER NOT NULL,
  vacated INTEGER NOT NULL DEFAULT 0,
  base_rank INTEGER,
  base_timestamp INTEGER,
  base_id TEXT,
  base_value INTEGER,
  PRIMARY KEY (series, window_start)
) WITHOUT ROWID;

CREATE TABLE error_reports (
  id TEXT PRIMARY KEY,
  report TEXT NOT NULL,
  meter TEXT,
  code TEXT NOT NULL,
  count INTEGER NOT NULL,
  samples TEXT NOT NULL,
  received INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX error_reports_by_report ON error_reports (report, meter, code, received);
CREATE INDEX error_reports_by_meter ON error_reports (meter, report);

CREATE TABLE dead_letters (
  id TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  slice INTEGER NOT NULL,
  entry TEXT NOT NULL,
  reason TEXT NOT NULL,
  parked INTEGER NOT NULL,
  redriven INTEGER,
  discarded INTEGER
) WITHOUT ROWID;

CREATE INDEX waiting_dead_letters ON dead_letters (id) WHERE redriven IS NULL;
CREATE INDEX redriven_dead_letters ON dead_letters (redriven) WHERE redriven IS NOT NULL;
