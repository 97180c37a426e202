// The life of a slice. Only what is written beside an arrow moves it along that arrow.
//
//           over, all shards have           all rows are            all files are read back
//           confirmed, no dead letter       in files                and are as the rows
//     open ──────────────────────► sealed ───────────► exported ─────────────────► checked
//      ▲                             │                                              ▲ │ old, or room is needed,
//      │                             └──────────────────────────────────────────────┘ │ counted once more,
//      │                               test mode, which keeps no files                │ no dead letter
//      │                                                                              ▼
//      └── sealed, exported or checked: a repair or a redriven letter changes it  archived
//
// `failed` is no state: a slice that has it stays where it is, with its table, until an operator opens it again.
import { bind } from "../aggregate/sql/bind.ts";
import { tableOf } from "../aggregate/sql/events.ts";
import type { SliceState } from "../aggregate/sql/slices.ts";

/** A slice with its table, as the archive sees it. */
export type SliceAtWork = {
  readonly slice: number;
  readonly state: Exclude<SliceState, "archived">;
  /** Files that were counted once more before the drop. */
  readonly recounted: number;
  /** Test mode: where `skipNext` is, as JSON; null at the beginning. */
  readonly skipped_to: string | null;
  /** When it was found that a file is not what was exported (ms); it is left alone from then on. */
  readonly failed: number | null;
  /** Until when it is not dropped, since an operator has brought it back (ms). */
  readonly kept_until: number | null;
};

const LIVE =
  "SELECT slice, state, recounted, skipped_to, failed, kept_until FROM slices WHERE state <> 'archived' ORDER BY slice";

/** An event that waits as a dead letter is to be stored into its slice, once it is redriven. */
const AWAITS_LETTER = `
  SELECT 1 FROM dead_letters WHERE redriven IS NULL AND slice = ?1 AND kind <> 'rejections' LIMIT 1`;

const SEAL = `
  UPDATE slices SET state = 'sealed'
  WHERE slice = ?1 AND state = 'open' AND NOT EXISTS (${AWAITS_LETTER})`;

const MOVE =
  "UPDATE slices SET state = :to, checked = COALESCE(:checked, checked) WHERE slice = :slice AND state = :from";

const CHECK_AGAIN = "UPDATE slices SET state = 'exported', recounted = 0 WHERE slice = ?1 AND state = 'checked'";

const RECOUNTED = "UPDATE slices SET recounted = ?2 WHERE slice = ?1";

const SKIPPED = "UPDATE slices SET skipped_to = ?2 WHERE slice = ?1 AND state = 'sealed'";

/** What was opened again meanwhile differs from files that count no more. */
const FAILED = "UPDATE slices SET failed = ?2 WHERE slice = ?1 AND state IN ('exported', 'checked')";

const UNEXPORTABLE = "UPDATE slices SET failed = ?2 WHERE slice = ?1 AND state = 'sealed'";

/** Breaks the transaction that it is in unless a slice (?1) is checked and sound, and no letter waits for it: no state is NULL. */
const UNLESS_CHECKED = `
  UPDATE slices SET state = NULL
  WHERE slice = ?1 AND (state <> 'checked' OR failed IS NOT NULL OR EXISTS (${AWAITS_LETTER}))`;

const ARCHIVED_UNTIL = "SELECT MAX(max_timestamp) AS until FROM slices WHERE state = 'archived'";

const ARCHIVED = "UPDATE slices SET state = 'archived' WHERE slice = ?1";

/** When the timestamps of all slices end whose tables are gone (ms). */
export const archivedUntil = async (db: D1Database): Promise<number> =>
  (await db.prepare(ARCHIVED_UNTIL).first<number>("until")) ?? 0;

/** The slices of a database that have their tables, oldest first, and the database's size (bytes). */
export async function slicesAtWork(db: D1Database): Promise<{ slices: SliceAtWork[]; bytes: number }> {
  const { results, meta } = await db.prepare(LIVE).all<SliceAtWork>();
  return { slices: results, bytes: meta.size_after };
}

/** The statement that has a checked slice's files compared once more; no effect when it is not checked. */
export const checkAgain = (db: D1Database, slice: number): D1PreparedStatement => db.prepare(CHECK_AGAIN).bind(slice);

/** Seals a slice unless a dead letter waits for it; whether it is sealed now. */
export async function sealSlice(db: D1Database, slice: number): Promise<boolean> {
  const { meta } = await db.prepare(SEAL).bind(slice).run();
  return meta.changes > 0;
}

/** Whether a dead letter waits that is to be stored into a slice. */
export const awaitsLetter = async (db: D1Database, slice: number): Promise<boolean> =>
  (await db.prepare(AWAITS_LETTER).bind(slice).first()) !== null;

/** The statement that moves a slice on; no effect when another archiver did. `checked`: when its files were compared (ms). */
export const moveOn = (
  db: D1Database,
  slice: number,
  [from, to]: readonly [SliceState, SliceState],
  checked: number | null = null,
): D1PreparedStatement => bind(db, MOVE, { slice, from, to, checked });

export const noteRecounted = async (db: D1Database, slice: number, files: number): Promise<void> =>
  void (await db.prepare(RECOUNTED).bind(slice, files).run());

/** Test mode: notes where the walk through a slice is, as JSON. */
export const noteSkipped = async (db: D1Database, slice: number, to: string): Promise<void> =>
  void (await db.prepare(SKIPPED).bind(slice, to).run());

export const noteFailed = async (db: D1Database, slice: number, now: number): Promise<void> =>
  void (await db.prepare(FAILED).bind(slice, now).run());

/** Notes that a sealed slice cannot be exported, since it lacks events that the archive has (`now` in ms). */
export const noteUnexportable = async (db: D1Database, slice: number, now: number): Promise<void> =>
  void (await db.prepare(UNEXPORTABLE).bind(slice, now).run());

/** Drops the table of a checked slice, all at once: no row is written, and its room is free. Throws when it is not checked, or a letter waits for it. */
export const dropTable = async (db: D1Database, slice: number): Promise<void> =>
  void (await db.batch([
    db.prepare(UNLESS_CHECKED).bind(slice),
    db.prepare(`DROP TABLE IF EXISTS ${tableOf(slice)}`),
    db.prepare(ARCHIVED).bind(slice),
  ]));
