// Exports a sealed slice: file after file, each where the last one ended, so that it resumes anywhere.
import { logError } from "../logger.ts";
import { encodeFile } from "./file.ts";
import { type ArchiveFile, describeRows, insertFile, keyOf, lastFileOf } from "./manifest.ts";
import { sha256Of } from "./objects.ts";
import { nextSegment, type Row, type RowRange, readRows, sizeOf } from "./rows.ts";
import { moveOn, noteUnexportable } from "./states.ts";
import { clearObjects, holdsMore } from "./strays.ts";
import type { ArchiveWork } from "./work.ts";

/** What a file has at most: rows, and bytes of their text about. A file ends at the same row whenever it is written. */
const FILE_ROWS = 50_000;
const FILE_BYTES = 16_000_000;

/**
 * Writes the next file of a slice; or, when all are written, deletes what else there is of it, some objects a
 * step, and moves the slice on. Not before: an archiver that is late could not know which files another one is writing. A database
 * that was restored to an earlier time may lack events that an object holds, and would overwrite or delete it: that is
 * logged, and ends it.
 */
export async function exportNext(work: ArchiveWork, slice: number, now: number): Promise<void> {
  const { db, bucket, place, name } = work;
  const keep = async (kept: string): Promise<void> => {
    await noteUnexportable(db, slice, now);
    logError("the archive has events that their slice lacks", "it was restored to an earlier time", {
      ...{ database: name, slice, file: kept },
    });
  };
  const last = await lastFileOf(db, slice);
  const found = await nextRows(db, slice, last);
  if (found === undefined) {
    const { kept, mayBeMore } = await clearObjects(work, slice, "strays");
    if (kept !== undefined) await keep(kept);
    else if (!mayBeMore) await moveOn(db, slice, ["sealed", "exported"]).run();
    return;
  }
  const { segment } = found.range;
  const file = (last?.file ?? -1) + 1;
  const key = keyOf(place, slice, segment, file);
  if (await holdsMore(work, slice, key)) {
    await keep(key);
    return;
  }
  const bytes = await encodeFile(found.rows, await work.keys(), work.pause);
  const sha256 = sha256Of(bytes);
  await bucket.put(key, bytes, { sha256 });
  const described = { ...describeRows(found.rows), bytes: bytes.length, key, sha256, checked: undefined };
  await insertFile(db, { slice, file, segment, ...described }).run();
}

/** The rows of the next file: the rest of the last one's segment, or a segment that follows. */
export async function nextRows(
  db: D1Database,
  slice: number,
  last: Pick<ArchiveFile, "segment" | "last"> | undefined,
): Promise<{ readonly rows: readonly Row[]; readonly range: RowRange } | undefined> {
  let range: RowRange | undefined = last && { segment: last.segment, after: last.last };
  for (;;) {
    if (range !== undefined) {
      const rows = await rowsOfFile(db, slice, range);
      if (rows.length > 0) return { rows, range };
    }
    const segment = await nextSegment(db, slice, range?.segment);
    if (segment === undefined) return undefined;
    range = { segment };
  }
}

/** The rows of a range that fit into one file. */
export async function rowsOfFile(db: D1Database, slice: number, range: RowRange): Promise<Row[]> {
  const rows: Row[] = [];
  let bytes = 0;
  for await (const page of readRows(db, slice, range, FILE_ROWS)) {
    for (const row of page) {
      rows.push(row);
      bytes += sizeOf(row);
      if (bytes >= FILE_BYTES) return rows;
    }
  }
  return rows;
}
