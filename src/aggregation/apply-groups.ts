import { type Group, packByBytes } from "../metering/groups.ts";
import { KEEPS_SURVIVORS } from "../metering/meters.ts";
import { ADD_TO_HOURLY_SUMMARIES, INSERT_EVENTS, KEEP_WINDOW_SURVIVORS } from "./statements.ts";

/** The most text one statement takes (bytes). D1 binds up to 2 MB. */
const STATEMENT_BYTES = 1_500_000;

/**
 * Stores the events of these groups and adds them to the summaries, in one transaction. An event
 * that is already stored changes nothing, so any group may come again, alone, twice at once or
 * beside others. Throws when D1 did not say that the transaction succeeded; it may have.
 */
export async function applyGroups(db: D1Database, groups: readonly Group[]): Promise<void> {
  const arrays = packByBytes(
    withoutRepeats(groups).map(({ events }) => events),
    STATEMENT_BYTES,
  ).map((events) => `[${events}]`);
  const statements = arrays.flatMap((events) => [
    db.prepare(ADD_TO_HOURLY_SUMMARIES).bind(events),
    // Most messages have no event of a meter that keeps survivors, and need not be read for one.
    ...(KEEPS_SURVIVORS.some((aggregation) => events.includes(aggregation))
      ? [db.prepare(KEEP_WINDOW_SURVIVORS).bind(events)]
      : []),
    db.prepare(INSERT_EVENTS).bind(events),
  ]);
  if (statements.length > 0) await db.batch(statements);
}

/** A group twice in one statement would be counted twice: neither copy is stored yet when both are added. */
const withoutRepeats = (groups: readonly Group[]): Group[] => [
  ...new Map(groups.map((group) => [`${group.shard}:${group.id}`, group])).values(),
];
