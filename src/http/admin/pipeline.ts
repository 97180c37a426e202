import * as z from "zod";
import { type DatabaseStatus as DatabaseStatusFound, statusOfDatabase } from "../../aggregate/fill.ts";
import { type ArchivedDatabase, archivedDatabases } from "../../archive/archive.ts";
import { type ArchiveStatus, statusOfArchive } from "../../archive/status.ts";
import { listAudits } from "../../audit/progress.ts";
import { databaseDaysLeft, logDaysLeft, perDay, readSizes, type Size } from "../../catalog/sizes.ts";
import { ok } from "../../domain/result.ts";
import { HOUR_MS, SECOND_MS } from "../../domain/window.ts";
import { type Env, settingsOf } from "../../env.ts";
import type { LogStatus } from "../../log/entries.ts";
import { isLiveShard } from "../../log/shard-name.ts";
import { eventLog, logOfMode, shardsOf } from "../../log/shards.ts";
import { logError } from "../../logger.ts";
import { withTimeout } from "../../timeout.ts";
import { defineEndpoint } from "../endpoint.ts";
import { toUnix } from "../fields.ts";
import { ArchiveObject, archiveToWire } from "./archive-status.ts";
import { monthlyCost } from "./cost.ts";
import { OPERATIONS } from "./operations.ts";

/** How long a part of the pipeline is waited for (ms) before it counts as not reachable. */
const PATIENCE_MS = 3_000;

const daysLeftField = z
  .number()
  .nullable()
  .meta({ description: "Until it is full at its present pace; null while it does not grow or that is unknown." });

const ShardStatus = z.object({
  shard: z.string(),
  reachable: z.boolean(),
  entries_waiting: z.int().nullable().meta({
    description: "Events, cancellations and rejections (added up by meter and code) that are not in D1 yet.",
  }),
  oldest_wait_seconds: z.int().nullable(),
  groups_in_flight: z.int().nullable(),
  groups_resent: z.int().nullable().meta({ description: "Since the shard was last started." }),
  last_confirmed: z.int().nullable(),
  storage_bytes: z.int().nullable(),
  days_left: daysLeftField,
  moving_until: z.int().nullable().meta({
    description: "Until when it asks the shards that its keys came from; null once the log's last growth is a day old.",
  }),
});

const DatabaseStatus = z.object({
  database: z.string(),
  reachable: z.boolean(),
  bytes: z.int().nullable(),
  high_water_bytes: z.int().meta({ description: "Past it, what belongs here waits in the logs." }),
  days_left: daysLeftField,
  oldest_wait_seconds: z.int().nullable().meta({
    description: "Of what this database has not confirmed to the logs that are reachable; null when it has all.",
  }),
  live_slices: z.int().nullable(),
  oldest_slice: z
    .int()
    .nullable()
    .meta({ description: "When the first event of its oldest live slice can have come." }),
  dead_letters: z.int().nullable(),
  archive: ArchiveObject.nullable(),
});

const Cost = z.object({
  events_per_day: z.int(),
  if_streamed: z.number().meta({ description: "Dollars a month for them, all in streams of 100." }),
  if_sync: z.number().meta({
    description:
      "Dollars a month for them, one request each, in dense traffic; up to twice as much when they arrive one at a time.",
  }),
  storage: z.number().meta({ description: "Dollars a month for what databases and logs hold now." }),
});

const Pipeline = z
  .object({
    object: z.literal("edgemeter.pipeline"),
    entries_waiting: z.int().meta({ description: "Of all shards that are reachable." }),
    shards: z.array(ShardStatus),
    databases: z.array(DatabaseStatus),
    aggregator: z.object({ last_success: z.int().nullable() }),
    audits: z
      .array(z.object({ name: z.string(), checked: z.int(), repaired: z.int(), skipped: z.int(), updated: z.int() }))
      .nullable()
      .meta({
        description:
          "What the scheduled audits have checked, repaired and skipped so far; null while D1 does not respond.",
      }),
    estimated_cost: Cost.nullable().meta({
      description:
        "At the pace of the last day, beside the plan's $5 and without what it includes; null until there is an hour of it.",
    }),
  })
  .meta({ id: "Pipeline" });

const retrievePipeline = defineEndpoint({
  apiVersion: "v1",
  method: "get",
  path: "/v1/edgemeter/pipeline",
  tag: OPERATIONS,
  summary: "How the deployment is doing",
  description:
    "Numbers of the key's mode; a live key sees test mode's too. Responds also while D1 is down, if the key is known.",
  fields: {},
  response: Pipeline,
  handle: async ({ env, key, now }) => {
    const modes = key.livemode ? [true, false] : [false];
    const logs = await Promise.all(modes.map((livemode) => logOfMode(env, livemode)));
    const [shards, databases, sizes, audits] = await Promise.all([
      Promise.all(logs.flatMap(shardsOf).map((shard) => shardFound(env, shard))),
      Promise.all(
        archivedDatabases(env)
          .filter(({ livemode }) => modes.includes(livemode))
          .map(databaseFound),
      ),
      orNull(readSizes(env.DB), "sizes"),
      orNull(listAudits(env.DB), "audits"),
    ]);
    const confirmed = shards.flatMap(({ status }) => status?.lastConfirmed ?? []);
    const paces = { sizes: sizes ?? new Map(), now };
    const pipeline: z.output<typeof Pipeline> = {
      object: "edgemeter.pipeline",
      entries_waiting: shards.reduce((sum, { status }) => sum + (status?.entries ?? 0), 0),
      shards: shards.map((shard) => shardToWire(shard, paces, env)),
      databases: databases.map((database) => databaseToWire(database, shards, paces, env)),
      aggregator: { last_success: confirmed.length === 0 ? null : toUnix(Math.max(...confirmed)) },
      audits:
        audits
          ?.filter(({ name }) => key.livemode || /test/i.test(name))
          .map((audit) => ({ ...audit, updated: toUnix(audit.updated) })) ?? null,
      estimated_cost: costOf(shards, databases, paces),
    };
    return ok(pipeline);
  },
});

type ShardFound = { readonly shard: string; readonly status: LogStatus | null };

type DatabaseFound = {
  readonly known: ArchivedDatabase;
  readonly status: (DatabaseStatusFound & { readonly archive: ArchiveStatus }) | null;
};

/** What is known of how things grow. `now` in ms. */
type Paces = { readonly sizes: ReadonlyMap<string, readonly Size[]>; readonly now: number };

const shardFound = async (env: Env, shard: string): Promise<ShardFound> => ({
  shard,
  status: await orNull(eventLog(env, shard).status(), shard),
});

async function databaseFound(known: ArchivedDatabase): Promise<DatabaseFound> {
  const { name, db } = known.database;
  const both = Promise.all([statusOfDatabase(db), statusOfArchive(db)]);
  return {
    known,
    status: await orNull(
      both.then(([status, archive]) => ({ ...status, archive })),
      name,
    ),
  };
}

/** When the first entry was received (ms) that some log of a mode waits for its database at a place to confirm. */
function oldestOf(shards: readonly ShardFound[], place: number): number | undefined {
  const times = shards.flatMap(({ status }) => status?.oldestOf[place] ?? []);
  return times.length === 0 ? undefined : Math.min(...times);
}

const secondsSince = (time: number | undefined, now: number): number | null =>
  time === undefined ? null : Math.max(0, Math.round((now - time) / SECOND_MS));

function shardToWire({ shard, status }: ShardFound, { sizes, now }: Paces, env: Env): z.output<typeof ShardStatus> {
  const highWater = settingsOf(env).LOG_HIGH_WATER_MB * 1_000_000;
  return {
    shard,
    reachable: status !== null,
    entries_waiting: status?.entries ?? null,
    oldest_wait_seconds: secondsSince(status?.oldest, now),
    groups_in_flight: status?.inFlight ?? null,
    groups_resent: status?.resent ?? null,
    last_confirmed: status?.lastConfirmed === undefined ? null : toUnix(status.lastConfirmed),
    storage_bytes: status?.bytes ?? null,
    moving_until: status?.movingUntil === undefined ? null : toUnix(status.movingUntil),
    days_left: status && inDays(logDaysLeft(sizes.get(shard), status.bytes, highWater, now)),
  };
}

function databaseToWire(
  { known, status }: DatabaseFound,
  shards: readonly ShardFound[],
  { sizes, now }: Paces,
  env: Env,
): z.output<typeof DatabaseStatus> {
  const { livemode, place, database } = known;
  const { name } = database;
  const ofMode = shards.filter(({ shard }) => isLiveShard(shard) === livemode);
  const highWater = settingsOf(env).DATABASE_HIGH_WATER_MB * 1_000_000;
  const [first] = status?.slices ?? [];
  return {
    database: name,
    reachable: status !== null,
    bytes: status?.bytes ?? null,
    high_water_bytes: highWater,
    days_left: status && inDays(databaseDaysLeft(sizes.get(name), status.bytes, highWater, now)),
    oldest_wait_seconds: secondsSince(oldestOf(ofMode, place), now),
    live_slices: status?.slices.length ?? null,
    oldest_slice: first === undefined ? null : toUnix(first * HOUR_MS),
    dead_letters: status?.deadLetters ?? null,
    archive: status && archiveToWire(env, known, status.archive, ofMode, now),
  };
}

const inDays = (days: number | undefined): number | null => (days === undefined ? null : Math.round(days * 10) / 10);

function costOf(
  shards: readonly ShardFound[],
  databases: readonly DatabaseFound[],
  { sizes, now }: Paces,
): z.output<typeof Cost> | null {
  const paces = shards.flatMap(({ shard, status }) =>
    status === null ? [] : (perDay(sizes.get(shard), "entries", { value: status.total, now }, 24) ?? []),
  );
  if (paces.length === 0) return null;
  const entriesPerDay = paces.reduce((sum, pace) => sum + pace, 0);
  const cost = monthlyCost({
    entriesPerDay,
    databaseBytes: databases.reduce((sum, { status }) => sum + (status?.bytes ?? 0), 0),
    logBytes: shards.reduce((sum, { status }) => sum + (status?.bytes ?? 0), 0),
  });
  return {
    events_per_day: Math.round(entriesPerDay),
    if_streamed: cost.ifStreamed,
    if_sync: cost.ifSync,
    storage: cost.storage,
  };
}

/** What a part of the pipeline says; null when it does not respond, so that the rest can be seen. */
async function orNull<T>(status: Promise<T>, part: string): Promise<T | null> {
  try {
    return await withTimeout(status, PATIENCE_MS);
  } catch (error) {
    logError("a part of the pipeline did not answer", error, { part });
    return null;
  }
}

export const pipelineEndpoints = [retrievePipeline];
