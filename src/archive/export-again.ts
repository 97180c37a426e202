// Has a slice exported again after its check has failed.
import { reopenSlice } from "../aggregate/sql/slices.ts";
import { err, ok, type Result } from "../domain/result.ts";
import { clearObjects } from "./strays.ts";
import type { ArchiveWork } from "./work.ts";

const HAS_FAILED = "SELECT 1 FROM slices WHERE slice = ?1 AND failed IS NOT NULL AND state <> 'archived'";

/**
 * Deletes some objects of a slice that has failed; when none is left, its files are forgotten and it is opened again, so
 * that it is sealed and exported anew. Yields a message when the slice has not failed, or an object holds events that
 * its table lacks.
 */
export async function exportAgainNext(
  work: ArchiveWork,
  slice: number,
): Promise<Result<{ readonly deleted: number; readonly mayBeMore: boolean }, string>> {
  const { db, name } = work;
  const hasFailed = (await db.prepare(HAS_FAILED).bind(slice).first()) !== null;
  if (!hasFailed) return err(`slice ${slice} of ${name} has not failed`);
  const { deleted, kept, mayBeMore } = await clearObjects(work, slice, "all");
  if (kept !== undefined) {
    const [, day] = /day=([\d-]+)/.exec(kept) ?? [];
    return err(`${kept} has events that ${name} lacks: npm run restore -- --day ${day} first`);
  }
  if (!mayBeMore) await db.batch(reopenSlice(db, slice));
  return ok({ deleted, mayBeMore });
}
