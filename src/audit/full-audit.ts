import * as z from "zod";
import { type EventsDatabase, eventsDatabases } from "../catalog/databases.ts";
import { UNIQUENESS_MS } from "../domain/limits.ts";
import { floorTo, MINUTE_MS, receiptOf, type TimeRange } from "../domain/window.ts";
import type { Env } from "../env.ts";
import { allShards, eventLog } from "../log/shards.ts";
import { readCursor } from "../step-cursor.ts";
import { SETTLED_MS } from "./audit-log.ts";
import { logReach } from "./audit-sums.ts";
import { Budget } from "./budget.ts";
import { auditPage, type CountsByMinute } from "./log-page.ts";
import { BEGINNING, type Part } from "./portions.ts";
import { readSlices } from "./slices.ts";
import { countReceived } from "./statements.ts";
import { auditPortion } from "./sums-portion.ts";

const Cursor = z.strictObject({
  /** What is received in it is counted on both sides (ms). */
  received: z.strictObject({ start: z.int(), end: z.int() }),
  at: z.union([
    z.strictObject({ shard: z.string(), after: z.int() }),
    z.strictObject({ database: z.string(), series: z.int().min(0), time: z.int().min(0) }),
  ]),
});

/** Where the next step begins: in a shard of the log, after a group; or among the sums of a database. */
export type Cursor = z.output<typeof Cursor>;

/** What a step of a full audit found; nothing of what it did not look at. */
export type AuditStep = {
  /** Entries of the log that were compared, those that a database had not, and events that one had otherwise. */
  readonly checked: number;
  readonly missing: number;
  readonly altered: number;
  /** Entries of a shard that wait for the aggregator, and are not compared. */
  readonly waiting: number;
  /** Sums that were compared, that were repaired, and that were left as they are; see SumsAudit. */
  readonly sums: number;
  readonly repaired: number;
  readonly suspect: number;
  /** Portions of sums that could not be compared. */
  readonly failed: number;
  /** Events that were received within the cursor's range, in the log and in the databases. */
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
  sums: 0,
  repaired: 0,
  suspect: 0,
  failed: 0,
  accepted: {},
  stored: {},
};

/** Where an audit begins `now` (ms): every shard of both modes' logs, then the sums of every database. */
export async function firstCursor(env: Env, now: number): Promise<Cursor> {
  const [shard = ""] = await allShards(env);
  return { received: await countedRange(env, now), at: { shard, after: 0 } };
}

/** The minutes whose events must all be stored by now, as far as every log goes back. */
async function countedRange(env: Env, now: number): Promise<TimeRange> {
  const oldest = await Promise.all((await allShards(env)).map((shard) => eventLog(env, shard).oldestWaiting()));
  const end = Math.min(now - SETTLED_MS, ...oldest.flatMap((time) => time ?? []));
  return { start: floorTo(now - UNIQUENESS_MS, MINUTE_MS) + MINUTE_MS, end: floorTo(end, MINUTE_MS) };
}

type AuditStepOptions = {
  /** ms */
  readonly now: number;
  /** Repair also what is suspect: the events are all there. */
  readonly trustEvents: boolean;
};

/** One step of a full audit: a page of a shard, or a portion of a database's sums. Repairs what differs. */
export function auditStep(
  env: Env,
  { received, at }: Cursor,
  { now, trustEvents }: AuditStepOptions,
): Promise<AuditStep> {
  if ("shard" in at) return stepLog(env, at, received, now - SETTLED_MS);
  return stepSums(env, at, received, trustEvents ? 0 : logReach(now));
}

async function stepLog(
  env: Env,
  { shard, after }: Extract<Cursor["at"], { shard: string }>,
  received: TimeRange,
  before: number,
): Promise<AuditStep> {
  const { groups: _, last, accepted, ...found } = await auditPage(env, shard, after, before, Budget.unlimited());
  const inRange = Object.entries(accepted).filter(
    ([minute]) => Number(minute) >= received.start && Number(minute) < received.end,
  );
  return {
    ...NOTHING,
    ...found,
    waiting: last === undefined ? (await eventLog(env, shard).status()).entries : 0,
    accepted: Object.fromEntries(inRange),
    next: { received, at: last === undefined ? await afterShard(env, shard) : { shard, after: last } },
  };
}

/** After a shard comes the next one; after the last one, the sums of the first database. */
async function afterShard(env: Env, shard: string): Promise<Cursor["at"]> {
  const shards = await allShards(env);
  const next = shards[shards.indexOf(shard) + 1];
  return next === undefined ? { database: databasesOf(env)[0]?.name ?? "", ...BEGINNING } : { shard: next, after: 0 };
}

async function stepSums(
  env: Env,
  { database, ...from }: Extract<Cursor["at"], { database: string }>,
  received: TimeRange,
  lessFrom: number,
): Promise<AuditStep> {
  const databases = databasesOf(env);
  const place = databases.findIndex(({ name }) => name === database);
  const db = databases[place]?.db;
  if (db === undefined) throw new Error(`there is no database ${database}`);
  const { checked, repaired, suspect, failed, parts, next } = await auditPortion(
    env,
    db,
    from,
    { database, lessFrom },
    Budget.unlimited(),
  );
  const nextDatabase = databases[place + 1]?.name;
  const stored = await countStored(db, parts, received);
  const found = { ...NOTHING, sums: checked, repaired, suspect, failed: failed ? 1 : 0, stored };
  if (next !== undefined) return { ...found, next: { received, at: { database, ...next } } };
  return {
    ...found,
    next: nextDatabase === undefined ? undefined : { received, at: { database: nextDatabase, ...BEGINNING } },
  };
}

/** The events databases of both modes, live mode's first. */
const databasesOf = (env: Env): EventsDatabase[] => [...eventsDatabases(env, true), ...eventsDatabases(env, false)];

/** How many events of parts of series are stored, by the minute in which they were received. */
async function countStored(db: D1Database, parts: readonly Part[], received: TimeRange): Promise<CountsByMinute> {
  const wanted = JSON.stringify(parts.map(({ series, from, to }) => [series, from, to]));
  const budget = Budget.unlimited();
  const { live } = await readSlices(db, budget);
  const slices = live.filter(({ slice }) => receiptOf(slice).end > received.start);
  const results = await budget.run<{ minute: number; count: number }>(
    db,
    slices.map(({ slice }) => db.prepare(countReceived(slice)).bind(wanted, received.start, received.end)),
  );
  const counts: Record<string, number> = {};
  for (const { minute, count } of results.flatMap((result) => result.results)) {
    counts[minute] = (counts[minute] ?? 0) + count;
  }
  return counts;
}

/** The cursor that a text is; nothing when it is none of this deployment. */
export async function readAuditCursor(env: Env, text: string): Promise<Cursor | undefined> {
  const cursor = readCursor(Cursor, text);
  if (cursor === undefined) return undefined;
  const { at } = cursor;
  // To ask for a shard that there is not would make one.
  const isKnown =
    "shard" in at
      ? (await allShards(env)).includes(at.shard)
      : databasesOf(env).some(({ name }) => name === at.database);
  return isKnown ? cursor : undefined;
}
