import { deadLetterPrefix } from "../aggregation/dead-letters.ts";
import type { StoredGroup } from "../durable-objects/log-store.ts";
import { eventLog } from "../durable-objects/stubs.ts";
import type { Env } from "../env.ts";
import { logWarning } from "../log.ts";
import type { LoggedEvent } from "../metering/groups.ts";
import { DAY_MS, floorTo, MINUTE_MS } from "../metering/windows.ts";
import { eventsDatabase } from "../storage/databases.ts";
import { type CountsByMinute, recompute } from "./audit-summaries.ts";
import type { AuditedDay } from "./days.ts";
import { CHECK, RESTORE_EVENTS } from "./log-statements.ts";

export type LogAudit = {
  /** Entries compared: events, cancellations, rejections. */
  readonly checked: number;
  /** Of these, those that D1 had not; they are on their way again. */
  readonly missing: number;
  /** Events that D1 had otherwise than they were logged; they and their summaries are put right. */
  readonly altered: number;
  /** How many of them are events, by the minute in which they were received. */
  readonly accepted: CountsByMinute;
  /** The last group that was compared; nothing when there was none. */
  readonly last: number | undefined;
};

type Difference = { missing: number; altered: number };

/**
 * Compares the next groups that D1 has confirmed to a shard of the log, after a group's id and received
 * before a time (ms), entry by entry with what D1 holds; sends again what is missing.
 */
export async function auditLog(env: Env, shard: number, after: number, before: number): Promise<LogAudit> {
  const db = eventsDatabase(env);
  const log = eventLog(env, shard);
  const groups = (await log.confirmedAfter(after, before)).map((group) => ({ ...group, json: `[${group.entries}]` }));
  if (groups.length === 0) return { checked: 0, missing: 0, altered: 0, accepted: {}, last: undefined };
  const checks = await db.batch<Difference>(
    groups.map(({ id, kind, json }) => db.prepare(CHECK[kind]).bind(json, deadLetterPrefix({ shard, id }))),
  );
  const differences = groups.map((group, i) => ({ ...group, ...checks[i]?.results[0] }));

  for (const { json, altered = 0 } of differences) if (altered > 0) await restore(db, json);
  const incomplete = differences.filter(({ missing = 0 }) => missing > 0).map(({ id }) => id);
  if (incomplete.length > 0) await eventLog(env, shard).sendAgain(incomplete);

  const missing = sum(differences.map((difference) => difference.missing ?? 0));
  const altered = sum(differences.map((difference) => difference.altered ?? 0));
  if (missing + altered > 0) {
    logWarning("the database differed from the log", { shard, missing, altered, groups: incomplete.length });
  }
  return { ...countsOf(groups), missing, altered, last: groups.at(-1)?.id };
}

/** Puts the events of a group back to what was logged, and recomputes the summaries of their days in the same transaction. */
async function restore(db: D1Database, json: string): Promise<void> {
  const events: LoggedEvent[] = JSON.parse(json);
  const days = new Map(
    events.map(({ meter, customer, timestamp, aggregation }): [string, AuditedDay] => {
      const day = { meter, customer, day: floorTo(timestamp, DAY_MS), aggregation };
      return [JSON.stringify(day), day];
    }),
  );
  await db.batch([db.prepare(RESTORE_EVENTS).bind(json), ...recompute(db, [...days.values()])]);
}

function countsOf(groups: readonly StoredGroup[]): Pick<LogAudit, "checked" | "accepted"> {
  let checked = 0;
  const accepted: Record<string, number> = {};
  for (const { kind, entries } of groups) {
    const parsed = entriesOf(entries);
    checked += parsed.length;
    if (kind !== "events") continue;
    for (const { received } of parsed) {
      const minute = String(floorTo(received, MINUTE_MS));
      accepted[minute] = (accepted[minute] ?? 0) + 1;
    }
  }
  return { checked, accepted };
}

/** None when they cannot be read: then they are a dead letter. */
function entriesOf(entries: string): LoggedEvent[] {
  try {
    return JSON.parse(`[${entries}]`);
  } catch {
    return [];
  }
}

const sum = (numbers: readonly number[]): number => numbers.reduce((total, number) => total + number, 0);
