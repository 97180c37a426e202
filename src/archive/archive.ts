// What moves slices from the databases into the archive, a step at a time.
import { namesOfKeys } from "../catalog/api-keys.ts";
import { type EventsDatabase, eventsDatabases } from "../catalog/databases.ts";
import { aggregationsOf } from "../catalog/meters.ts";
import type { Env } from "../env.ts";
import { keepBases } from "./bases.ts";
import { checkNext } from "./check.ts";
import { dropNext, isDue } from "./drop.ts";
import { exportNext, nextRows } from "./export.ts";
import { endLease, takeLease } from "./lease.ts";
import type { ArchiveFile } from "./manifest.ts";
import { isOver, trySeal } from "./seal.ts";
import { awaitsLetter, moveOn, noteSkipped, type SliceAtWork, slicesAtWork } from "./states.ts";
import type { ArchiveWork, Work } from "./work.ts";

/** What one run may do: steps (each about 50,000 events), until a time (ms). */
export type RunLimit = { readonly steps: number; readonly until: number };

/** An events database, its mode, and its place among those of its mode. */
export type ArchivedDatabase = {
  readonly livemode: boolean;
  readonly place: number;
  readonly database: EventsDatabase;
};

/** The events databases of both modes. */
export const archivedDatabases = (env: Env): ArchivedDatabase[] =>
  [true, false].flatMap((livemode) =>
    eventsDatabases(env, livemode).map((database, place) => ({ livemode, place, database })),
  );

/** What is needed to work on a database's archive. */
const workOn = (env: Env, { livemode, place, database: { name, db } }: ArchivedDatabase): Work => ({
  ...{ env, name, db, livemode, place, pause },
  bucket: livemode ? env.ARCHIVE : undefined,
  keys: once(() => namesOfKeys(env.DB)),
});

/** The same of the databases that have an archive, in their order: none without a bucket. */
export const archivesOf = (env: Env): ArchiveWork[] =>
  archivedDatabases(env).flatMap((known) => {
    const { bucket, ...work } = workOn(env, known);
    return bucket === undefined ? [] : [{ ...work, bucket }];
  });

/**
 * Does what is to be done for a database's archive, the oldest slices first: seals, exports, checks and drops, within
 * a limit. Each step leaves a consistent state, so the next run continues where this one ends. Whether more is to be
 * done now. Without a bucket nothing of live mode is moved.
 */
export async function archiveDatabase(env: Env, known: ArchivedDatabase, { steps, until }: RunLimit): Promise<boolean> {
  const work = workOn(env, known);
  const { db } = work;
  if (work.livemode && work.bucket === undefined) return false;
  const holder = crypto.randomUUID();
  let holds = false;
  try {
    for (let step = 0; ; step++) {
      const task = await nextTask(work, Date.now());
      if (task === undefined) return false;
      if (step >= steps || Date.now() >= until) return true;
      holds = await takeLease(db, holder, Date.now());
      if (!holds) return false;
      await task();
    }
  } finally {
    if (holds) await endLease(db, holder);
  }
}

/** Lets others have their turns: all of an isolate share one thread. */
const pause = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 0));

type Task = () => Promise<unknown>;

/** The next thing to do for a database `now` (ms); nothing when there is none, which one query says nearly always. */
async function nextTask(work: Work, now: number): Promise<Task | undefined> {
  const { slices, bytes } = await slicesAtWork(work.db);
  const sound = slices.filter(({ failed }) => failed === null);
  const isKept = ({ kept_until }: SliceAtWork): boolean => kept_until !== null && now < kept_until;
  const checked = sound.filter((each) => each.state === "checked" && !isKept(each));
  for (const due of checked.filter(({ slice }) => isDue(work, slice, bytes, now))) {
    if (!(await awaitsLetter(work.db, due.slice))) return () => dropNext(work, due, now);
  }
  const moved = sound.find(({ state }) => state === "sealed" || state === "exported");
  if (moved !== undefined) return taskFor(work, moved, now);
  for (const { slice } of sound.filter(({ slice, state }) => state === "open" && isOver(slice, now))) {
    const hindrance = await trySeal(work, slice);
    if (hindrance === undefined) return nextTask(work, now);
    // What a shard has not confirmed for one slice it may have for all that follow.
    if (hindrance.reason !== "dead_letters") return undefined;
  }
  return undefined;
}

function taskFor(work: Work, at: SliceAtWork, now: number): Task {
  const { bucket } = work;
  const { slice, state } = at;
  if (bucket === undefined) return () => skipNext(work, at, now);
  return state === "sealed"
    ? () => exportNext({ ...work, bucket }, slice, now)
    : () => checkNext({ ...work, bucket }, slice, now);
}

/** Where the walk through a slice of test mode is: behind a row of a segment. */
type Place = Pick<ArchiveFile, "segment" | "last">;

/** Test mode: keeps what its windows may fall back to, of as many rows as a file has; when all are, the slice may be dropped. */
async function skipNext({ env, db }: Work, { slice, skipped_to: to }: SliceAtWork, now: number): Promise<void> {
  const before: Place | undefined = to === null ? undefined : JSON.parse(to);
  const found = await nextRows(db, slice, before);
  const last = found?.rows.at(-1);
  if (found === undefined || last === undefined) {
    await moveOn(db, slice, ["sealed", "checked"], now).run();
    return;
  }
  const meters = [...new Set(found.rows.map(({ meter }) => meter))];
  await keepBases(db, found.rows, await aggregationsOf(env.DB, meters));
  const { series, timestamp, id } = last;
  const place: Place = { segment: found.range.segment, last: { series, timestamp, id } };
  await noteSkipped(db, slice, JSON.stringify(place));
}

/** A value that is made when it is first needed. */
function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined;
  return () => {
    made ??= make();
    return made;
  };
}
