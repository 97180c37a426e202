import { deleteExpiredReports } from "./aggregation/read-error-reports.ts";
import { eventLog } from "./durable-objects/stubs.ts";
import { type Env, settingsOf } from "./env.ts";
import { logError } from "./log.ts";
import { eventsDatabase } from "./storage/databases.ts";
import { deleteExpiredAnswers } from "./storage/idempotency.ts";

/**
 * What happens each minute: every log is nudged, in case an alarm was lost, and expired answers and
 * error reports go. `now` in ms.
 */
export async function maintain(env: Env, now: number): Promise<void> {
  const shards = Array.from({ length: settingsOf(env).EVENT_LOG_SHARDS }, (_, shard) => shard);
  await Promise.all([
    ...shards.map((shard) =>
      eventLog(env, shard)
        .nudge()
        .catch((error: unknown) => logError("a log was not nudged", error, { shard })),
    ),
    deleteExpiredAnswers(env.DB, now).catch((error: unknown) => logError("expired answers were not deleted", error)),
    deleteExpiredReports(eventsDatabase(env), now).catch((error: unknown) =>
      logError("expired error reports were not deleted", error),
    ),
  ]);
}
