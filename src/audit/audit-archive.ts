// Compares a day of the archive: files with the manifest, and what files and slices hold with the sums.
import * as z from "zod";
import { bind } from "../aggregate/sql/bind.ts";
import { holding, liveSlices, quarterOf, stateOf } from "../aggregate/sql/slices.ts";
import { SUMS_OF_RANGE } from "../aggregate/sql/sums.ts";
import { COMPARE_SURVIVORS, COUNT_SURVIVORS } from "../aggregate/sql/survivors.ts";
import { archivesOf } from "../archive/archive.ts";
import { basesOf } from "../archive/bases.ts";
import { rowsOfFile } from "../archive/export.ts";
import { nextFileOfDay } from "../archive/manifest.ts";
import { readBack } from "../archive/objects.ts";
import type { Row } from "../archive/rows.ts";
import { firstSegment } from "../archive/segments.ts";
import type { ArchiveWork } from "../archive/work.ts";
import { aggregationsOf } from "../catalog/meters.ts";
import { err, ok, type Result } from "../domain/result.ts";
import { fromLimbs } from "../domain/value.ts";
import { DAY_MS, floorTo, QUARTER_HOUR_MS, type TimeRange } from "../domain/window.ts";
import type { Env } from "../env.ts";

/** Where the next step begins. */
export const ArchiveCursor = z.strictObject({
  /** UTC, since 1970. */
  day: z.int().min(0).max(100_000),
  /** Of the database. */
  place: z.int().min(0),
  at: z.union([
    /** The files of the manifest, after one; `file` is -1 before a slice's first. */
    z.strictObject({ files: z.strictObject({ slice: z.int(), file: z.int() }) }),
    /** The slices that have their tables, from one on: its events on time, then the late ones, after one. */
    z.strictObject({
      live: z.strictObject({
        slice: z.int(),
        isLate: z.boolean(),
        after: z.strictObject({ series: z.int(), timestamp: z.int(), id: z.string() }).optional(),
      }),
    }),
    /** The sums and survivors of series, from one on. */
    z.strictObject({ sums: z.int().min(0) }),
  ]),
});

export type ArchiveCursor = z.output<typeof ArchiveCursor>;

export const firstOfDay = (day: number, place = 0): ArchiveCursor => ({
  ...{ day, place, at: { files: { slice: 0, file: -1 } } },
});

/**
 * What counts in a quarter hour, so that it can be added up over steps: events of meters that add up, the sum of their
 * values, a digest (64 bits) that tells series apart, and the survivors of windows that begin in it.
 */
export type Tally = { events: number; sum: bigint; digest: bigint; survivors: number };

/** By quarter hours (their starts, ms). */
export type Tallies = ReadonlyMap<number, Tally>;

export type ArchiveAuditStep = {
  readonly database: string;
  /** A file that was read back, and what is wrong with it. */
  readonly file: { readonly key: string; readonly fault: string | undefined } | undefined;
  /** What events hold, and what sums and survivors say. */
  readonly stored: Tallies;
  readonly kept: Tallies;
  /** Windows of which an event comes before the survivor that is kept. */
  readonly surpassed: number;
  /** Nothing after the last step. */
  readonly next: ArchiveCursor | undefined;
};

type Found = Omit<ArchiveAuditStep, "database" | "next"> & { readonly at: ArchiveCursor["at"] | undefined };

const NOTHING = { file: undefined, stored: new Map(), kept: new Map(), surpassed: 0 } as const;

/** Series whose sums are looked at in one step: a day has 96 of each at most. */
const SERIES_AT_ONCE = 500;

/**
 * One step of the audit of a UTC day, which changes nothing: a file is read back, as many rows of a slice are read, or
 * the sums of some series. Once all steps are done, stored and kept agree for each quarter hour of each database,
 * unless events of that day were stored meanwhile. Yields a message when there is no archive or no such database.
 */
export async function archiveAuditStep(env: Env, cursor: ArchiveCursor): Promise<Result<ArchiveAuditStep, string>> {
  const works = archivesOf(env);
  const work = works[cursor.place];
  if (work === undefined) return err("there is no archive, or no such database in it");
  const { day, place, at } = cursor;
  const found = await ("files" in at
    ? stepFiles(work, day, at.files)
    : "live" in at
      ? stepLive(work, day, at.live)
      : stepSums(work, day, at.sums));
  const { at: then, ...step } = found;
  if (then !== undefined) return ok({ ...step, database: work.name, next: { day, place, at: then } });
  const next = place + 1 < works.length ? firstOfDay(day, place + 1) : undefined;
  return ok({ ...step, database: work.name, next });
}

async function stepFiles(work: ArchiveWork, day: number, after: { slice: number; file: number }): Promise<Found> {
  const { db } = work;
  const file = await nextFileOfDay(db, day, after);
  if (file === undefined) return { ...NOTHING, at: { live: { slice: 0, isLate: false } } };
  const read = await readBack(work, file);
  const at = { files: { slice: file.slice, file: file.file } };
  if (!read.ok) return { ...NOTHING, file: { key: file.key, fault: read.error }, at };
  // The events of a slice that has its table are counted there.
  const isCounted = (await stateOf(db, file.slice)) === "archived";
  const counted = isCounted ? await tally(work, read.value) : NOTHING;
  return { ...NOTHING, ...counted, file: { key: file.key, fault: undefined }, at };
}

type LivePlace = Extract<ArchiveCursor["at"], { live: object }>["live"];

async function stepLive(work: ArchiveWork, day: number, { slice: from, isLate, after }: LivePlace): Promise<Found> {
  const { db } = work;
  const live = holding(await liveSlices(db), rangeOf(day));
  const slice = live.find((each) => each.slice >= from)?.slice;
  if (slice === undefined) return { ...NOTHING, at: { sums: 0 } };
  // Where the slice of before is gone, the next begins with what is on time.
  const place = slice === from ? { isLate, after } : { isLate: false, after: undefined };
  // All that is on time is of one day.
  const isOfDay = place.isLate || firstSegment(slice).day === day;
  const range = { segment: { isLate: place.isLate, day }, after: place.after };
  const rows = isOfDay ? await rowsOfFile(db, slice, range) : [];
  const last = rows.at(-1);
  if (last === undefined) {
    return { ...NOTHING, at: { live: place.isLate ? { slice: slice + 1, isLate: false } : { slice, isLate: true } } };
  }
  const { series, timestamp, id } = last;
  const at = { live: { slice, isLate: place.isLate, after: { series, timestamp, id } } };
  return { ...NOTHING, ...(await tally(work, rows)), at };
}

/** What rows hold, and whether each window's survivor is as they say. */
async function tally(
  { env, db }: ArchiveWork,
  rows: readonly Row[],
): Promise<Pick<ArchiveAuditStep, "stored" | "surpassed">> {
  const aggregations = await aggregationsOf(env.DB, [...new Set(rows.map(({ meter }) => meter))]);
  const stored = new Map<number, Tally>();
  for (const { series, meter, timestamp, value, cancelled } of rows) {
    if (cancelled !== null || (aggregations.get(meter) ?? "additive") !== "additive") continue;
    count(stored, floorTo(timestamp, QUARTER_HOUR_MS), series, 1, BigInt(value));
  }
  let surpassed = 0;
  for (const best of basesOf(rows, aggregations)) {
    const { results } = await db.prepare(COMPARE_SURVIVORS).bind(best).all<{
      start: number;
      same: number;
      surpassed: number;
    }>();
    for (const { start, same, surpassed: more } of results) {
      tallyAt(stored, start).survivors += same;
      surpassed += more;
    }
  }
  return { stored, surpassed };
}

async function stepSums({ db }: ArchiveWork, day: number, first: number): Promise<Found> {
  const { start, end } = rangeOf(day);
  const last = first + SERIES_AT_ONCE - 1;
  type SumRow = { series: number; quarter_hour: number; count: number; high: string; low: string };
  const [sums, survivors, more] = await db.batch([
    bind(db, SUMS_OF_RANGE, { first, last, from: quarterOf(start), to: quarterOf(end) }),
    bind(db, COUNT_SURVIVORS, { first, last, from: start, to: end }),
    db.prepare("SELECT 1 FROM series WHERE id > ?1 LIMIT 1").bind(last),
  ]);
  const kept = new Map<number, Tally>();
  for (const row of (sums?.results ?? []) as SumRow[]) {
    count(kept, row.quarter_hour * QUARTER_HOUR_MS, row.series, row.count, fromLimbs(row.high, row.low));
  }
  for (const { start: at, survivors: number } of (survivors?.results ?? []) as { start: number; survivors: number }[]) {
    tallyAt(kept, at).survivors += number;
  }
  return { ...NOTHING, kept, at: more?.results.length === 0 ? undefined : { sums: last + 1 } };
}

const rangeOf = (day: number): TimeRange => ({ start: day * DAY_MS, end: (day + 1) * DAY_MS });

/** The quarter hour that a window begins in. */
function tallyAt(tallies: Map<number, Tally>, time: number): Tally {
  const start = floorTo(time, QUARTER_HOUR_MS);
  const found = tallies.get(start) ?? { events: 0, sum: 0n, digest: 0n, survivors: 0 };
  tallies.set(start, found);
  return found;
}

function count(tallies: Map<number, Tally>, start: number, series: number, events: number, sum: bigint): void {
  const found = tallyAt(tallies, start);
  found.events += events;
  found.sum += sum;
  found.digest = BigInt.asUintN(64, found.digest + spread(2 * series) * BigInt(events) + spread(2 * series + 1) * sum);
}

/** An odd number of 64 bits for each number, all far from each other (SplitMix64's finalizer). */
function spread(number: number): bigint {
  let mixed = BigInt.asUintN(64, (BigInt(number) + 1n) * 0x9e3779b97f4a7c15n);
  mixed = BigInt.asUintN(64, (mixed ^ (mixed >> 30n)) * 0xbf58476d1ce4e5b9n);
  mixed = BigInt.asUintN(64, (mixed ^ (mixed >> 27n)) * 0x94d049bb133111ebn);
  return (mixed ^ (mixed >> 31n)) | 1n;
}
