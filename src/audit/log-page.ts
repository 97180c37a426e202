import { deadLetterPrefix } from "../aggregate/dead-letters.ts";
import { forDatabase, withJsonEach } from "../aggregate/json-each.ts";
import { restoreEvents } from "../aggregate/sql/events.ts";
import { reopenSlice, type SliceState } from "../aggregate/sql/slices.ts";
import { correctSums } from "../aggregate/sql/sums.ts";
import { FIND_CORRECTED, FORGET_BASES } from "../aggregate/sql/survivors.ts";
import { type EventsDatabase, eventsDatabase, nameOfDatabase } from "../catalog/databases.ts";
import { floorTo, MINUTE_MS } from "../domain/window.ts";
import type { Env } from "../env.ts";
import { countOf, GROUP_KINDS, type Group, type GroupKind, type Line, linesOf } from "../log/groups.ts";
import { IDS_PER_MS } from "../log/partitions.ts";
import { isLiveShard } from "../log/shard-name.ts";
import { eventLog } from "../log/shards.ts";
import { logWarning } from "../logger.ts";
import type { Budget } from "./budget.ts";
import { overSlices, readStates } from "./slices.ts";
import { COMPARE } from "./statements.ts";
import { rangeOfWindows, SURVIVORS, type Window } from "./summaries.ts";

/** Rows that the comparison of an entry is taken to read; about half of them were counted locally. */
const ROWS_PER_ENTRY = 8;

/** How many events were received in each minute (its start, ms). */
export type CountsByMinute = Readonly<Record<string, number>>;

type PageAudit = {
  readonly groups: number;
  /** Entries compared: events, cancellations, rejections. */
  readonly checked: number;
  /** Of these, those that their database had not; their groups are sent again. */
  readonly missing: number;
  /** Events that their database had with other values than were logged; they and their sums were repaired. */
  readonly altered: number;
  /** How many entries are events, by the minute in which they were received. */
  readonly accepted: CountsByMinute;
  /** The last group that was compared; nothing when there was none. */
  readonly last: number | undefined;
};

/** A line of a group, with its entries read. What cannot be read is no entries: it was parked. */
type GroupLine = Omit<Line, "entries"> & {
  readonly group: number;
  readonly kind: GroupKind;
  /** What the ids of its share's dead letters begin with, and its first entry's place in the share. */
  readonly prefix: string;
  readonly place: number;
  readonly entries: readonly unknown[];
};

/** An entry that its database does not hold as it was logged. */
type Difference = { readonly line: GroupLine; readonly place: number; readonly missing: boolean };

/**
 * Compares the next groups that a shard's databases have confirmed, after a group's id and received before a time (ms),
 * entry by entry with what the databases hold: as many as the budget allows, at least one. Has the log send again what
 * is missing, and corrects what is altered.
 */
export async function auditPage(
  env: Env,
  shard: string,
  after: number,
  before: number,
  budget: Budget,
): Promise<PageAudit> {
  const log = eventLog(env, shard);
  const groups = withinRows(await log.confirmedAfter(after, before), budget.rows);
  const byDatabase = Map.groupBy(
    groups.flatMap((group) => linesOfGroup(shard, group)),
    ({ database }) => database,
  );
  const differences = await Promise.all(
    [...byDatabase].map(([place, lines]) => {
      const isLive = isLiveShard(shard);
      const database = { name: nameOfDatabase(isLive, place), db: eventsDatabase(env, isLive, place) };
      return auditLines(database, lines, budget);
    }),
  );
  const [missing, altered] = partition(differences.flat());
  const incomplete = [...new Set(missing.map(({ line }) => line.group))];
  if (incomplete.length > 0) await log.sendAgain(incomplete);
  const found = { missing: missing.length, altered: altered.length };
  if (found.missing + found.altered > 0) {
    logWarning("a database differed from the log", { shard, ...found, groups: incomplete.length });
  }
  const checked = groups.reduce((sum, group) => sum + countOf(group.bodies), 0);
  return { groups: groups.length, checked, ...found, accepted: countByMinute(groups), last: groups.at(-1)?.id };
}

function withinRows(groups: readonly Group[], rows: number): readonly Group[] {
  let expected = 0;
  const end = groups.findIndex((group) => {
    expected += countOf(group.bodies) * ROWS_PER_ENTRY;
    return expected > rows;
  });
  return end === -1 ? groups : groups.slice(0, Math.max(1, end));
}

function countByMinute(groups: readonly Group[]): CountsByMinute {
  const counts: Record<string, number> = {};
  for (const group of groups) {
    if (group.kind !== "events") continue;
    // A group's id is the time when it was received.
    const minute = String(floorTo(Math.floor(group.id / IDS_PER_MS), MINUTE_MS));
    counts[minute] = (counts[minute] ?? 0) + countOf(group.bodies);
  }
  return counts;
}

const linesOfGroup = (shard: string, { id: group, kind, bodies }: Group): GroupLine[] =>
  bodies.flatMap((body) => {
    const { database } = body;
    let before = 0;
    return linesOf(body).map((line) => {
      const entries = readLine(line.entries);
      const place = before;
      before += Math.max(1, entries.length);
      return { ...line, group, kind, entries, place, prefix: deadLetterPrefix(shard, { group, database }) };
    });
  });

function readLine(text: string): unknown[] {
  try {
    const entries: unknown[] = JSON.parse(`[${text}]`);
    return entries.every((entry) => typeof entry === "object" && entry !== null) ? entries : [];
  } catch {
    return [];
  }
}

/**
 * Compares lines with what their database holds, and corrects what it holds differently. `states`: of the
 * lines' slices, looked up once the table of one turns out to be gone.
 */
async function auditLines(
  database: EventsDatabase,
  lines: readonly GroupLine[],
  budget: Budget,
  states?: ReadonlyMap<number, SliceState>,
): Promise<Difference[]> {
  const isArchived = ({ slice }: GroupLine): boolean => states?.get(slice) === "archived";
  const isThere = (line: GroupLine): boolean =>
    line.kind === "rejections" || states === undefined || (states.has(line.slice) && !isArchived(line));
  // A slice is archived once all of it is confirmed and can change no more. Any other without a table is lost.
  const lost = lines.filter((line) => !isThere(line) && !isArchived(line)).flatMap(allMissing);
  try {
    return [...lost, ...(await compare(database, lines.filter(isThere), budget))];
  } catch (error) {
    if (states !== undefined || !(error instanceof Error && error.message.includes("no such table: events_")))
      throw error;
    const slices = [...new Set(lines.map(({ slice }) => slice))];
    return auditLines(database, lines, budget, await readStates(database.db, slices, budget));
  }
}

async function compare(
  { name, db }: EventsDatabase,
  lines: readonly GroupLine[],
  budget: Budget,
): Promise<Difference[]> {
  const compared = GROUP_KINDS.flatMap((kind) => {
    const ofKind = lines.filter((line) => line.kind === kind);
    return [...Map.groupBy(ofKind, ({ slice }) => slice)].map(([slice, own]) => ({
      sql: COMPARE[kind](slice),
      text: JSON.stringify(own.map(({ prefix, place, entries }) => [prefix, place, entries])),
      lines: own,
    }));
  });
  const results = await withJsonEach(() =>
    budget.run<{ line: number; place: number; missing: number }>(
      db,
      compared.map(({ sql, text }) => db.prepare(forDatabase(sql)).bind(text)),
    ),
  );
  const found = results.flatMap(({ results: rows }, index) =>
    rows.flatMap(({ line: at, place, missing }): Difference[] => {
      const line = compared[index]?.lines[at];
      return line === undefined ? [] : [{ line, place, missing: missing === 1 }];
    }),
  );
  const ofEvents = found.filter(({ line }) => line.kind !== "rejections");
  for (const slice of new Set(ofEvents.map(({ line }) => line.slice))) {
    // Its usage comes first: what is wrong is corrected, and the slice is exported again.
    const changed = (await db.batch(reopenSlice(db, slice))).at(-1)?.meta.changes;
    if (changed) logWarning("a sealed slice differed from the log, and was opened again", { database: name, slice });
  }
  await restore(
    db,
    found.filter(({ missing }) => !missing),
    budget,
  );
  return found;
}

const allMissing = (line: GroupLine): Difference[] => line.entries.map((_, place) => ({ line, place, missing: true }));

/**
 * Puts events back to what was logged of them, in one transaction: their sums lose what was stored and gain what was
 * logged, and their windows are looked through again, since another event may stand for them now.
 */
async function restore(db: D1Database, altered: readonly Difference[], budget: Budget): Promise<void> {
  if (altered.length === 0) return;
  const bySlice = [...Map.groupBy(altered, ({ line }) => line.slice)].map(([slice, ofSlice]) => ({
    slice,
    entries: JSON.stringify(ofSlice.map(({ line, place }) => line.entries[place])),
  }));
  await withJsonEach(async () => {
    const found = await budget.run<Window>(
      db,
      bySlice.map(({ entries }) => db.prepare(forDatabase(FIND_CORRECTED)).bind(entries)),
    );
    const windows = found.flatMap(({ results }) => results);
    await overSlices(db, rangeOfWindows(windows), budget, (slices) => [
      ...bySlice.flatMap(({ slice, entries }) =>
        [correctSums(slice), FORGET_BASES, restoreEvents(slice)].map((sql) =>
          db.prepare(forDatabase(sql)).bind(entries),
        ),
      ),
      ...SURVIVORS.remake(db, windows, slices),
    ]);
  });
}

function partition(differences: readonly Difference[]): [missing: Difference[], altered: Difference[]] {
  return [differences.filter(({ missing }) => missing), differences.filter(({ missing }) => !missing)];
}
