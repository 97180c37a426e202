import * as z from "zod";
import { eventsDatabase } from "../catalog/placement.ts";
import { UNIQUENESS_MS } from "../domain/limits.ts";
import { floorTo, MINUTE_MS, type TimeRange } from "../domain/window.ts";
import { type Env, settingsOf } from "../env.ts";
import { allShards, eventLog } from "../log/shards.ts";
import { auditLog } from "./audit-log.ts";
import { auditSummaries, type CountsByMinute, countStored } from "./audit-summaries.ts";
import { BEGINNING, END } from "./days.ts";

/** How old a group is before it is compared (ms): by then nothing about it is under way. */
export const SETTLED_MS = 2 * MINUTE_MS;

/** From when on the log remembers what it accepted (ms), so that it can say which of two is wrong. */
export const logReach = (now: number): number => now - UNIQUENESS_MS;

/** Rows of events whose days' summaries are recomputed in one step. */
const STEP_ROWS = 20_000;

const Cursor = z.strictObject({
  /** What is received in it is counted on both sides (ms). */
  received: z.strictObject({ start: z.int(), end: z.int() }),
  at: z.union([
    z.strictObject({ shard: z.int().min(0), after: z.int() }),
    z.strictObject({ meter: z.string(), customer: z.string(), time: z.int() }),
  ]),
});

/** Where the next step begins: in a shard of the log, after a group; or among the summaries. */
export type Cursor = z.output<typeof Cursor>;

/** What a step of a full audit found; nothing of what it did not look at. */
type AuditStep = {
  /** Entries of the log that were compared, those that D1 had not, and events that D1 had otherwise. */
  readonly checked: number;
  readonly missing: number;
  readonly altered: number;
  /** Entries of a shard that wait for the aggregator, and are not compared. */
  readonly waiting: number;
  /** Days whose summaries were recomputed, and those that were not; see SummaryAudit. */
  readonly days: number;
  readonly repaired: number;
  readonly suspect: number;
  readonly failed: number;
  /** Events that were received within the cursor's range, in the log and in D1. */
  readonly accepted: CountsByMinute;
  readonly stored: CountsByMinute;
  /** Nothing after the last step. */
  readonly next: Cursor | undefined;
};

const NOTHING: Omit<AuditStep, "next"> = {
  checked: 0,
  missing: 0,
  altered: 0,
  waiting: 0,
  days: 0,
  repaired: 0,
  suspect: 0,
  failed: 0,
  accepted: {},
  stored: {},
};

/** Where an audit begins `now` (ms): every shard of the log, then all summaries. */
export async function firstCursor(env: Env, now: number): Promise<Cursor> {
  return { received: await countedRange(env, now), at: { shard: 0, after: 0 } };
}

/** The minutes whose events must all be in D1 by now, as far as every log goes back. */
async function countedRange(env: Env, now: number): Promise<TimeRange> {
  const oldest = await Promise.all(allShards(env).map((shard) => eventLog(env, shard).oldestWaiting()));
  const end = Math.min(now - SETTLED_MS, ...oldest.flatMap((time) => time ?? []));
  return { start: floorTo(now - UNIQUENESS_MS, MINUTE_MS) + MINUTE_MS, end: floorTo(end, MINUTE_MS) };
}

type AuditStepOptions = {
  /** ms */
  readonly now: number;
  /** Recompute also what is suspect: the events are all there. */
  readonly trustEvents: boolean;
  /** Rows of events whose days' summaries are recomputed. */
  readonly rows?: number;
};

/** One step of a full audit: a page of a shard, or the summaries of some days. Repairs what differs. */
export async function auditStep(
  env: Env,
  { received, at }: Cursor,
  { now, trustEvents, rows = STEP_ROWS }: AuditStepOptions,
): Promise<AuditStep> {
  if ("shard" in at) return stepLog(env, at, received, now - SETTLED_MS);
  const { next, ...found } = await auditSummaries(env, at, { rows, lessFrom: trustEvents ? 0 : logReach(now) });
  const stored = await countStored(eventsDatabase(env), at, next, received);
  return { ...NOTHING, ...found, stored, next: next === END ? undefined : { received, at: next } };
}

async function stepLog(
  env: Env,
  { shard, after }: { readonly shard: number; readonly after: number },
  received: TimeRange,
  before: number,
): Promise<AuditStep> {
  const { last, accepted, ...found } = await auditLog(env, shard, after, before);
  const inRange = Object.entries(accepted).filter(
    ([minute]) => Number(minute) >= received.start && Number(minute) < received.end,
  );
  return {
    ...NOTHING,
    ...found,
    waiting: last === undefined ? (await eventLog(env, shard).status()).entries : 0,
    accepted: Object.fromEntries(inRange),
    next: { received, at: last === undefined ? afterShard(env, shard) : { shard, after: last } },
  };
}

/** After a shard comes the next one; after the last one, the summaries. */
const afterShard = (env: Env, shard: number): Cursor["at"] =>
  shard + 1 < settingsOf(env).EVENT_LOG_SHARDS ? { shard: shard + 1, after: 0 } : BEGINNING;

/** A cursor as text, for the caller of the next step. */
export const writeCursor = (cursor: Cursor): string => Buffer.from(JSON.stringify(cursor)).toString("base64url");

/** The cursor that a text is; nothing when it is none of this deployment. */
export function readCursor(env: Env, text: string): Cursor | undefined {
  const { data } = Cursor.safeParse(parse(Buffer.from(text, "base64url").toString()));
  // To ask for a shard that there is not would make one.
  const isKnown = data !== undefined && !("shard" in data.at && data.at.shard >= settingsOf(env).EVENT_LOG_SHARDS);
  return isKnown ? data : undefined;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
