import { deadLetterPrefix } from "../aggregate/dead-letters.ts";
import { eventsDatabase } from "../catalog/placement.ts";
import { DAY_MS, floorTo, MINUTE_MS } from "../domain/window.ts";
import type { Env } from "../env.ts";
import { GROUP_KINDS, type GroupKind, type LogEntry } from "../log/groups.ts";
import type { StoredGroup } from "../log/partitions.ts";
import { eventLog } from "../log/shards.ts";
import { logWarning } from "../logger.ts";
import { type CountsByMinute, recompute } from "./audit-summaries.ts";
import type { Span } from "./days.ts";
import { CHECK, RESTORE_EVENTS } from "./log-statements.ts";

type LogAudit = {
  /** Entries compared: events, cancellations, rejections. */
  readonly checked: number;
  /** Of these, those that D1 had not; their groups are sent again. */
  readonly missing: number;
  /** Events that D1 had with other values than were logged; they and their summaries were repaired. */
  readonly altered: number;
  /** How many entries are events, by the minute in which they were received. */
  readonly accepted: CountsByMinute;
  /** The last group that was compared; nothing when there was none. */
  readonly last: number | undefined;
};

/** A group with its entries read; what is no object in them, or cannot be read at all, is a dead letter. */
type ReadGroup = { readonly id: number; readonly kind: GroupKind; readonly entries: readonly unknown[] };

type Difference = { place: number; missing: number; altered: number };

/**
 * Compares the next groups that D1 has confirmed to a shard of the log, after a group's id and received
 * before a time (ms), entry by entry with what D1 holds. Has the log send again what D1 lacks, and puts
 * right what D1 has otherwise.
 */
export async function auditLog(env: Env, shard: number, after: number, before: number): Promise<LogAudit> {
  const groups = (await eventLog(env, shard).confirmedAfter(after, before)).map(readGroup);
  const audit = { checked: 0, missing: 0, altered: 0 };
  const incomplete: number[] = [];
  for (const kind of GROUP_KINDS) {
    const ofKind = groups.filter((group) => group.kind === kind);
    audit.checked += ofKind.reduce((sum, { entries }) => sum + entries.length, 0);
    for (const { place, missing, altered } of await check(env, shard, kind, ofKind)) {
      const group = ofKind[place];
      if (group === undefined) continue;
      if (altered > 0) await restore(eventsDatabase(env), group.entries.filter(isEvent));
      if (missing > 0) incomplete.push(group.id);
      audit.missing += missing;
      audit.altered += altered;
    }
  }
  if (incomplete.length > 0) await eventLog(env, shard).sendAgain(incomplete);
  const { missing, altered } = audit;
  if (missing + altered > 0) {
    logWarning("the database differed from the log", { shard, missing, altered, groups: incomplete.length });
  }
  return { ...audit, accepted: countByMinute(groups), last: groups.at(-1)?.id };
}

async function check(env: Env, shard: number, kind: GroupKind, groups: readonly ReadGroup[]): Promise<Difference[]> {
  if (groups.length === 0) return [];
  const listed = groups.map(({ id, entries }) => ({ prefix: deadLetterPrefix({ shard, id }), entries }));
  const { results } = await eventsDatabase(env).prepare(CHECK[kind]).bind(JSON.stringify(listed)).all<Difference>();
  return results;
}

/** Puts events back to what was logged, and recomputes the summaries of their days in the same transaction. */
async function restore(db: D1Database, events: readonly LogEntry[]): Promise<void> {
  const days = new Map(
    events.map(({ meter, customer, timestamp, aggregation }): [string, Span] => {
      const start = floorTo(timestamp, DAY_MS);
      const day = { meter, customer, start, end: start + DAY_MS, aggregation };
      return [JSON.stringify(day), day];
    }),
  );
  // The log says what they are: their summaries follow whatever they said.
  await db.batch([
    db.prepare(RESTORE_EVENTS).bind(JSON.stringify(events)),
    ...recompute(db, [...days.values()], 0).map(({ statement }) => statement),
  ]);
}

function countByMinute(groups: readonly ReadGroup[]): CountsByMinute {
  const counts: Record<string, number> = {};
  for (const { kind, entries } of groups) {
    if (kind !== "events") continue;
    for (const { received } of entries.filter(isEvent)) {
      const minute = String(floorTo(received, MINUTE_MS));
      counts[minute] = (counts[minute] ?? 0) + 1;
    }
  }
  return counts;
}

function readGroup({ id, kind, entries }: StoredGroup): ReadGroup {
  try {
    return { id, kind, entries: JSON.parse(`[${entries}]`) };
  } catch {
    return { id, kind, entries: [] };
  }
}

const isEvent = (entry: unknown): entry is LogEntry => typeof entry === "object" && entry !== null;
