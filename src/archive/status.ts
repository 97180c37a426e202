// What a database's archive has and lacks. Asked for each minute by some, so nothing here reads more with the years.
import type { SliceState } from "../aggregate/sql/slices.ts";
import { receiptOf } from "../domain/window.ts";
import { awaitsLetter } from "./states.ts";

/** Times in ms. */
export type ArchiveStatus = {
  /** Slices that ended by then are checked or archived, all of them; nothing before the first is. */
  readonly archivedThrough: number | undefined;
  /** When a slice was last found to be in its files as it is stored. */
  readonly lastCheck: number | undefined;
  /** In the archive; bytes of the objects. */
  readonly files: number;
  readonly bytes: number;
  /** Of the database. */
  readonly databaseBytes: number;
  /** The slices whose files differ from them, oldest first. */
  readonly failed: readonly number[];
  /** The slices that are checked and have their tables. */
  readonly droppable: number;
  /** The oldest slice that was never found to be in its files: one that an erasure rewrote was. */
  readonly unarchived: number | undefined;
  /** The oldest slice that is open, and whether a dead letter waits for it. */
  readonly oldestOpen: { readonly slice: number; readonly awaitsLetter: boolean } | undefined;
};

const LIVE = "SELECT slice, state, checked, failed FROM slices WHERE state <> 'archived' ORDER BY slice";

const TOTALS = "SELECT files, bytes FROM archive_totals";

/** The newest slice before ?1. */
const BEFORE = "SELECT MAX(slice) AS slice FROM slices WHERE slice < ?1";

/** From the newest slice that is finished on: slices before it were checked before it, or are of no interest any more. */
const LAST_CHECK = "SELECT MAX(checked) AS checked FROM slices WHERE slice >= ?1";

type LiveRow = {
  readonly slice: number;
  readonly state: SliceState;
  readonly checked: number | null;
  readonly failed: number | null;
};

export async function statusOfArchive(db: D1Database): Promise<ArchiveStatus> {
  const [live, totals] = await Promise.all([
    db.prepare(LIVE).all<LiveRow>(),
    db.prepare(TOTALS).first<{ files: number; bytes: number }>(),
  ]);
  const slices = live.results;
  const isChecked = ({ state, failed }: LiveRow): boolean => state === "checked" && failed === null;
  const unfinished = slices.find((slice) => !isChecked(slice))?.slice;
  const open = slices.find(({ state }) => state === "open")?.slice;
  const finished = await db
    .prepare(BEFORE)
    .bind(unfinished ?? Number.MAX_SAFE_INTEGER)
    .first<number>("slice");
  const [lastCheck, letter] = await Promise.all([
    db
      .prepare(LAST_CHECK)
      .bind(finished ?? 0)
      .first<number>("checked"),
    open !== undefined && awaitsLetter(db, open),
  ]);
  return {
    archivedThrough: finished === null ? undefined : receiptOf(finished).end,
    lastCheck: lastCheck ?? undefined,
    files: totals?.files ?? 0,
    bytes: totals?.bytes ?? 0,
    databaseBytes: live.meta.size_after,
    failed: slices.filter(({ failed }) => failed !== null).map(({ slice }) => slice),
    droppable: slices.filter(isChecked).length,
    unarchived: slices.find(({ state, checked }) => state === "open" || checked === null)?.slice,
    oldestOpen: open === undefined ? undefined : { slice: open, awaitsLetter: letter },
  };
}
