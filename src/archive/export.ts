// Exports a sealed slice: file after file, each where the last one ended, so that it resumes anywhere.
import { createHash } from "node:crypto";
import { TIMESTAMP_AHEAD_MS, TIMESTAMP_PAST_MS } from "../domain/limits.ts";
import { DAY_MS, receiptOf } from "../domain/window.ts";
import { encodeFile } from "./file.ts";
import { type ArchiveFile, describeRows, filesOf, insertFile, keyOf, lastFileOf, prefixOf } from "./manifest.ts";
import { nextSegment, type Row, type RowRange, readRows, sizeOf } from "./rows.ts";
import { dayOf } from "./segments.ts";
import { moveOn } from "./states.ts";
import type { Work } from "./work.ts";

/** What a file has at most: rows, and bytes of their text about. A file ends at the same row whenever it is written. */
const FILE_ROWS = 50_000;
const FILE_BYTES = 16_000_000;

/**
 * Writes the next file of a slice; or, when all are written, deletes what else there is of it, and moves the slice on.
 * Not before: an archiver that is late could not know which files another one is writing.
 */
export async function exportNext(work: Work & { readonly bucket: R2Bucket }, slice: number): Promise<void> {
  const { db, bucket, place } = work;
  const last = await lastFileOf(db, slice);
  const found = await nextRows(db, slice, last);
  if (found === undefined) {
    await deleteStrays(work, slice);
    await moveOn(db, slice, ["sealed", "exported"]).run();
    return;
  }
  const { segment } = found.range;
  const file = (last?.file ?? -1) + 1;
  const key = keyOf(place, slice, segment, file);
  const bytes = await encodeFile(found.rows, await work.keys(), work.pause);
  const sha256 = createHash("sha256").update(bytes).digest("hex");
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

async function rowsOfFile(db: D1Database, slice: number, range: RowRange): Promise<Row[]> {
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

/**
 * Deletes objects of a slice that its manifest does not name: after D1 was restored to a time before the slice was
 * exported, what is exported again may be fewer files. The manifest is read after the objects are listed, so that what
 * is written meanwhile stays.
 */
export async function deleteStrays(
  { db, bucket, place }: Work & { readonly bucket: R2Bucket },
  slice: number,
): Promise<void> {
  const { start, end } = receiptOf(slice);
  const days = { first: dayOf(start - TIMESTAMP_PAST_MS - DAY_MS), last: dayOf(end + TIMESTAMP_AHEAD_MS) };
  const listed = await Promise.all(
    Array.from({ length: days.last - days.first + 1 }, (_, i) =>
      keysOf(bucket, prefixOf(place, slice, days.first + i)),
    ),
  );
  const named = new Set((await filesOf(db, slice)).map(({ key }) => key));
  const strays = listed.flat().filter((key) => !named.has(key));
  for (let i = 0; i < strays.length; i += DELETED_AT_ONCE) await bucket.delete(strays.slice(i, i + DELETED_AT_ONCE));
}

/** R2 deletes as many of one call. */
const DELETED_AT_ONCE = 1_000;

/** The keys of all objects that begin so. */
export async function keysOf(bucket: R2Bucket, prefix: string): Promise<string[]> {
  const keys: string[] = [];
  let cursor: string | undefined;
  do {
    const page = await bucket.list({ prefix, ...(cursor !== undefined && { cursor }) });
    keys.push(...page.objects.map(({ key }) => key));
    cursor = page.truncated ? page.cursor : undefined;
  } while (cursor !== undefined);
  return keys;
}
