import * as z from "zod";
import type { Placement } from "../domain/placement.ts";
import { err, ok, type Result } from "../domain/result.ts";
import { countOfShards, mayFollow } from "../domain/shards.ts";
import { MINUTE_MS } from "../domain/window.ts";
import { type Env, type Execution, isLocationHint, type LocationHint, settingsOf } from "../env.ts";
import { withTimeout } from "../timeout.ts";
import { eventsDatabases } from "./databases.ts";
import { PositiveCache } from "./positive-cache.ts";
import { loaderOf, type Queryable } from "./queries.ts";

/** What is recorded of a deployment with its first event, and what may be added to it later. */
export type Deployment = {
  readonly jurisdiction: string;
  /** How many events databases live mode has had. */
  readonly placement: Placement;
  /** How many shards each mode's log has had. */
  readonly shards: { readonly live: ShardHistory; readonly test: ShardHistory };
};

/** How many shards a log had, and when each number was recorded (ms). */
type ShardHistory = readonly { readonly shards: number; readonly since: number }[];

/** The names of the records, which `npm run deploy` and `npm start` write too: see schema.sql. */
const NAMES = {
  jurisdiction: "jurisdiction",
  databases: "databases",
  live: "event_log_shards",
  test: "test_event_log_shards",
} as const;

const RECORD = `
  INSERT INTO deployment (name, value)
  SELECT value ->> 0, value ->> 1 FROM json_each(?1)
  WHERE true
  ON CONFLICT DO NOTHING`;

const RECORDED = "SELECT name, value FROM deployment WHERE name IN (SELECT value FROM json_each(?1))";

const Steps = z.array(z.tuple([z.int().min(1), z.int().min(0)])).min(1);

/** Numbers and since when (ms) there are so many, as they are recorded. */
export const writeSteps = (steps: readonly (readonly [count: number, since: number])[]): string =>
  JSON.stringify(steps);

/** What `writeSteps` wrote. Throws for anything else. */
export const readSteps = (text: string): [count: number, since: number][] => Steps.parse(JSON.parse(text));

/** A placement as it is recorded. */
export const writePlacement = (placement: Placement): string =>
  writeSteps(placement.map(({ databases, since }) => [databases, since]));

async function lookUp(db: Queryable): Promise<Map<string, Deployment>> {
  const { results } = await db
    .prepare(RECORDED)
    .bind(JSON.stringify(Object.values(NAMES)))
    .all<{ name: string; value: string }>();
  const recorded = new Map(results.map(({ name, value }) => [name, value]));
  const [jurisdiction, databases] = [recorded.get(NAMES.jurisdiction), recorded.get(NAMES.databases)];
  const [live, test] = [recorded.get(NAMES.live), recorded.get(NAMES.test)];
  if (jurisdiction === undefined || databases === undefined || live === undefined || test === undefined)
    return new Map();
  const toShards = (text: string): ShardHistory => readSteps(text).map(([shards, since]) => ({ shards, since }));
  const placement = readSteps(databases).map(([count, since]) => ({ databases: count, since }));
  return new Map([[KEY, { jurisdiction, placement, shards: { live: toShards(live), test: toShards(test) } }]]);
}

/** A deployment has one record; the cache wants a key for it. */
const KEY = "deployment";

const cache = new PositiveCache<Deployment>();

const inForceNow = (env: Env): Deployment => {
  const { JURISDICTION: jurisdiction, EVENT_LOG_SHARDS: live, TEST_EVENT_LOG_SHARDS: test } = settingsOf(env);
  return {
    jurisdiction,
    placement: [{ databases: eventsDatabases(env, true).length, since: 0 }],
    shards: { live: [{ shards: live, since: 0 }], test: [{ shards: test, since: 0 }] },
  };
};

/**
 * What is recorded, for those who write; it is recorded now when this is the first event. Up to FRESH_MS old, which
 * harms nothing: more databases are used only a quarter of an hour after they are recorded, and a log that has grown
 * says so to a caller that does not know it.
 */
export async function knownDeployment(env: Env, execution: Execution): Promise<Deployment> {
  const known = await cache.get(KEY, loaderOf(env.DB, lookUp), execution);
  if (known !== undefined) return known;
  const { jurisdiction, placement, shards } = inForceNow(env);
  const toSteps = (history: ShardHistory): string => writeSteps(history.map((step) => [step.shards, step.since]));
  // Another isolate may be first.
  await env.DB.prepare(RECORD)
    .bind(
      JSON.stringify([
        [NAMES.jurisdiction, jurisdiction],
        [NAMES.databases, writePlacement(placement)],
        [NAMES.live, toSteps(shards.live)],
        [NAMES.test, toSteps(shards.test)],
      ]),
    )
    .run();
  const recorded = (await lookUp(env.DB)).get(KEY);
  if (recorded === undefined) throw new Error("the deployment was not recorded");
  return recorded;
}

/** What is recorded, or what the first event will record. Throws when the database does not answer. */
export const recordedDeployment = async (env: Env): Promise<Deployment> =>
  (await withTimeout(lookUp(env.DB), PATIENCE_MS)).get(KEY) ?? inForceNow(env);

/** The same, but the settings' word while the database does not answer. */
export const currentDeployment = (env: Env): Promise<Deployment> =>
  recordedDeployment(env).catch(() => inForceNow(env));

/** How long those who look after a deployment wait for its record (ms). */
const PATIENCE_MS = 3_000;

/** A setting that is not what the data was started with, or has grown to. */
export type ChangedSetting = {
  readonly setting: "EVENT_LOG_SHARDS" | "TEST_EVENT_LOG_SHARDS" | "JURISDICTION";
  readonly configured: string;
  readonly recorded: string;
};

/** How long versions with the earlier number of shards may go on after a growth was recorded (ms). */
const OVERLAP_MS = 15 * MINUTE_MS;

/**
 * The first setting that the recorded data cannot be served with; nothing when it can. A log may grow to a multiple,
 * and a version from before a growth may go on for a while. `now` in ms.
 */
export function changedSetting(
  env: Env,
  { jurisdiction, shards }: Deployment,
  now: number,
): ChangedSetting | undefined {
  const settings = settingsOf(env);
  if (settings.JURISDICTION !== jurisdiction) {
    return { setting: "JURISDICTION", configured: settings.JURISDICTION, recorded: jurisdiction };
  }
  for (const [setting, history] of [
    ["EVENT_LOG_SHARDS", shards.live],
    ["TEST_EVENT_LOG_SHARDS", shards.test],
  ] as const) {
    const counts = history.map((step) => step.shards);
    const configured = settings[setting];
    const isBefore = counts.includes(configured) && (history.at(-1)?.since ?? 0) > now - OVERLAP_MS;
    if (!isBefore && !mayFollow(configured, counts)) {
      return { setting, configured: String(configured), recorded: String(countOfShards(counts)) };
    }
  }
  return undefined;
}

/**
 * How many events databases live mode has had, for those who read: the primary's own word, since an answer from too
 * few databases is a wrong one. Before the first event: what is bound. The failure is how many are recorded, when
 * fewer are bound.
 */
export async function currentPlacement(env: Env): Promise<Result<Placement, number>> {
  const recorded = (await lookUp(env.DB)).get(KEY);
  return checkBound(env, (recorded ?? inForceNow(env)).placement);
}

/** A placement whose databases are all bound; otherwise how many there should be. */
export function checkBound(env: Env, placement: Placement): Result<Placement, number> {
  const recorded = placement.at(-1)?.databases ?? 0;
  return recorded > eventsDatabases(env, true).length ? err(recorded) : ok(placement);
}

const BEGUN = `SELECT value FROM deployment WHERE name = '${NAMES.live}'`;

/**
 * The region of the database ("" when Cloudflare does not say), once a first event came: before it there is
 * no log, and `undefined`.
 */
export async function regionOnceBegun(db: D1Database): Promise<LocationHint | undefined> {
  const { results, meta } = await db.prepare(BEGUN).all();
  if (results.length === 0) return undefined;
  const region = meta.served_by_region?.toLowerCase() ?? "";
  return isLocationHint(region) ? region : "";
}
