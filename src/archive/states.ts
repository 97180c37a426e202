// The life of a slice: open → sealed → exported → checked → archived. Test mode's slices skip what R2 is needed for.
import { bind } from "../aggregate/sql/bind.ts";
import { tableOf } from "../aggregate/sql/events.ts";

/**
 * - `open`: takes events and cancellations.
 * - `sealed`: can change no more; is being exported.
 * - `exported`: all of it is in files, which are being compared with it.
 * - `checked`: the files are right; it may be dropped.
 * - `archived`: its table is gone.
 */
export type SliceState = "open" | "sealed" | "exported" | "checked" | "archived";

/** A slice with its table, as the archive sees it. */
export type SliceAtWork = {
  readonly slice: number;
  readonly state: Exclude<SliceState, "archived">;
  /** Files that were counted once more before the drop. */
  readonly recounted: number;
  /** When it was found that a file is not what was exported (ms); it is left alone from then on. */
  readonly failed: number | null;
};

const LIVE = "SELECT slice, state, recounted, failed FROM slices WHERE state <> 'archived' ORDER BY slice";

/** An event that waits as a dead letter is to be stored into its slice, once it is redriven. */
const SEAL = `
  UPDATE slices SET state = 'sealed'
  WHERE slice = ?1 AND state = 'open' AND NOT EXISTS (
    SELECT 1 FROM dead_letters WHERE redriven IS NULL AND slice = ?1 AND kind <> 'rejections'
  )`;

const MOVE =
  "UPDATE slices SET state = :to, checked = COALESCE(:checked, checked) WHERE slice = :slice AND state = :from";

const RECOUNTED = "UPDATE slices SET recounted = ?2 WHERE slice = ?1";

const FAILED = "UPDATE slices SET failed = ?2 WHERE slice = ?1";

/** Breaks the transaction that it is in unless a slice (?1) is checked: no state is NULL. */
const UNLESS_CHECKED = `
  UPDATE slices SET state = NULL
  WHERE slice = ?1 AND state <> 'checked'`;

const ARCHIVED = "UPDATE slices SET state = 'archived' WHERE slice = ?1";

/** The slices of a database that have their tables, oldest first, and the database's size (bytes). */
export async function slicesAtWork(db: D1Database): Promise<{ slices: SliceAtWork[]; bytes: number }> {
  const { results, meta } = await db.prepare(LIVE).all<SliceAtWork>();
  return { slices: results, bytes: meta.size_after };
}

/** Seals a slice unless a dead letter waits for it; whether it is sealed now. */
export async function sealSlice(db: D1Database, slice: number): Promise<boolean> {
  const { meta } = await db.prepare(SEAL).bind(slice).run();
  return meta.changes > 0;
}

/** The statement that moves a slice on; no effect when another archiver did. `checked`: when its files were compared (ms). */
export const moveOn = (
  db: D1Database,
  slice: number,
  [from, to]: readonly [SliceState, SliceState],
  checked: number | null = null,
): D1PreparedStatement => bind(db, MOVE, { slice, from, to, checked });

export const noteRecounted = async (db: D1Database, slice: number, files: number): Promise<void> =>
  void (await db.prepare(RECOUNTED).bind(slice, files).run());

export const noteFailed = async (db: D1Database, slice: number, now: number): Promise<void> =>
  void (await db.prepare(FAILED).bind(slice, now).run());

/** Drops the table of a checked slice, all at once: no row is written, and its room is free. Throws when it is not checked. */
export const dropTable = async (db: D1Database, slice: number): Promise<void> =>
  void (await db.batch([
    db.prepare(UNLESS_CHECKED).bind(slice),
    db.prepare(`DROP TABLE IF EXISTS ${tableOf(slice)}`),
    db.prepare(ARCHIVED).bind(slice),
  ]));
