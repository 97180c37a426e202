-- Lists of late events: see schema.sql. What a file holds that was written before is known from its slice alone; the
-- manifest has a row for up to 50,000 events.
CREATE INDEX late_events ON events (id) WHERE delay >= 3600000;

ALTER TABLE archive_files ADD COLUMN max_delay INTEGER NOT NULL DEFAULT 9007199254740991;
ALTER TABLE archive_files ADD COLUMN min_received INTEGER NOT NULL DEFAULT 0;
ALTER TABLE archive_files ADD COLUMN max_received INTEGER NOT NULL DEFAULT 9007199254740991;

UPDATE archive_files SET
  max_delay = (slice + 12) * 3600000 - min_timestamp,
  max_received = (slice + 12) * 3600000 - 1;

CREATE INDEX late_files ON archive_files (max_received) WHERE max_delay >= 3600000;
