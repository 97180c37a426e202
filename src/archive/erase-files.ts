// Writes files of the archive again without a customer.

import { reopenSlice, stateOf } from "../aggregate/sql/slices.ts";
import { OWN_PREFIX } from "../domain/identifiers.ts";
import { isSameRow } from "./check.ts";
import { decodeFile, encodeFile } from "./file.ts";
import { type ArchiveFile, keyInManifest, keyOf, nextFileWith, replaceObject, stemOf } from "./manifest.ts";
import { keysOf, sha256Of } from "./objects.ts";
import type { Row } from "./rows.ts";
import { isOver } from "./seal.ts";
import { blank } from "./series.ts";
import { checkAgain, type SliceAtWork, slicesAtWork } from "./states.ts";
import { clearObjects } from "./strays.ts";
import type { Work } from "./work.ts";

/** The series that an alias has, whose rows name the customer still. */
export type ErasedSeries = { readonly alias: string; readonly series: readonly number[] };

type FilePlace = Pick<ArchiveFile, "slice" | "file">;

/**
 * Erases a customer from the next file that may have rows of theirs, after another; that file, and whether it had any.
 * Nothing after the last. Rows, their order and what they add up to stay.
 */
export async function eraseNextFile(
  work: Work,
  erased: ErasedSeries,
  after: FilePlace,
): Promise<{ readonly place: FilePlace; readonly isWritten: boolean } | undefined> {
  const { db, bucket } = work;
  const file = await nextFileWith(db, erased.series, after);
  if (file === undefined) return undefined;
  if (bucket === undefined) throw new Error("without the binding ARCHIVE, files of the archive cannot be erased");
  const object = await bucket.get(file.key);
  // A lifecycle rule of the bucket may delete what is old.
  if (object === null) return { place: file, isWritten: false };
  const bytes = await object.arrayBuffer();
  if (sha256Of(bytes) !== file.sha256) {
    const state = await stateOf(db, file.slice);
    if (state === "archived") throw new Error(`the file ${file.key} is damaged`);
    // Its events are blank already: the slice is exported anew, and this file is a stray.
    await db.batch(reopenSlice(db, file.slice));
    return { place: file, isWritten: false };
  }
  const rows = await decodeFile(bytes, await work.keys());
  const isNamed = namedIn(erased);
  const isWritten = rows.some(isNamed);
  const key = isWritten
    ? await writeAgain(
        { ...work, bucket },
        file,
        erased,
        rows.map((row) => (isNamed(row) ? blank(row, erased.alias) : row)),
      )
    : file.key;
  // Also those of an attempt that ended after the manifest named the new one.
  const others = await keysOf(bucket, stemOf(work.place, file.slice, file.segment, file.file));
  const old = others.filter((other) => other !== key);
  if (old.length > 0) {
    // Only then, so that what another names meanwhile stays.
    if ((await keyInManifest(db, file)) !== key) throw new Error(`the file ${file.key} was replaced meanwhile`);
    await bucket.delete(old);
  }
  return { place: file, isWritten };
}

/**
 * Deletes some objects of slices that are to be exported, or are being, which no manifest names: a crash left them, or
 * a repair that opened the slice again. They are written from blank events. Whether there may be more.
 */
export async function eraseStrays(work: Work, now: number): Promise<boolean> {
  const { db, bucket } = work;
  if (bucket === undefined) return false;
  const { slices } = await slicesAtWork(db);
  const isExporting = ({ slice, state }: SliceAtWork) => state === "sealed" || (state === "open" && isOver(slice, now));
  for (const { slice } of slices.filter(isExporting)) {
    const { kept, mayBeMore } = await clearObjects({ ...work, bucket }, slice, "strays");
    // Deleted they would be lost, and kept they name the customer.
    if (kept !== undefined) throw new Error(`${kept} has events that their slice lacks: restore them first`);
    if (mayBeMore) return true;
  }
  return false;
}

function namedIn({ alias, series }: ErasedSeries): (row: Row) => boolean {
  const own = new Set(series);
  return (row) =>
    own.has(row.series) && (row.customer !== alias || row.payload !== null || row.identifier !== OWN_PREFIX + row.id);
}

/**
 * Puts rows under a new key, reads them back, and has the manifest name that; the key. A repetition writes the same
 * bytes under the same key. Throws when the manifest names another file by now.
 */
async function writeAgain(
  { db, bucket, place, keys, pause }: Work & { readonly bucket: R2Bucket },
  file: ArchiveFile,
  { alias }: ErasedSeries,
  rows: readonly Row[],
): Promise<string> {
  const key = keyOf(place, file.slice, file.segment, file.file, alias);
  const bytes = await encodeFile(rows, await keys(), pause);
  const sha256 = sha256Of(bytes);
  await bucket.put(key, bytes, { sha256 });
  const put = await bucket.get(key);
  const stored = put === null ? [] : await decodeFile(await put.arrayBuffer(), await keys());
  const isSame = stored.length === rows.length && stored.every((row, i) => isSameRow(row, rows[i] ?? row));
  if (!isSame) throw new Error(`the file ${key} is not what was written`);
  const object = { key, bytes: bytes.length, sha256 };
  const [replaced] = await db.batch([replaceObject(db, file, object), checkAgain(db, file.slice)]);
  if (replaced?.meta.changes === 0) throw new Error(`the file ${file.key} was replaced meanwhile`);
  return key;
}
