import type { Settings } from "../env.ts";
import { err, ok, type Result } from "../metering/result.ts";

const RECORD = "INSERT INTO deployment (name, value) VALUES ('event_log_shards', ?1) ON CONFLICT DO NOTHING";

const RECORDED = "SELECT value FROM deployment WHERE name = 'event_log_shards'";

let agreed = false;

/**
 * Checks that the data was started with as many EventLog shards as are configured; otherwise
 * identifiers would be looked for in the wrong logs. The failure is the number it was started with.
 * Once they agree, an isolate asks no more.
 */
export async function checkShards(db: D1Database, { EVENT_LOG_SHARDS }: Settings): Promise<Result<void, number>> {
  if (agreed) return ok(undefined);
  const [, recorded] = await db.batch<{ value: string }>([
    db.prepare(RECORD).bind(String(EVENT_LOG_SHARDS)),
    db.prepare(RECORDED),
  ]);
  const shards = Number(recorded?.results[0]?.value);
  agreed = shards === EVENT_LOG_SHARDS;
  return agreed ? ok(undefined) : err(shards);
}
