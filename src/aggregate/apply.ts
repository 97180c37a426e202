import { GROUP_KINDS, type GroupKind } from "../log/groups.ts";
import { type Entries, keepsSurvivors, packByBytes, STATEMENT_BYTES } from "./entries.ts";
import { withReports } from "./error-report.ts";
import { forDatabase, withJsonEach } from "./json-each.ts";
import { reportOverflow } from "./overflow.ts";
import { INSERT_SERIES } from "./sql/entries.ts";
import { INSERT_REJECTIONS } from "./sql/error-reports.ts";
import { cancelEvents, insertEvents } from "./sql/events.ts";
import { bringSlicesForward, isAboutShape, openSlice, sliceWithoutTable, widen } from "./sql/slices.ts";
import { addToSums, subtractFromSums } from "./sql/sums.ts";
import { FORGET_BASES, keepSurvivors, VACATE_CANCELLED } from "./sql/survivors.ts";
import { restoreVacated } from "./vacated.ts";

/** A statement on entries; `survivors` only where an entry's meter keeps survivors, since most have none. */
type Step = { readonly sql: (slice: number) => string; readonly survivors?: true };

/** What is done with the entries of each kind, in this order. */
const STEPS: Record<GroupKind, readonly Step[]> = {
  events: [
    { sql: () => INSERT_SERIES },
    { sql: addToSums },
    { sql: keepSurvivors, survivors: true },
    { sql: insertEvents },
  ],
  cancellations: [
    { sql: () => INSERT_SERIES },
    { sql: subtractFromSums },
    { sql: cancelEvents },
    { sql: () => VACATE_CANCELLED, survivors: true },
    { sql: () => FORGET_BASES, survivors: true },
  ],
  rejections: [{ sql: () => INSERT_REJECTIONS }],
};

/**
 * Stores entries in a database and brings its sums up to date, in one transaction. What is already stored changes
 * nothing, so anything may come again, alone, twice at once or beside others, and a cancellation before its event;
 * but nothing twice in one call. Entries of a slice whose table is gone are repetitions: they were stored. `now` (ms)
 * decides which error report takes rejections that are new. `unless` comes first in the transaction, and may break it.
 * Gives the database's size in bytes. Throws when D1 did not say that the transaction succeeded; it may have.
 */
export async function applyEntries(
  db: D1Database,
  entries: readonly Entries[],
  now: number,
  unless: readonly D1PreparedStatement[] = [],
): Promise<number> {
  const bytes = await withJsonEach(() => applyOnce(db, entries, now, unless));
  await restoreVacated(db, entries);
  await reportOverflow(db, entries, now);
  return bytes;
}

/** Slices that have no table get one, those of an older shape are brought forward; each once. */
async function applyOnce(
  db: D1Database,
  entries: readonly Entries[],
  now: number,
  unless: readonly D1PreparedStatement[],
): Promise<number> {
  const opened = new Set<number>();
  let areForward = false;
  let rest = entries;
  for (;;) {
    const statements = applyStatements(db, rest, now);
    if (statements.length === 0) return 0;
    try {
      const results = await db.batch([...unless, ...statements]);
      return results.at(-1)?.meta.size_after ?? 0;
    } catch (error) {
      const slice = sliceWithoutTable(error);
      if (slice !== undefined && !opened.has(slice)) {
        opened.add(slice);
        if ((await openSlice(db, slice)) === "archived") rest = rest.filter((each) => each.slice !== slice);
      } else if (isAboutShape(error) && !areForward) {
        areForward = true;
        await bringSlicesForward(db);
      } else throw error;
    }
  }
}

/** The statements that store entries, each once; for one transaction, in this order. `written`: as the database can run them. */
export function applyStatements(
  db: D1Database,
  entries: readonly Entries[],
  now: number,
  written: (sql: string) => string = forDatabase,
): D1PreparedStatement[] {
  return GROUP_KINDS.flatMap((kind) => {
    const ofKind = entries.filter((each) => each.kind === kind);
    return [...Map.groupBy(ofKind, ({ slice }) => slice)].flatMap(([slice, ofSlice]) => {
      const texts = ofSlice.map((each) => (kind === "rejections" ? withReports(each.entries, now) : each.entries));
      const stored = packByBytes(texts, STATEMENT_BYTES).flatMap((text) =>
        stepsFor(kind, text).map(({ sql }) => db.prepare(written(sql(slice))).bind(`[${text}]`)),
      );
      if (kind === "rejections") return stored;
      const [from, to] = [Math.min(...ofSlice.map((each) => each.from)), Math.max(...ofSlice.map((each) => each.to))];
      return [...stored, widen(db, slice, from, to)];
    });
  });
}

function stepsFor(kind: GroupKind, text: string): readonly Step[] {
  return keepsSurvivors(text) ? STEPS[kind] : STEPS[kind].filter(({ survivors }) => !survivors);
}

/**
 * What SQLite says of data that it will never take. Everything else is a failure of the moment, or of
 * the deployment (a missing table), and parks nothing.
 */
const ABOUT_DATA = /constraint failed|malformed JSON|integer overflow|string or blob too big|datatype mismatch/i;

/** Whether D1 refused what it was given, rather than failed: trying the same again would end the same. */
export const isAboutData = (error: unknown): error is Error => error instanceof Error && ABOUT_DATA.test(error.message);
