// What an operator brings back from the archive, in steps of about one file.
import * as z from "zod";
import { err, ok, type Result } from "../domain/result.ts";
import { DAY_MS } from "../domain/window.ts";
import type { Env } from "../env.ts";
import { archivesOf } from "./archive.ts";
import { bringBackNext } from "./bring-back.ts";
import { exportAgainNext } from "./export-again.ts";
import { endLease, takeLease } from "./lease.ts";
import { type RestoredFile, restoreNextOfDay } from "./restore-day.ts";
import type { ArchiveWork } from "./work.ts";

/** Days since 1970, and hours: more than a date can say. */
const MOST_DAYS = 100_000;
const MOST_HOURS = 24 * MOST_DAYS;

const count = (most: number = Number.MAX_SAFE_INTEGER) => z.int().min(0).max(most);

/**
 * What is left to do, from a step on.
 * - A UTC day (since 1970) of every database from one on: after an object's key, there.
 * - The table of an archived slice: from one of its files on. It is kept for a time (ms).
 * - A slice that is to be exported again.
 */
export const Restoration = z.union([
  z.strictObject({ day: count(MOST_DAYS), place: count(), after: z.string().optional() }),
  z.strictObject({ slice: count(MOST_HOURS), database: z.string(), file: count(), keepMs: count(MOST_DAYS * DAY_MS) }),
  z.strictObject({ again: count(MOST_HOURS), database: z.string() }),
]);

export type Restoration = z.output<typeof Restoration>;

export type RestoreStep = {
  /** Where it was. */
  readonly database: string;
  /** Nothing when no file was left there, or another worked on the database's archive. */
  readonly file: RestoredFile | undefined;
  /** Objects of a slice that is exported again. */
  readonly deleted: number;
  /** Whether another did: the next step is this one. */
  readonly waits: boolean;
  /** Nothing after the last step. */
  readonly next: Restoration | undefined;
};

/** One step, `now` (ms). Any may be repeated. Yields a message when there is nothing that can be done. */
export async function restoreStep(env: Env, left: Restoration, now: number): Promise<Result<RestoreStep, string>> {
  const works = archivesOf(env);
  if (works.length === 0) return err("there is no archive: no bucket is bound as ARCHIVE");
  const work = "day" in left ? works[left.place] : works.find(({ name }) => name === left.database);
  if (work === undefined) return err("there is no such database");
  const holder = crypto.randomUUID();
  // Also the archive works under it: it must not seal, export or drop what is half restored.
  if (!(await takeLease(work.db, holder, now, "restore"))) {
    return ok({ database: work.name, file: undefined, deleted: 0, waits: true, next: left });
  }
  try {
    const done = await doNext(work, left, now);
    if (!done.ok) return done;
    const { file, deleted = 0, next } = done.value;
    const isKnown = next === undefined || !("day" in next) || next.place < works.length;
    return ok({ database: work.name, file, deleted, waits: false, next: isKnown ? next : undefined });
  } finally {
    await endLease(work.db, holder);
  }
}

type Done = Pick<RestoreStep, "file" | "next"> & { readonly deleted?: number };

async function doNext(work: ArchiveWork, left: Restoration, now: number): Promise<Result<Done, string>> {
  if ("day" in left) {
    const { day, place, after } = left;
    const found = await restoreNextOfDay(work, day, after, now);
    if (found === undefined) return ok({ file: undefined, next: { day, place: place + 1 } });
    return found.ok ? ok({ file: found.value, next: { day, place, after: found.value.key } }) : found;
  }
  if ("again" in left) {
    const done = await exportAgainNext(work, left.again);
    if (!done.ok) return done;
    return ok({ file: undefined, deleted: done.value.deleted, next: done.value.mayBeMore ? left : undefined });
  }
  const found = await bringBackNext(work, left.slice, left.file, now + left.keepMs);
  if (!found.ok) return found;
  const { file, next } = found.value;
  return ok({ file, next: next === undefined ? undefined : { ...left, file: next } });
}
