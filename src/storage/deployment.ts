import type { Settings } from "../env.ts";

const RECORD = "INSERT INTO deployment (name, value) VALUES ('event_log_shards', ?1) ON CONFLICT DO NOTHING";

const RECORDED = "SELECT value FROM deployment WHERE name = 'event_log_shards'";

let agreed = false;

/**
 * The number of EventLog shards that the data was started with, when it is not what is configured:
 * identifiers would be looked for in the wrong logs. Nothing when the two agree; asked once per isolate.
 */
export async function recordedShardsIfOther(
  db: D1Database,
  { EVENT_LOG_SHARDS }: Settings,
): Promise<number | undefined> {
  if (agreed) return undefined;
  const [, recorded] = await db.batch<{ value: string }>([
    db.prepare(RECORD).bind(String(EVENT_LOG_SHARDS)),
    db.prepare(RECORDED),
  ]);
  const shards = Number(recorded?.results[0]?.value);
  agreed = shards === EVENT_LOG_SHARDS;
  return agreed ? undefined : shards;
}
