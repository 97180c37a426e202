import { countDeadLetters } from "../../aggregate/dead-letters.ts";
import { listAudits } from "../../audit/progress.ts";
import { eventsDatabase } from "../../catalog/placement.ts";
import { ok } from "../../domain/result.ts";
import { SECOND_MS } from "../../domain/window.ts";
import type { Env } from "../../env.ts";
import type { LogStatus } from "../../log/entries.ts";
import { allShards, eventLog } from "../../log/shards.ts";
import { logError } from "../../logger.ts";
import { withTimeout } from "../../timeout.ts";
import { defineEndpoint } from "../endpoint.ts";
import { toUnix } from "../fields.ts";
import * as z from "../zod.ts";
import { OPERATIONS } from "./operations.ts";

/** How long a part of the pipeline is waited for (ms) before it counts as not reachable. */
const PATIENCE_MS = 3_000;

const ShardStatus = z.object({
  shard: z.int(),
  reachable: z.boolean(),
  entries_waiting: z
    .int()
    .nullable()
    .openapi({ description: "Events, cancellations and rejections that are not in D1 yet." }),
  oldest_wait_seconds: z.int().nullable(),
  groups_in_flight: z.int().nullable(),
  groups_resent: z.int().nullable().openapi({ description: "Since the shard was last started." }),
  last_confirmed: z.int().nullable(),
  storage_bytes: z.int().nullable(),
});

const Pipeline = z
  .object({
    object: z.literal("edgemeter.pipeline"),
    entries_waiting: z.int().openapi({ description: "Of all shards that are reachable." }),
    shards: z.array(ShardStatus),
    aggregator: z.object({ last_success: z.int().nullable() }),
    dead_letters: z
      .object({ live: z.int(), test: z.int() })
      .nullable()
      .openapi({ description: "null while D1 does not respond." }),
    audits: z
      .array(z.object({ name: z.string(), checked: z.int(), repaired: z.int(), updated: z.int() }))
      .nullable()
      .openapi({
        description: "What the scheduled audit has checked and repaired so far; null while D1 does not respond.",
      }),
  })
  .openapi("Pipeline");

const retrievePipeline = defineEndpoint({
  apiVersion: "v1",
  method: "get",
  path: "/v1/edgemeter/pipeline",
  tag: OPERATIONS,
  summary: "How the deployment is doing",
  description:
    "Numbers about the whole deployment, of both modes together. Responds also while D1 is down, if the key is known.",
  fields: {},
  response: Pipeline,
  handle: async ({ env, now }) => {
    const db = eventsDatabase(env);
    const [statuses, deadLetters, audits] = await Promise.all([
      Promise.all(allShards(env).map((shard) => statusOf(env, shard))),
      orNull(countDeadLetters(db)),
      orNull(listAudits(db)),
    ]);
    const confirmed = statuses.flatMap((status) => status?.lastConfirmed ?? []);
    const pipeline: z.output<typeof Pipeline> = {
      object: "edgemeter.pipeline",
      entries_waiting: statuses.reduce((sum, status) => sum + (status?.entries ?? 0), 0),
      shards: statuses.map((status, shard) => toWire(shard, status, now)),
      aggregator: { last_success: confirmed.length === 0 ? null : toUnix(Math.max(...confirmed)) },
      dead_letters: deadLetters,
      audits: audits?.map((audit) => ({ ...audit, updated: toUnix(audit.updated) })) ?? null,
    };
    return ok(pipeline);
  },
});

const statusOf = (env: Env, shard: number): Promise<LogStatus | null> =>
  orNull(eventLog(env, shard).status(), { shard });

const toWire = (shard: number, status: LogStatus | null, now: number): z.output<typeof ShardStatus> => ({
  shard,
  reachable: status !== null,
  entries_waiting: status?.entries ?? null,
  oldest_wait_seconds: status?.oldest === undefined ? null : Math.max(0, Math.round((now - status.oldest) / SECOND_MS)),
  groups_in_flight: status?.inFlight ?? null,
  groups_resent: status?.resent ?? null,
  last_confirmed: status?.lastConfirmed === undefined ? null : toUnix(status.lastConfirmed),
  storage_bytes: status?.bytes ?? null,
});

/** What a part of the pipeline says; null when it does not respond, so that the rest can be seen. */
async function orNull<T>(status: Promise<T>, fields: { shard?: number } = {}): Promise<T | null> {
  try {
    return await withTimeout(status, PATIENCE_MS);
  } catch (error) {
    logError("a part of the pipeline did not answer", error, fields);
    return null;
  }
}

export const pipelineEndpoints = [retrievePipeline];
