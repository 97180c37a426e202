/**
 * Stores the rejections of ?1 (a JSON array of LogRejection, each with its `report`). One that is
 * stored already keeps the report that it was first put into, whatever its repetition says.
 */
export const INSERT_REJECTIONS = `
  INSERT INTO error_reports (id, report, meter, code, count, samples, received)
  SELECT
    item.value ->> 'id',
    item.value ->> 'report',
    item.value ->> 'meter',
    item.value ->> 'code',
    item.value ->> 'count',
    item.value -> 'samples',
    item.value ->> 'received'
  FROM json_each(?1) AS item
  WHERE true
  ON CONFLICT (id) DO NOTHING`;

/**
 * The ids of a page of reports, newest first: ?1 to ?2 ids (half open), ?3 whether those of no meter are
 * wanted, ?4 how many. It steps from report to report by the index, so that it reads a row or two of each,
 * however many rows a report has.
 */
export const LIST_REPORTS = `
  WITH RECURSIVE step (report, meter) AS (
    SELECT * FROM (
      SELECT report, meter FROM error_reports WHERE report >= ?1 AND report < ?2 ORDER BY report DESC LIMIT 1
    )
    UNION ALL
    SELECT next.report, next.meter
    FROM step JOIN error_reports AS next ON next.id = (
      SELECT id FROM error_reports WHERE report >= ?1 AND report < step.report ORDER BY report DESC LIMIT 1
    )
  )
  SELECT report FROM step WHERE ?3 OR meter IS NOT NULL LIMIT ?4`;

/** Likewise of one meter, ?3, or of none when that is NULL; ?4 how many. */
export const LIST_REPORTS_OF_METER = `
  WITH RECURSIVE step (report) AS (
    SELECT MAX(report) FROM error_reports WHERE meter IS ?3 AND report >= ?1 AND report < ?2
    UNION ALL
    SELECT (SELECT MAX(report) FROM error_reports WHERE meter IS ?3 AND report >= ?1 AND report < step.report)
    FROM step WHERE step.report IS NOT NULL
  )
  SELECT report FROM step WHERE report IS NOT NULL LIMIT ?4`;

/**
 * For each code of the reports ?1 (a JSON array of ids) how many events were rejected, and the samples of its first
 * ?2 rows: each row has one sample at least.
 */
export const READ_REPORTS = `
  WITH ranked AS (
    SELECT
      report, meter, received, code, samples,
      SUM(count) OVER (PARTITION BY report, meter, code) AS error_count,
      ROW_NUMBER() OVER (PARTITION BY report, meter, code ORDER BY received, id) AS place
    FROM error_reports
    WHERE report IN (SELECT value FROM json_each(?1))
  )
  SELECT report, meter, received, code, error_count, samples
  FROM ranked
  WHERE place <= ?2
  ORDER BY report DESC, code, place`;

/** Deletes some of the rows of reports ?1 to ?2 (ids, half open), at most ?3. */
export const DELETE_REPORTS = `
  DELETE FROM error_reports
  WHERE id IN (SELECT id FROM error_reports WHERE report >= ?1 AND report < ?2 LIMIT ?3)`;

/** Reports received until ?2 (ms) whose samples have a text, ?1: up to ?4 after an id, ?3. */
export const FIND_REPORTS_WITH = `
  SELECT id, samples FROM error_reports
  WHERE id > ?3 AND received <= ?2 AND instr(samples, ?1) > 0
  ORDER BY id LIMIT ?4`;

export const REPLACE_SAMPLES = "UPDATE error_reports SET samples = ?2 WHERE id = ?1";
