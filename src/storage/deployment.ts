import { isLocationHint, type LocationHint, type Settings } from "../env.ts";
import { err, ok, type Result } from "../metering/result.ts";

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
 * differs. Once they agree, an isolate asks no more.
 */
export async function checkFixedSettings(db: D1Database, settings: Settings): Promise<Result<void, ChangedSetting>> {
  if (agreed) return ok(undefined);
  const { EVENT_LOG_SHARDS, JURISDICTION } = settings;
  const [, recorded] = await db.batch<{ name: string; value: string }>([
    db.prepare(RECORD).bind(String(EVENT_LOG_SHARDS), JURISDICTION),
    db.prepare(RECORDED).bind(JSON.stringify(Object.values(FIXED))),
  ]);
  const values = new Map(recorded?.results.map(({ name, value }) => [name, value]));
  for (const setting of ["EVENT_LOG_SHARDS", "JURISDICTION"] as const) {
    const [was, is] = [values.get(FIXED[setting]) ?? "", String(settings[setting])];
    if (was !== is) return err({ setting, configured: is, recorded: was });
  }
  agreed = true;
  return ok(undefined);
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
