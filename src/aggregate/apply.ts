import { KEEPS_SURVIVORS } from "../domain/meter.ts";
import { GROUP_KINDS, type Group, type GroupKind, packByBytes } from "../log/groups.ts";
import { withReports } from "./error-report.ts";
import { forDatabase, withJsonEach } from "./json-each.ts";
import { INSERT_REJECTIONS } from "./sql/error-reports.ts";
import {
  ADD_TO_HOURLY_SUMMARIES,
  CANCEL_EVENTS,
  DELETE_CANCELLED_SURVIVORS,
  INSERT_EVENTS,
  KEEP_WINDOW_SURVIVORS,
  RESTORE_WINDOW_SURVIVORS,
  SUBTRACT_FROM_HOURLY_SUMMARIES,
} from "./sql/statements.ts";

/** The most text one statement takes (bytes). D1 binds up to 2 MB. */
const STATEMENT_BYTES = 1_500_000;

/**
 * What is done with the entries of each kind of group, in this order; statements in `survivors`
 * only where an entry's meter keeps survivors, since most have none.
 */
const STATEMENTS: Record<GroupKind, readonly { readonly sql: string; readonly survivors?: true }[]> = {
  events: [{ sql: ADD_TO_HOURLY_SUMMARIES }, { sql: KEEP_WINDOW_SURVIVORS, survivors: true }, { sql: INSERT_EVENTS }],
  cancellations: [
    { sql: SUBTRACT_FROM_HOURLY_SUMMARIES },
    { sql: CANCEL_EVENTS },
    { sql: DELETE_CANCELLED_SURVIVORS, survivors: true },
    { sql: RESTORE_WINDOW_SURVIVORS, survivors: true },
  ],
  rejections: [{ sql: INSERT_REJECTIONS }],
};

/**
 * Stores the entries of these groups and brings the summaries up to date, in one transaction. What
 * is already stored changes nothing, so any group may come again, alone, twice at once or beside
 * others, and a cancellation before its event. `now` (ms) decides which error report takes rejections
 * that are new. Throws when D1 did not say that the transaction succeeded; it may have.
 */
export async function applyGroups(db: D1Database, groups: readonly Group[], now: number): Promise<void> {
  await withJsonEach(async () => {
    const statements = applyStatements(db, withoutRepeats(groups), now);
    if (statements.length > 0) await db.batch(statements);
  });
}

/** The statements that store entries, each once; for one transaction, in this order. `written`: as the database can run them. */
export function applyStatements(
  db: D1Database,
  groups: readonly Pick<Group, "kind" | "entries">[],
  now: number,
  written: (sql: string) => string = forDatabase,
): D1PreparedStatement[] {
  return GROUP_KINDS.flatMap((kind) => {
    const ofKind = groups.filter((group) => group.kind === kind).map((group) => group.entries);
    const entries = kind === "rejections" ? ofKind.map((group) => withReports(group, now)) : ofKind;
    return packByBytes(entries, STATEMENT_BYTES).flatMap((packed) =>
      statementsFor(db, kind, `[${packed.entries}]`, written),
    );
  });
}

function statementsFor(
  db: D1Database,
  kind: GroupKind,
  entries: string,
  written: (sql: string) => string,
): D1PreparedStatement[] {
  const keepsSurvivors = KEEPS_SURVIVORS.some((aggregation) => entries.includes(aggregation));
  return STATEMENTS[kind]
    .filter(({ survivors }) => keepsSurvivors || !survivors)
    .map(({ sql }) => db.prepare(written(sql)).bind(entries));
}

/** A group twice in one statement would be counted twice: neither copy is stored yet when both are added. */
const withoutRepeats = (groups: readonly Group[]): Group[] => [
  ...new Map(groups.map((group) => [`${group.shard}:${group.id}`, group])).values(),
];

/**
 * What SQLite says of data that it will never take. Everything else is a failure of the moment, or of
 * the deployment (a missing table), and parks nothing.
 */
const ABOUT_DATA = /constraint failed|malformed JSON|integer overflow|string or blob too big|datatype mismatch/i;

/** Whether D1 refused what it was given, rather than failed: trying the same again would end the same. */
export const isAboutData = (error: unknown): error is Error => error instanceof Error && ABOUT_DATA.test(error.message);
