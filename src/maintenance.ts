import { deleteExpiredReports } from "./aggregation/read-error-reports.ts";
import { auditSome } from "./auditing/scheduled.ts";
import { allShards, eventLog } from "./durable-objects/stubs.ts";
import type { Env } from "./env.ts";
import { logError } from "./log.ts";
import { eventsDatabase } from "./storage/databases.ts";
import { deleteExpiredAnswers } from "./storage/idempotency.ts";

/**
 * What happens each minute: every log is nudged, in case an alarm was lost, expired answers and error
 * reports go, and the auditor does its share. `now` in ms.
 */
export async function maintain(env: Env, now: number): Promise<void> {
  await Promise.all([
    ...allShards(env).map((shard) =>
      eventLog(env, shard)
        .nudge()
        .catch((error: unknown) => logError("a log was not nudged", error, { shard })),
    ),
    deleteExpiredAnswers(env.DB, now).catch((error: unknown) => logError("expired answers were not deleted", error)),
    deleteExpiredReports(eventsDatabase(env), now).catch((error: unknown) =>
      logError("expired error reports were not deleted", error),
    ),
    auditSome(env, now),
  ]);
}
