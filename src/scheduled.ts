import { auditSome } from "./audit/audit-some.ts";
import { regionOnceBegun } from "./catalog/deployment.ts";
import { eventsDatabase } from "./catalog/placement.ts";
import type { Env } from "./env.ts";
import { deleteExpiredResponses } from "./http/idempotent-answer.ts";
import { allShards, eventLog } from "./log/shards.ts";
import { logError } from "./logger.ts";
import { deleteExpiredReports } from "./query/error-reports.ts";

/**
 * What happens each minute: every log is nudged, in case an alarm was lost, expired answers and error
 * reports go, and the auditor does its share. `now` in ms.
 */
export async function maintain(env: Env, now: number): Promise<void> {
  await Promise.all([
    maintainLogs(env, now).catch((error: unknown) => logError("the logs were not looked after", error)),
    deleteExpiredResponses(env.DB, now).catch((error: unknown) => logError("expired answers were not deleted", error)),
    deleteExpiredReports(eventsDatabase(env), now).catch((error: unknown) =>
      logError("expired error reports were not deleted", error),
    ),
  ]);
}

/**
 * Calls no log before there was an event, and where a log is called that had none yet, it is created
 * beside the database: a schedule runs anywhere, and an object stays where it was created.
 */
async function maintainLogs(env: Env, now: number): Promise<void> {
  const region = await regionOnceBegun(env.DB);
  if (region === undefined) return;
  const placed = env.LOCATION_HINT === "" && region !== "" ? { ...env, LOCATION_HINT: region } : env;
  const nudges = allShards(placed).map((shard) =>
    eventLog(placed, shard)
      .nudge()
      .catch((error: unknown) => logError("a log was not nudged", error, { shard })),
  );
  await Promise.all([...nudges, auditSome(placed, now)]);
}
