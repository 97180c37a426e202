import { HOUR_MS, sliceOf } from "../domain/window.ts";
import { tableOf } from "./sql/events.ts";
import { bringSlicesForward, liveSlices, openSlice } from "./sql/slices.ts";

/** The numbers of columns and indexes of the template and of a slice (?1): one row while they are the same. */
const SHAPES = `
  SELECT DISTINCT
    (SELECT COUNT(*) FROM pragma_table_info(tables.name)) AS columns,
    (SELECT COUNT(*) FROM sqlite_schema WHERE type = 'index' AND tbl_name = tables.name) AS indexes
  FROM sqlite_schema AS tables
  WHERE name IN ('events', ?1)`;

/** How long before it begins a slice is made (ms). */
const AHEAD_MS = 12 * HOUR_MS;

/**
 * A minute's work on a database's slices: it makes the next one before it is needed, and brings all to the template's
 * shape when the oldest is behind. A slice is made in the shape of its day, so no other can be behind then. `now` in ms.
 */
export async function keepSlices(db: D1Database, now: number): Promise<void> {
  const live = await liveSlices(db);
  const next = sliceOf(now + AHEAD_MS);
  if (!live.some(({ slice }) => slice === next)) await openSlice(db, next);
  const [oldest] = live;
  if (oldest === undefined) return;
  const { results } = await db.prepare(SHAPES).bind(tableOf(oldest.slice)).all();
  if (results.length > 1) await bringSlicesForward(db);
}
