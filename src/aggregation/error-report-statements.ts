/**
 * Stores the rejections of ?1 (a JSON array of LoggedRejection, each with its `report`). One that is
 * stored already keeps the report that it was first put into, whatever its repetition says.
 */
export const INSERT_REJECTIONS = `
  INSERT INTO rejections (id, livemode, meter, code, message, identifier, received, report)
  SELECT
    item.value ->> 'id',
    item.value ->> 'livemode',
    item.value ->> 'meter',
    item.value ->> 'code',
    item.value ->> 'message',
    item.value ->> 'identifier',
    item.value ->> 'received',
    item.value ->> 'report'
  FROM json_each(?1) AS item
  WHERE true
  ON CONFLICT (id) DO NOTHING`;

/**
 * The ids of a page of reports, newest first. ?1 to ?2 ids (half open), ?3 a meter or NULL for any,
 * ?4 whether reports of a meter are wanted, ?5 whether those of no meter are, ?6 how many.
 */
export const LIST_REPORTS = `
  SELECT report
  FROM rejections
  WHERE report >= ?1 AND report < ?2
    AND (?3 IS NULL OR meter = ?3)
    AND IIF(meter IS NULL, ?5, ?4)
  GROUP BY report
  ORDER BY report DESC
  LIMIT ?6`;

/** The first ?2 rejections of each code of the reports ?1 (a JSON array of ids), and how many the code has. */
export const READ_REPORTS = `
  WITH ranked AS (
    SELECT
      id,
      COUNT(*) OVER (PARTITION BY report, meter, code) AS error_count,
      ROW_NUMBER() OVER (PARTITION BY report, meter, code ORDER BY received, id) AS place
    FROM rejections
    WHERE report IN (SELECT value FROM json_each(?1))
  )
  SELECT report, meter, received, code, error_count, message, identifier
  FROM ranked JOIN rejections USING (id)
  WHERE place <= ?2
  ORDER BY report DESC, code, place`;

/** Deletes some of the rejections in reports ?1 to ?2 (ids, half open), at most ?3. */
export const DELETE_REJECTIONS = `
  DELETE FROM rejections
  WHERE id IN (SELECT id FROM rejections WHERE report >= ?1 AND report < ?2 LIMIT ?3)`;
