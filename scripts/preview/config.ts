import path from "node:path";
import { z } from "zod";
import { CommandError } from "../command-error.ts";
import { withConfigFile } from "../deploy/config.ts";
import { ARCHIVE, CONFIG, type Target, targetOf } from "../deploy/target.ts";
import { CONTROL } from "../migrations.ts";
import { root } from "../wrangler.ts";
import type { PreviewNames } from "./names.ts";

/** The Worker's variable that says of which branch it is a preview. Nothing without it is touched. */
export const MARK = "PREVIEW_BRANCH";

/**
 * All that a preview knows how to have of its own. A setting that is not here may name something of
 * production's (a namespace, a route, another Worker), so there is no preview until it is.
 */
const Raw = z.strictObject({
  $schema: z.unknown().optional(),
  name: z.string(),
  main: z.string(),
  minify: z.unknown().optional(),
  keep_names: z.unknown().optional(),
  upload_source_maps: z.unknown().optional(),
  account_id: z.unknown().optional(),
  compatibility_date: z.unknown().optional(),
  compatibility_flags: z.unknown().optional(),
  limits: z.unknown().optional(),
  // Where production is reached. A preview has its workers.dev address alone.
  workers_dev: z.boolean().optional(),
  routes: z.array(z.looseObject({ pattern: z.string(), custom_domain: z.literal(true) })).optional(),
  vars: z.record(z.string(), z.unknown()),
  d1_databases: z.array(
    z.strictObject({
      ...{ binding: z.string(), database_name: z.string() },
      ...{ database_id: z.unknown().optional(), migrations_dir: z.unknown().optional() },
    }),
  ),
  r2_buckets: z.array(z.looseObject({ binding: z.literal(ARCHIVE) })).optional(),
  durable_objects: z.strictObject({
    bindings: z.array(z.strictObject({ name: z.string(), class_name: z.string() })),
  }),
  exports: z.unknown().optional(),
  queues: z.strictObject({
    producers: z.array(z.looseObject({ queue: z.string() })).default([]),
    consumers: z.array(z.looseObject({ queue: z.string(), dead_letter_queue: z.string().optional() })).default([]),
  }),
  ratelimits: z.array(z.looseObject({ namespace_id: z.string() })).default([]),
  triggers: z.strictObject({ crons: z.array(z.string()) }).optional(),
  observability: z.unknown().optional(),
  env: z.unknown().optional(),
});

/** The configuration of a preview: the top level of `raw` under other names. Throws a CommandError when it shares anything. */
export function previewConfig(raw: unknown, names: PreviewNames): object {
  const parsed = Raw.safeParse(raw);
  if (!parsed.success) {
    throw new CommandError(`a preview cannot have this of its own:\n${z.prettifyError(parsed.error)}`);
  }
  // Without a bucket its events stay in its databases: only an empty bucket could be deleted with it.
  const { env: _, routes: __, r2_buckets: ___, d1_databases: databases, queues, ...shared } = parsed.data;
  return {
    ...shared,
    name: names.worker,
    main: path.resolve(root, shared.main),
    workers_dev: true,
    vars: { ...shared.vars, [MARK]: names.branch },
    // One events database for each mode is enough.
    d1_databases: databases
      .filter(({ binding }) => !/^EVENTS_[1-9]/.test(binding))
      .map(({ binding, database_name: name }) => ({
        binding,
        database_name: binding === CONTROL ? names.worker : names.own(name),
      })),
    queues: {
      producers: queues.producers.map((producer) => ({ ...producer, queue: names.own(producer.queue) })),
      consumers: queues.consumers.map(({ queue, dead_letter_queue: dead, ...consumer }) => ({
        ...consumer,
        queue: names.own(queue),
        ...(dead === undefined ? {} : { dead_letter_queue: names.own(dead) }),
      })),
    },
    ratelimits: shared.ratelimits.map((limit) => ({ ...limit, namespace_id: names.rateLimit(limit.namespace_id) })),
  };
}

/** Gives a preview as what is to be deployed, for as long as `use` takes. */
export async function withPreview<T>(names: PreviewNames, use: (target: Target) => Promise<T>): Promise<T> {
  const { experimental_readRawConfig: readRawConfig } = await import("wrangler");
  const { rawConfig } = readRawConfig({ config: CONFIG }, { hideWarnings: true });
  return withConfigFile(names.worker, previewConfig(rawConfig, names), async (file) => use(await targetOf("", file)));
}
