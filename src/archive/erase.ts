// Erases a customer: an alias takes over what was theirs, without identifiers and payloads. In steps; each may be repeated.
import * as z from "zod";
import { bind } from "../aggregate/sql/bind.ts";
import {
  blankPage,
  FIND_DUE_ERASURES,
  FIND_ERASURE,
  FIND_UNFINISHED,
  FINISH_ERASURE,
  FORGET_CUSTOMER,
  insertErasure,
  lastOfPage,
  RENAME_SERIES,
  SERIES_OF_ALL_METERS,
  seriesWithEvents,
  UNLESS_OTHER_SLICES,
} from "../aggregate/sql/erasures.ts";
import { liveSlices } from "../aggregate/sql/slices.ts";
import { namesOfKeys } from "../catalog/api-keys.ts";
import { newAlias } from "../domain/alias.ts";
import { err, ok, type Result } from "../domain/result.ts";
import { DAY_MS, HOUR_MS, sliceOf } from "../domain/window.ts";
import type { Env } from "../env.ts";
import { logWarning } from "../logger.ts";
import { type ArchivedDatabase, archivedDatabases } from "./archive.ts";
import { dropUnfinished } from "./bring-back.ts";
import { eraseNextFile, eraseStrays } from "./erase-files.ts";
import { type Erased, eraseRecords } from "./erase-records.ts";
import { endLease, takeLease } from "./lease.ts";
import { shardsOfMode, unconfirmedBy } from "./seal.ts";
import type { Work } from "./work.ts";

/**
 * How long what was received before an erasure may come again (ms): the queue keeps messages for 4 days, the logs
 * theirs for 36 hours.
 */
const REMEMBERED_MS = 5 * DAY_MS;

/** After how long an erasure that is not finished is warned of (ms). */
const UNFINISHED_MS = HOUR_MS;

/** What a step does at most: pages of events, or files. */
const STEP_UNITS = 8;

/** Series whose events are blanked in one transaction, and events of each. */
const SERIES_AT_ONCE = 40;
const EVENTS_AT_ONCE = 2_000;

const Position = z.discriminatedUnion("stage", [
  z.strictObject({ stage: z.literal("records") }),
  z.strictObject({
    stage: z.literal("slices"),
    slice: z.int(),
    ...{ series: z.int(), timestamp: z.int(), id: z.string() },
  }),
  z.strictObject({ stage: z.literal("files"), slice: z.int(), file: z.int() }),
]);

/** Where an erasure stands in a database: at its series and records, its live slices, its files. */
type Position = z.output<typeof Position>;

const Cursor = z.strictObject({ alias: z.string(), place: z.int().min(0), at: Position });

/** Where the next step of an erasure begins: in a database, by its place among those of the mode. */
type Cursor = z.output<typeof Cursor>;

/** What a step has erased. */
export type ErasedCounts = {
  series: number;
  /** Events in live slices. */
  events: number;
  /** Files of the archive that were written again. */
  files: number;
  deadLetters: number;
  errorReports: number;
};

export type ErasureStep = {
  readonly alias: string;
  readonly counts: Readonly<ErasedCounts>;
  /** Nothing after the last step. */
  readonly next: string | undefined;
};

/** Why there was no step: the archive is at work on the database, the cursor is another erasure's, or it is an alias. */
export type NoErasureStep = "archive_at_work" | "invalid_cursor" | "is_alias";

type Erasure = Work & Erased & { readonly series: readonly number[]; readonly counts: ErasedCounts };

type Asked = { readonly livemode: boolean; readonly customer: string; readonly cursor: string | undefined };

/**
 * One step of a customer's erasure from the databases of a mode. Without a cursor it begins, or begins again an erasure
 * of the customer that was not finished: then what is done is passed by. The archive of those databases waits until the last
 * step.
 */
export async function eraseStep(
  env: Env,
  { livemode, customer, cursor }: Asked,
  now: number,
): Promise<Result<ErasureStep, NoErasureStep>> {
  const databases = archivedDatabases(env).filter((known) => known.livemode === livemode);
  const begin = async (): Promise<Cursor> => ({
    ...{ alias: (await unfinishedOf(databases, customer)) ?? newAlias(), place: 0 },
    at: { stage: "records" },
  });
  const from = cursor === undefined ? await begin() : await readCursor(databases, customer, cursor);
  if (from === undefined) return err("invalid_cursor");
  const { alias, place, at } = from;
  const known = databases[place];
  if (known === undefined) return err("invalid_cursor");
  if (await isAlias(known, customer)) return err("is_alias");
  const counts: ErasedCounts = { series: 0, events: 0, files: 0, deadLetters: 0, errorReports: 0 };
  const { db } = known.database;
  const holder = crypto.randomUUID();
  if (!(await takeLease(db, holder, Date.now(), "erasure"))) return err("archive_at_work");
  let next: Position | undefined;
  try {
    const renew = () => takeLease(db, holder, Date.now(), "erasure");
    next = await eraseFrom(await erasureOf(env, known, customer, alias, counts), at, renew);
  } finally {
    await endLease(db, holder);
  }
  if (next !== undefined) return ok({ alias, counts, next: writeCursor({ alias, place, at: next }) });
  if (place + 1 < databases.length) {
    return ok({ alias, counts, next: writeCursor({ alias, place: place + 1, at: { stage: "records" } }) });
  }
  // Only now, so that a repetition from the beginning finds it unfinished.
  for (const { database } of databases) await bind(database.db, FINISH_ERASURE, { alias, now }).run();
  return ok({ alias, counts, next: undefined });
}

/** The alias of a customer's erasure that is under way in some database. */
async function unfinishedOf(databases: readonly ArchivedDatabase[], customer: string): Promise<string | undefined> {
  for (const { database } of databases) {
    const alias = await bind(database.db, FIND_UNFINISHED, { customer }).first<string>("alias");
    if (alias !== null) return alias;
  }
  return undefined;
}

type ErasureRow = { alias: string; customer: string | null; erased_at: number; finished: number | null };

const findErasure = (db: D1Database, alias: string): Promise<ErasureRow | null> =>
  bind(db, FIND_ERASURE, { alias }).first<ErasureRow>();

/** What an alias has is erased already, and its entries are mapped to it. */
const isAlias = async ({ database }: ArchivedDatabase, customer: string): Promise<boolean> =>
  (await findErasure(database.db, customer)) !== null;

/** A database's part of an erasure, which begins by it unless it has begun. */
async function erasureOf(
  env: Env,
  { livemode, place, database: { name, db } }: ArchivedDatabase,
  customer: string,
  alias: string,
  counts: ErasedCounts,
): Promise<Erasure> {
  if ((await findErasure(db, alias)) === null) counts.series = await rename(db, customer, alias);
  const erasure = await findErasure(db, alias);
  const series = await bind(db, SERIES_OF_ALL_METERS, { customer: alias }).all<{ id: number }>();
  return {
    ...{ env, livemode, place, name, db, bucket: livemode ? env.ARCHIVE : undefined },
    keys: () => namesOfKeys(env.DB),
    pause: () => new Promise((resolve) => setTimeout(resolve, 0)),
    ...{ customer, alias, erasedAt: erasure?.erased_at ?? 0, counts },
    series: series.results.map(({ id }) => id).toSorted((a, b) => a - b),
  };
}

/**
 * Gives an alias the series of a customer, and writes down until when what is received belongs to it; how many series.
 * Tables that are being brought back begin anew, for the alias: no erasure looks at them.
 */
async function rename(db: D1Database, customer: string, alias: string): Promise<number> {
  const now = Date.now();
  const first = sliceOf(now);
  const slices = (await liveSlices(db)).map(({ slice }) => slice).filter((slice) => slice >= first);
  const drops = await dropUnfinished(db);
  const [, , renamed] = await db.batch([
    bind(db, UNLESS_OTHER_SLICES, { first, slices: JSON.stringify(slices) }),
    bind(db, insertErasure(slices), { alias, customer, now }),
    bind(db, RENAME_SERIES, { alias, customer }),
    ...drops,
  ]);
  return renamed?.meta.changes ?? 0;
}

/**
 * Does what a step may do of a database's part, while it has the lease; where the next one begins, or nothing when it is
 * done.
 */
async function eraseFrom(
  erasure: Erasure,
  from: Position,
  renew: () => Promise<boolean>,
): Promise<Position | undefined> {
  let at: Position | undefined = from;
  for (let unit = 0; unit < STEP_UNITS && at !== undefined && (await renew()); unit++)
    at = await eraseUnit(erasure, at);
  return at;
}

async function eraseUnit(erasure: Erasure, at: Position): Promise<Position | undefined> {
  const { db, counts } = erasure;
  if (at.stage === "records") {
    Object.assign(counts, await eraseRecords(db, erasure));
    return { stage: "slices", slice: 0, ...BEGINNING };
  }
  if (at.stage === "slices") return blankEvents(erasure, at);
  const file = await eraseNextFile(erasure, erasure, at);
  if (file === undefined) return (await eraseStrays(erasure, Date.now())) ? at : undefined;
  counts.files += Number(file.isWritten);
  return { stage: "files", slice: file.place.slice, file: file.place.file };
}

/** Before every event of a slice. */
const BEGINNING = { series: 0, timestamp: 0, id: "" } as const;

/** Blanks the next events of a live slice: of some series a page each. */
async function blankEvents(
  { db, series, counts }: Erasure,
  at: Extract<Position, { stage: "slices" }>,
): Promise<Position> {
  const slice = (await liveSlices(db)).map((live) => live.slice).find((live) => live >= at.slice);
  if (slice === undefined) return { stage: "files", slice: 0, file: -1 };
  const from = slice === at.slice ? at : BEGINNING;
  const ids = JSON.stringify(series.filter((id) => id >= from.series));
  const own = await db.prepare(seriesWithEvents(slice)).bind(ids).all<{ series: number }>();
  const some = own.results.map((found) => found.series).slice(0, SERIES_AT_ONCE);
  const last = some.at(-1);
  if (last === undefined) return { stage: "slices", slice: slice + 1, ...BEGINNING };
  const results = await db.batch<{ timestamp: number; id: string }>(
    some.flatMap((id) => {
      const after = id === from.series ? from : BEGINNING;
      const values = { series: id, timestamp: after.timestamp, id: after.id, most: EVENTS_AT_ONCE };
      return [bind(db, lastOfPage(slice), values), bind(db, blankPage(slice), values)];
    }),
  );
  some.forEach((_, i) => {
    counts.events += results[2 * i + 1]?.meta.changes ?? 0;
  });
  // The next step reads the first series that has more from the end of this page, and the later series from their start.
  const place = some.findIndex((_, i) => results[2 * i]?.results.length === 1);
  const end = results[2 * place]?.results[0];
  const next = some[place];
  if (end === undefined || next === undefined) return { stage: "slices", slice, ...BEGINNING, series: last + 1 };
  return { stage: "slices", slice, series: next, timestamp: end.timestamp, id: end.id };
}

const writeCursor = (cursor: Cursor): string => Buffer.from(JSON.stringify(cursor)).toString("base64url");

/** The cursor that a text is; nothing when it is none of an erasure of the customer. */
async function readCursor(
  [first]: readonly ArchivedDatabase[],
  customer: string,
  text: string,
): Promise<Cursor | undefined> {
  const { data } = Cursor.safeParse(parse(Buffer.from(text, "base64url").toString()));
  if (data === undefined || first === undefined) return undefined;
  return (await findErasure(first.database.db, data.alias))?.customer === customer ? data : undefined;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/**
 * Forgets who was erased from a database, once nothing of before can come again: five days later, when every shard says
 * that the database has what it had of then. What came meanwhile of dead letters and reports is erased first. Warns of
 * an erasure that is not finished. `now` in ms.
 */
export async function forgetErased(env: Env, known: ArchivedDatabase, now: number): Promise<void> {
  const { livemode, place, database } = known;
  const { db, name } = database;
  const before = { begun: now - UNFINISHED_MS, erased: now - REMEMBERED_MS };
  const { results } = await bind(db, FIND_DUE_ERASURES, before).all<ErasureRow>();
  for (const { alias, customer, erased_at: erasedAt, finished } of results) {
    if (finished === null) logWarning("an erasure was begun and not finished", { database: name, alias });
    else if (customer !== null && unconfirmedBy(await shardsOfMode(env, livemode), place, erasedAt) === undefined) {
      await eraseRecords(db, { customer, alias, erasedAt });
      await bind(db, FORGET_CUSTOMER, { alias }).run();
    }
  }
}
