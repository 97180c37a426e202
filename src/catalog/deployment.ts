import { err, ok, type Result } from "../domain/result.ts";
import { isLocationHint, type LocationHint, type Settings } from "../env.ts";
import type { Queryable } from "./placement.ts";

/** The settings that may not change once there is data, and the names that they are recorded under. */
const FIXED = { EVENT_LOG_SHARDS: "event_log_shards", JURISDICTION: "jurisdiction" } as const;

const RECORD = `
  INSERT INTO deployment (name, value) VALUES ('${FIXED.EVENT_LOG_SHARDS}', ?1), ('${FIXED.JURISDICTION}', ?2)
  ON CONFLICT DO NOTHING`;

const RECORDED = "SELECT name, value FROM deployment WHERE name IN (SELECT value FROM json_each(?1))";

/** A setting that is not what the data was started with. */
export type ChangedSetting = {
  readonly setting: keyof typeof FIXED;
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
export async function checkFixedSettings(db: D1Database, settings: Settings): Promise<Result<void, ChangedSetting>> {
  if (agreed) return ok(undefined);
  const nearby = firstChanged(settings, await recordedSettings(db.withSession("first-unconstrained")));
  const changed = nearby && firstChanged(settings, await recordedOrRecord(db, settings));
  if (changed !== undefined) return err(changed);
  agreed = true;
  return ok(undefined);
}

type Recorded = ReadonlyMap<string, string>;

function firstChanged(settings: Settings, recorded: Recorded): ChangedSetting | undefined {
  for (const setting of ["EVENT_LOG_SHARDS", "JURISDICTION"] as const) {
    const [was, is] = [recorded.get(FIXED[setting]), String(settings[setting])];
    if (was !== is) return { setting, configured: is, recorded: was ?? "" };
  }
  return undefined;
}

async function recordedOrRecord(db: D1Database, { EVENT_LOG_SHARDS, JURISDICTION }: Settings): Promise<Recorded> {
  const recorded = await recordedSettings(db);
  if (Object.values(FIXED).every((name) => recorded.has(name))) return recorded;
  // Another isolate may be first.
  await db.prepare(RECORD).bind(String(EVENT_LOG_SHARDS), JURISDICTION).run();
  return recordedSettings(db);
}

async function recordedSettings(db: Queryable): Promise<Recorded> {
  const { results } = await db
    .prepare(RECORDED)
    .bind(JSON.stringify(Object.values(FIXED)))
    .all<{ name: string; value: string }>();
  return new Map(results.map(({ name, value }) => [name, value]));
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
