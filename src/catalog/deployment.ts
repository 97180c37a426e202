import * as z from "zod";
import type { Placement } from "../domain/placement.ts";
import { err, ok, type Result } from "../domain/result.ts";
import { type Env, type Execution, isLocationHint, type LocationHint, type Settings, settingsOf } from "../env.ts";
import { eventsDatabases } from "./databases.ts";
import { PositiveCache } from "./positive-cache.ts";
import { loaderOf, type Queryable } from "./queries.ts";

/** The settings that may not change once there is data, and the names that they are recorded under. */
const FIXED = {
  EVENT_LOG_SHARDS: "event_log_shards",
  TEST_EVENT_LOG_SHARDS: "test_event_log_shards",
  JURISDICTION: "jurisdiction",
} as const;

type FixedSetting = keyof typeof FIXED;

const FIXED_SETTINGS = Object.keys(FIXED) as FixedSetting[];

/** The record of the placement: JSON, `[[databases, since], …]`. `npm run deploy` and `npm start` write it too. */
const DATABASES = "databases";

const RECORD = `
  INSERT INTO deployment (name, value)
  SELECT value ->> 0, value ->> 1 FROM json_each(?1)
  WHERE true
  ON CONFLICT DO NOTHING`;

const RECORDED = "SELECT name, value FROM deployment WHERE name IN (SELECT value FROM json_each(?1))";

/** A setting that is not what the data was started with. */
export type ChangedSetting = {
  readonly setting: FixedSetting;
  readonly configured: string;
  readonly recorded: string;
};

let agreed = false;

/**
 * Checks that the data was started with the EventLog shards and the jurisdiction that are configured;
 * otherwise identifiers would be looked for in the wrong logs. The failure is the first setting that
 * differs. Once they agree, an isolate asks no more. The nearest replica's agreement is enough, since what
 * is recorded stays; the primary is asked when it differs, and written to only when nothing is recorded.
 */
export async function checkFixedSettings(env: Env): Promise<Result<void, ChangedSetting>> {
  if (agreed) return ok(undefined);
  const settings = settingsOf(env);
  const nearby = firstChanged(settings, await recordedSettings(env.DB.withSession("first-unconstrained")));
  const changed = nearby && firstChanged(settings, await recordedOrRecord(env));
  if (changed !== undefined) return err(changed);
  agreed = true;
  return ok(undefined);
}

type Recorded = ReadonlyMap<string, string>;

function firstChanged(settings: Settings, recorded: Recorded): ChangedSetting | undefined {
  for (const setting of FIXED_SETTINGS) {
    const [was, is] = [recorded.get(FIXED[setting]), String(settings[setting])];
    if (was !== is) return { setting, configured: is, recorded: was ?? "" };
  }
  return undefined;
}

async function recordedOrRecord(env: Env): Promise<Recorded> {
  const recorded = await recordedSettings(env.DB);
  if (Object.values(FIXED).every((name) => recorded.has(name))) return recorded;
  const settings = settingsOf(env);
  const rows = FIXED_SETTINGS.map((setting) => [FIXED[setting], String(settings[setting])]);
  const placement: Placement = [{ databases: eventsDatabases(env, true).length, since: 0 }];
  // Another isolate may be first.
  await env.DB.prepare(RECORD)
    .bind(JSON.stringify([...rows, [DATABASES, writePlacement(placement)]]))
    .run();
  return recordedSettings(env.DB);
}

const recordedSettings = (db: Queryable): Promise<Recorded> => recordsOf(db, Object.values(FIXED));

async function recordsOf(db: Queryable, names: readonly string[]): Promise<Map<string, string>> {
  const { results } = await db.prepare(RECORDED).bind(JSON.stringify(names)).all<{ name: string; value: string }>();
  return new Map(results.map(({ name, value }) => [name, value]));
}

const Steps = z.array(z.tuple([z.int().min(1), z.int().min(0)])).min(1);

/** A placement as it is recorded. */
export const writePlacement = (placement: Placement): string =>
  JSON.stringify(placement.map(({ databases, since }) => [databases, since]));

/** What `writePlacement` wrote. Throws for anything else. */
export const parsePlacement = (text: string): Placement =>
  Steps.parse(JSON.parse(text)).map(([databases, since]) => ({ databases, since }));

const cache = new PositiveCache<Placement>();

async function lookUpPlacement(db: Queryable): Promise<Map<string, Placement>> {
  const text = (await recordsOf(db, [DATABASES])).get(DATABASES);
  return new Map(text === undefined ? [] : [[DATABASES, parsePlacement(text)]]);
}

/**
 * How many events databases live mode has had, for those who write: up to FRESH_MS old, which harms nothing, since
 * a longer placement takes effect a quarter of an hour after it is recorded, and a log keeps the longest that it
 * has seen. Nothing before the first event.
 */
export const knownPlacement = (env: Env, execution: Execution): Promise<Placement | undefined> =>
  cache.get(DATABASES, loaderOf(env.DB, lookUpPlacement), execution);

/**
 * How many events databases live mode has had, for those who read: the primary's own word, since an answer from too
 * few databases is a wrong one. Before the first event: what is bound. The failure is how many are recorded, when
 * fewer are bound.
 */
export async function currentPlacement(env: Env): Promise<Result<Placement, number>> {
  const bound = eventsDatabases(env, true).length;
  const placement = (await lookUpPlacement(env.DB)).get(DATABASES) ?? [{ databases: bound, since: 0 }];
  return checkBound(env, placement);
}

/** A placement whose databases are all bound; otherwise how many there should be. */
export function checkBound(env: Env, placement: Placement): Result<Placement, number> {
  const recorded = placement.at(-1)?.databases ?? 0;
  return recorded > eventsDatabases(env, true).length ? err(recorded) : ok(placement);
}

const BEGUN = `SELECT value FROM deployment WHERE name = '${FIXED.EVENT_LOG_SHARDS}'`;

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
