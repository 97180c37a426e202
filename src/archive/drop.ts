// Drops slices that are in the archive, once they are old or their room is needed.
import { survivorMeters } from "../catalog/meters.ts";
import { DAY_MS, receiptOf } from "../domain/window.ts";
import { settingsOf } from "../env.ts";
import { logError } from "../logger.ts";
import { segmentFault } from "./check.ts";
import { type ArchiveFile, filesOf, isSameTotal, rangesOf } from "./manifest.ts";
import { countRanges, keepBasesIn } from "./rows.ts";
import { dropTable, noteFailed, noteRecounted, type SliceAtWork } from "./states.ts";
import type { Work } from "./work.ts";

/** Past what part of DATABASE_HIGH_WATER_MB room is needed. */
const NEEDS_ROOM = 0.75;

/** Files that are counted in one transaction. */
const RECOUNTED_AT_ONCE = 5;

/** Whether a database of so many bytes is to drop what it can. */
export function needsRoom({ env }: Pick<Work, "env">, bytes: number): boolean {
  return bytes > NEEDS_ROOM * settingsOf(env).DATABASE_HIGH_WATER_MB * 1_000_000;
}

/** Whether the oldest checked slice of a database of so many bytes is to be dropped `now` (ms). */
export function isDue(work: Pick<Work, "env">, slice: number, bytes: number, now: number): boolean {
  const { EVENTS_HOT_DAYS } = settingsOf(work.env);
  return now >= receiptOf(slice).end + EVENTS_HOT_DAYS * DAY_MS || needsRoom(work, bytes);
}

/**
 * Looks at the next files once more, and keeps what windows may fall back to of their events; or, when all are as they
 * were, drops the slice's table. Only now: a repair may still change a slice that has its table.
 */
export async function dropNext(work: Work, { slice, recounted }: SliceAtWork, now: number): Promise<void> {
  const { env, livemode, db, name, bucket } = work;
  const fail = async (fault: string, file: string): Promise<void> => {
    await noteFailed(db, slice, now);
    logError("events of the archive changed after their check", fault, { database: name, slice, file });
  };
  const files = bucket === undefined ? [] : rangesOf(await filesOf(db, slice));
  const next = files.slice(recounted, recounted + RECOUNTED_AT_ONCE);
  if (bucket === undefined || next.length === 0) {
    const fault = bucket === undefined ? undefined : await segmentFault(work, slice);
    await (fault === undefined ? dropTable(db, slice) : fail(fault, ""));
    return;
  }
  const ranges = next.map(({ range }) => range);
  const [totals, objects] = await Promise.all([
    countRanges(db, slice, ranges),
    Promise.all(next.map(({ file }) => bucket.head(file.key))),
  ]);
  for (const [i, { file }] of next.entries()) {
    if (totals[i] === undefined || !isSameTotal(totals[i], file))
      return fail("they add up to something else", file.key);
    if (!isObjectOf(file, objects[i] ?? null)) return fail("their object is gone, or another", file.key);
  }
  const bases = keepBasesIn(db, slice, ranges, await survivorMeters(env.DB, livemode));
  if (bases.length > 0) await db.batch(bases);
  await noteRecounted(db, slice, recounted + next.length);
}

/** Whether an object is the one that was checked, as far as R2 knows: what another tool has put may have no checksum. */
const isObjectOf = ({ bytes, sha256 }: ArchiveFile, object: R2Object | null): boolean =>
  object?.size === bytes && (object.checksums.toJSON().sha256 ?? sha256) === sha256;
