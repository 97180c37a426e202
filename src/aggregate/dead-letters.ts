import { type Cursor, isBackwards } from "../domain/page.ts";
import { DAY_MS, sliceOf } from "../domain/window.ts";
import { readEvents } from "../log/codec.ts";
import type { ShareName } from "../log/entries.ts";
import type { GroupKind } from "../log/groups.ts";
import { receivedAt } from "../log/partitions.ts";
import { applyStatements } from "./apply.ts";
import { onJsonEach } from "./json-each.ts";
import { reportOverflow } from "./overflow.ts";
import { isEntryStored } from "./sql/events.ts";
import { openSlice, quarterOf, reopenSlice } from "./sql/slices.ts";
import { restoreVacated } from "./vacated.ts";

/** An entry of the log that D1 refused for its data, kept until it is redriven, and for good once it is discarded. */
export type DeadLetter = {
  /** Of the entry's group, shard, database and place in its share: sorts by receipt, and parking it again changes nothing. */
  readonly id: string;
  readonly kind: GroupKind;
  /** The slice that it belongs into. */
  readonly slice: number;
  /** As the log carried it: JSON, or what should have been. */
  readonly entry: string;
  readonly reason: string;
  /** When it was parked (ms). */
  readonly parked: number;
};

/** How long a redriven letter is kept (ms), so that a repeated call finds what it did. */
const REDRIVEN_MS = DAY_MS;

const COLUMNS = "id, kind, slice, entry, reason, parked";

/** What comes for an archived slice was stored before it was sealed. */
const PARK = `
  INSERT INTO dead_letters (${COLUMNS})
  SELECT ?1, ?2, ?3, ?4, ?5, ?6
  WHERE ?2 = 'rejections' OR NOT EXISTS (SELECT 1 FROM slices WHERE slice = ?3 AND state = 'archived')
  ON CONFLICT DO NOTHING`;

const FIND = `SELECT ${COLUMNS}, redriven, discarded FROM dead_letters WHERE id = ?1`;

/** What counts nowhere: it waits, or will never be stored. */
const IS_LEFT_OUT = "(redriven IS NULL OR discarded IS NOT NULL)";

// '~' sorts after every id.
const OF_SHARE = `
  SELECT ${COLUMNS}, redriven, discarded FROM dead_letters WHERE id >= ?1 AND id < ?1 || '~' AND ${IS_LEFT_OUT}`;

/** Breaks the transaction that it is in, as bad data does, when an entry from one share to another is to be left out: no id is JSON. */
const UNLESS_LEFT_OUT = `
  SELECT json(id) FROM dead_letters WHERE id >= ?1 AND id < ?2 || '~' AND ${IS_LEFT_OUT}`;

const PARKED = "SELECT id FROM dead_letters WHERE id >= ?1 AND id < ?1 || '~'";

const LIST_BEFORE = `
  SELECT ${COLUMNS} FROM dead_letters
  WHERE redriven IS NULL AND id < COALESCE(?1, '~')
  ORDER BY id DESC LIMIT ?2`;

const LIST_AFTER = `
  SELECT ${COLUMNS} FROM dead_letters
  WHERE redriven IS NULL AND id > ?1
  ORDER BY id LIMIT ?2`;

const OLDEST = "SELECT MIN(id) AS id FROM dead_letters WHERE redriven IS NULL";

const COUNT = "SELECT COUNT(*) AS count FROM dead_letters WHERE redriven IS NULL";

/** One statement: the slice that it finds cannot be sealed any more until the letter is stored. */
const TO_OLDEST_SLICE = `
  UPDATE dead_letters SET slice = (SELECT MIN(slice) FROM slices WHERE state = 'open')
  WHERE id = ?1 AND slice = ?2 AND redriven IS NULL`;

const REDRIVEN = "UPDATE dead_letters SET redriven = ?2 WHERE id = ?1";

/** Breaks the transaction that it is in likewise when a letter is discarded. */
const UNLESS_DISCARDED = "SELECT json(id) FROM dead_letters WHERE id = ?1 AND discarded IS NOT NULL";

const DISCARD = "UPDATE dead_letters SET redriven = ?2, discarded = ?2 WHERE id = ?1 AND redriven IS NULL";

const FORGET_REDRIVEN = "DELETE FROM dead_letters WHERE redriven < ?1 AND discarded IS NULL";

/** What the ids of a share's dead letters begin with; the entry's place in the share follows. */
export const deadLetterPrefix = (shard: string, { group, database }: ShareName): string =>
  `dl_${group}_${shard}_${database}_`;

const ID = /^dl_\d+_(live|test)-\d+_(\d+)_\d+$/;

/** The mode and the database of a dead letter, by its id; nothing when it is no dead letter's id. */
export function placeOfDeadLetter(id: string): { readonly livemode: boolean; readonly database: number } | undefined {
  const [, mode, database] = ID.exec(id) ?? [];
  return database === undefined ? undefined : { livemode: mode === "live", database: Number(database) };
}

/** The ids of a share's dead letters, also of those that were redriven. */
export async function parkedOf(db: D1Database, shard: string, share: ShareName): Promise<ReadonlySet<string>> {
  const { results } = await db.prepare(PARKED).bind(deadLetterPrefix(shard, share)).all<{ id: string }>();
  return new Set(results.map(({ id }) => id));
}

/**
 * The statement that goes before shares are stored in a transaction. It breaks it when one of them has entries that wait
 * as dead letters, or were discarded: the share is taken apart then, and those are not tried.
 */
export function unlessLeftOut(
  db: D1Database,
  shares: readonly (ShareName & { readonly shard: string })[],
): D1PreparedStatement {
  const prefixes = shares.map((share) => deadLetterPrefix(share.shard, share)).sort();
  return db.prepare(UNLESS_LEFT_OUT).bind(prefixes[0] ?? "", prefixes.at(-1) ?? "");
}

/** The dead letter of an event, by its share and its own id, also a discarded one; nothing when it is not parked. */
export async function deadLetterOf(
  db: D1Database,
  shard: string,
  share: ShareName,
  eventId: string,
): Promise<KnownLetter | undefined> {
  const { results } = await db.prepare(OF_SHARE).bind(deadLetterPrefix(shard, share)).all<KnownLetter>();
  return results.find(({ entry }) => idOfEntry(entry) === eventId);
}

/** The statement that keeps an entry; once, however often it is parked. */
export const parkStatement = (
  db: D1Database,
  { id, kind, slice, entry, reason, parked }: DeadLetter,
): D1PreparedStatement => db.prepare(PARK).bind(id, kind, slice, entry, reason, parked);

/** The dead letters of a database next to a cursor, in the direction of paging. */
export async function listDeadLetters(
  db: D1Database,
  cursor: Cursor | undefined,
  limit: number,
): Promise<DeadLetter[]> {
  const { results } = await db
    .prepare(isBackwards(cursor) ? LIST_AFTER : LIST_BEFORE)
    .bind(cursor?.id ?? null, limit)
    .all<DeadLetter>();
  return results;
}

/** How many wait in a database. */
export const countDeadLetters = async (db: D1Database): Promise<number> =>
  (await db.prepare(COUNT).first<number>("count")) ?? 0;

/** When the first entry was received (ms) that waits in a database. */
export async function oldestDeadLetter(db: D1Database): Promise<number | undefined> {
  const id = await db.prepare(OLDEST).first<string>("id");
  return id === null ? undefined : receivedAt(Number(id.split("_")[1]));
}

/** Of a letter also when it ceased to wait (ms); null while it waits, and `discarded` when it was redriven. */
export type KnownLetter = DeadLetter & { readonly redriven: number | null; readonly discarded: number | null };

/** A dead letter, also one that does not wait any more. */
export const findDeadLetter = async (db: D1Database, id: string): Promise<KnownLetter | undefined> =>
  (await db.prepare(FIND).bind(id).first<KnownLetter>()) ?? undefined;

/**
 * Stores a dead letter's entry after all and marks it, in one transaction; once, however often it is called. Throws
 * when D1 refuses it still; then the letter waits on. Throws likewise for one that was discarded meanwhile. `now` in ms.
 */
export async function redrive(db: D1Database, letter: KnownLetter, now: number): Promise<void> {
  const { id, kind, entry } = letter;
  const quarter = quarterOf(timestampOf(entry) ?? now);
  const entries = { kind, from: quarter, to: quarter, entries: entry };
  if (letter.redriven === null) {
    const home = await homeOf(db, letter, now);
    const statements = home && [
      ...(home.isSealed ? reopenSlice(db, home.slice) : []),
      // For one entry it does not matter which is faster, and every database has this one.
      ...applyStatements(db, [{ ...entries, slice: home.slice }], now, onJsonEach),
    ];
    await db.batch([db.prepare(UNLESS_DISCARDED).bind(id), ...(statements ?? []), db.prepare(REDRIVEN).bind(id, now)]);
  }
  await restoreVacated(db, [entries]);
  await reportOverflow(db, [entries], now);
}

/**
 * Gives a waiting letter up: its entry is never stored, also when its log sends it again, and holds nothing up any more.
 * What became of it, now or before. `now` in ms.
 */
export async function discard(db: D1Database, letter: DeadLetter, now: number): Promise<"discarded" | "redriven"> {
  await db.prepare(DISCARD).bind(letter.id, now).run();
  return (await findDeadLetter(db, letter.id))?.discarded ? "discarded" : "redriven";
}

type Home = { readonly slice: number; readonly isSealed: boolean };

/**
 * Where a letter's entry is to be stored; nothing when it is. That is its own slice as long as it has its table, since a
 * resent group goes there too. One that is sealed holds all that was confirmed for it: only a fault can change it, and
 * then it is exported again. Without its table, an event goes into the oldest slice that is open, and what a
 * cancellation cancels was cancelled before its slice was sealed.
 */
async function homeOf(db: D1Database, letter: DeadLetter, now: number): Promise<Home | undefined> {
  const { id, kind, slice } = letter;
  if (kind === "rejections") return { slice, isSealed: false };
  const state = await openSlice(db, slice);
  if (state === "open") return { slice, isSealed: false };
  if (state !== "archived") return (await isStored(db, letter)) ? undefined : { slice, isSealed: true };
  if (kind === "cancellations") return undefined;
  await openSlice(db, sliceOf(now));
  // Noted first, so that two calls at once store it into the same slice.
  await db.prepare(TO_OLDEST_SLICE).bind(id, slice).run();
  return { slice: (await findDeadLetter(db, id))?.slice ?? slice, isSealed: false };
}

/** Whether what an entry says is in its slice, which has its table. */
const isStored = async (db: D1Database, { kind, slice, entry }: DeadLetter): Promise<boolean> =>
  (await db
    .prepare(onJsonEach(isEntryStored(slice, kind === "cancellations")))
    .bind(`[${entry}]`)
    .first()) !== null;

/** Deletes letters that were redriven so long ago that nobody asks for them again. `now` in ms. */
export const forgetRedriven = async (db: D1Database, now: number): Promise<void> =>
  void (await db
    .prepare(FORGET_REDRIVEN)
    .bind(now - REDRIVEN_MS)
    .run());

const idOfEntry = (entry: string): string | undefined => eventOf(entry)?.id;

const timestampOf = (entry: string): number | undefined => {
  const timestamp = eventOf(entry)?.timestamp;
  return Number.isSafeInteger(timestamp) ? timestamp : undefined;
};

/** The event that an entry says; nothing for what is none. */
function eventOf(entry: string) {
  try {
    return readEvents(entry)[0];
  } catch {
    return undefined;
  }
}
