import { forgetRedriven } from "./aggregate/dead-letters.ts";
import { sizeOf } from "./aggregate/fill.ts";
import { keepSlices } from "./aggregate/keep-slices.ts";
import { warnOfArchive } from "./archive/alarms.ts";
import { type ArchivedDatabase, archiveDatabase, archivedDatabases } from "./archive/archive.ts";
import { goOn } from "./archive/archiver.ts";
import { forgetErased } from "./archive/erase.ts";
import { auditLog } from "./audit/audit-log.ts";
import { auditSums } from "./audit/audit-sums.ts";
import { eventsDatabases } from "./catalog/databases.ts";
import { regionOnceBegun } from "./catalog/deployment.ts";
import { areNoted, databaseDaysLeft, hourOf, logDaysLeft, noteSizes, readSizes, type Size } from "./catalog/sizes.ts";
import { type Env, settingsOf } from "./env.ts";
import { deleteExpiredResponses } from "./http/idempotent-answer.ts";
import { contextOf } from "./log/calls.ts";
import type { LogContext } from "./log/entries.ts";
import { eventLog, logOfMode, shardsOf } from "./log/shards.ts";
import { loggedAs, logWarning } from "./logger.ts";
import { deleteExpiredReports } from "./query/error-reports.ts";

const MODES = [true, false] as const;

/** Days left, below which a warning is logged. */
const FEW_DAYS = { database: 3, log: 0.5 } as const;

/** What part of DATABASE_HIGH_WATER_MB is too much. */
const NEARLY_FULL = 0.9;

/** What a minute's run may do: steps for each database, and how long (ms). More is left to objects of their own. */
const ARCHIVE = { steps: 2, ms: 20_000 } as const;

/**
 * What happens each minute, of each mode and database by itself: every log is nudged, in case an alarm was lost, the
 * next slices are made, those that are over are archived, expired responses, error reports and dead letters go, and the
 * auditors do their share. Once an hour the sizes are noted and the archives looked at. `now` in ms.
 */
export async function maintain(env: Env, now: number): Promise<void> {
  await Promise.all([
    deleteExpiredResponses(env.DB, now).catch(loggedAs("expired responses were not deleted")),
    maintainLogs(env, now).catch(loggedAs("the logs were not looked after")),
    archiveEach(env),
    ...archivedDatabases(env).map((known) =>
      forgetErased(env, known, now).catch(
        loggedAs("an erased customer was not forgotten", { database: known.database.name }),
      ),
    ),
    ...MODES.flatMap((livemode) => [
      ...eventsDatabases(env, livemode).flatMap(({ name, db }) => [
        deleteExpiredReports(db, livemode, now).catch(
          loggedAs("expired error reports were not deleted", { database: name }),
        ),
        keepSlices(db, now).catch(loggedAs("slices were not looked after", { database: name })),
        forgetRedriven(db, now).catch(loggedAs("redriven dead letters were not forgotten", { database: name })),
      ]),
    ]),
  ]);
}

/** One database after the other: a step has up to 60 MB in memory, and the isolate 128 for all. */
async function archiveEach(env: Env): Promise<void> {
  const until = Date.now() + ARCHIVE.ms;
  for (const known of archivedDatabases(env)) {
    await archive(env, known, until).catch(loggedAs("a database was not archived", { database: known.database.name }));
  }
}

async function archive(env: Env, known: ArchivedDatabase, until: number): Promise<void> {
  if (await archiveDatabase(env, known, { steps: ARCHIVE.steps, until })) await goOn(env, known.database.name);
}

/**
 * Calls no log before there was an event, and where a log is called that had none yet, it is created
 * beside the database: a schedule runs anywhere, and an object stays where it was created.
 */
async function maintainLogs(env: Env, now: number): Promise<void> {
  const region = await regionOnceBegun(env.DB);
  if (region === undefined) return;
  const placed = env.LOCATION_HINT === "" && region !== "" ? { ...env, LOCATION_HINT: region } : env;
  const logs = await Promise.all(MODES.map((livemode) => logOfMode(env, livemode)));
  await Promise.all([
    ...logs.flatMap((log) =>
      shardsOf(log).map((shard) =>
        eventLog(placed, shard)
          .nudge(contextOf(unrecorded(log)))
          .catch(loggedAs("a log was not nudged", { shard })),
      ),
    ),
    ...MODES.flatMap((livemode) => [
      auditLog(placed, livemode, now).catch(loggedAs("a log was not audited")),
      auditSums(placed, livemode, now).catch(loggedAs("sums were not audited")),
    ]),
    everyHour(placed, logs.flatMap(shardsOf), now).catch(loggedAs("sizes were not noted")),
  ]);
}

/** A log without its histories: what stands in for them while D1 does not answer must not be taken for the record. */
const unrecorded = (log: LogContext): LogContext => ({ ...log, placement: [], shards: [] });

/** Once an hour: notes the sizes, and warns of what will be full, and of archives that do not keep up. */
async function everyHour(env: Env, shards: readonly string[], now: number): Promise<void> {
  const hour = hourOf(now);
  if (await areNoted(env.DB, hour)) return;
  await Promise.all([
    noteSizesOf(env, shards, hour, now),
    ...archivedDatabases(env).map((known) =>
      warnOfArchive(env, known, now).catch(loggedAs("an archive was not looked at", { database: known.database.name })),
    ),
  ]);
}

/** Notes the sizes, and warns of what will be full. What does not answer is left out. `now` in ms. */
async function noteSizesOf(env: Env, shards: readonly string[], hour: number, now: number): Promise<void> {
  const { DATABASE_HIGH_WATER_MB, LOG_HIGH_WATER_MB } = settingsOf(env);
  const before = await readSizes(env.DB);
  const highWater = DATABASE_HIGH_WATER_MB * 1_000_000;
  const databases = MODES.flatMap((livemode) => eventsDatabases(env, livemode)).map(
    async ({ name, db }): Promise<Size> => {
      const bytes = await sizeOf(db);
      const days = databaseDaysLeft(before.get(name), bytes, highWater, now);
      if (bytes > NEARLY_FULL * highWater) logWarning("a database is nearly full", { database: name, bytes });
      else if (days !== undefined && days < FEW_DAYS.database) {
        logWarning("a database will be full within days", { database: name, days: Math.round(days * 10) / 10 });
      }
      return { name, hour, bytes, entries: 0 };
    },
  );
  const logs = shards.map(async (shard): Promise<Size> => {
    const { bytes, total } = await eventLog(env, shard).status();
    const days = logDaysLeft(before.get(shard), bytes, LOG_HIGH_WATER_MB * 1_000_000, now);
    if (days !== undefined && days < FEW_DAYS.log) {
      logWarning("a log will be full within hours", { shard, hours: Math.round(days * 24) });
    }
    return { name: shard, hour, bytes, entries: total };
  });
  const found = await Promise.allSettled([...databases, ...logs]);
  await noteSizes(
    env.DB,
    hour,
    found.flatMap((each) => (each.status === "fulfilled" ? [each.value] : [])),
  );
}
