// Reads exported files back and compares them with the events that they are of, before anything is dropped.
import { logError } from "../logger.ts";
import { type FileWithRange, filesOf, firstUnchecked, markChecked } from "./manifest.ts";
import { readBack } from "./objects.ts";
import { nextSegment, type Row, readRows } from "./rows.ts";
import type { Segment } from "./segments.ts";
import { moveOn, noteFailed } from "./states.ts";
import type { ArchiveWork, Work } from "./work.ts";

/** Compares the next file of a slice; or, when all are right, moves the slice on. A difference is logged, and ends it. */
export async function checkNext(work: ArchiveWork, slice: number, now: number): Promise<void> {
  const { db, name } = work;
  const next = await firstUnchecked(db, slice);
  const fault = next === undefined ? await segmentFault(work, slice) : await fileFault(work, next);
  if (fault !== undefined) {
    await noteFailed(db, slice, now);
    logError("a file of the archive differs from its events", fault, {
      database: name,
      slice,
      file: next?.file.key ?? "",
    });
  } else if (next === undefined) {
    await moveOn(db, slice, ["exported", "checked"], now).run();
  } else {
    await markChecked(db, next.file, now).run();
  }
}

/** What is wrong with a file; nothing when it has its rows, and no others. */
async function fileFault(work: ArchiveWork, { file, range }: FileWithRange): Promise<string | undefined> {
  const { db, pause } = work;
  const read = await readBack(work, file);
  if (!read.ok) return read.error;
  const archived = read.value;
  let place = 0;
  for await (const page of readRows(db, file.slice, range)) {
    for (const row of page) {
      const other = archived[place++];
      if (other === undefined || !isSameRow(row, other)) return `event ${row.id} is not in it as it is stored`;
    }
    await pause();
  }
  return place === archived.length ? undefined : "it has events that are not stored";
}

export const isSameRow = (one: Row, other: Row): boolean =>
  (Object.keys(one) as (keyof Row)[]).every((column) => one[column] === other[column]);

/** What is wrong with the segments of a slice's files: each that has rows must have files. */
export async function segmentFault({ db }: Work, slice: number): Promise<string | undefined> {
  const nameOf = ({ isLate, day }: Segment): string => `${isLate}:${day}`;
  const archived = new Set((await filesOf(db, slice)).map(({ segment }) => nameOf(segment)));
  let stored = 0;
  for (let next = await nextSegment(db, slice, undefined); next !== undefined; stored++) {
    if (!archived.has(nameOf(next))) return "it has no file for a day";
    next = await nextSegment(db, slice, next);
  }
  return stored === archived.size ? undefined : "it has a file for a day without events";
}
