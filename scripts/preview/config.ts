import { mkdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { z } from "zod";
import { CommandError } from "../command-error.ts";
import { root } from "../wrangler.ts";
import type { PreviewNames } from "./names.ts";

/** The Worker's variable that says of which branch it is a preview. Nothing without it is touched. */
export const MARK = "PREVIEW_BRANCH";

/**
 * All that a preview knows how to have of its own. A setting that is not here may name something of
 * production's (a bucket, a route, another Worker), so there is no preview until it is.
 */
const Raw = z.strictObject({
  $schema: z.unknown().optional(),
  name: z.string(),
  main: z.string(),
  account_id: z.unknown().optional(),
  compatibility_date: z.unknown().optional(),
  compatibility_flags: z.unknown().optional(),
  limits: z.unknown().optional(),
  // Where production is reached. A preview has its workers.dev address alone.
  workers_dev: z.boolean().optional(),
  routes: z.array(z.looseObject({ pattern: z.string(), custom_domain: z.literal(true) })).optional(),
  vars: z.record(z.string(), z.unknown()),
  d1_databases: z.tuple([
    z.strictObject({ binding: z.string(), database_name: z.string(), database_id: z.unknown().optional() }),
  ]),
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
  const { env: _, routes: __, d1_databases: databases, queues, ...shared } = parsed.data;
  return {
    ...shared,
    name: names.worker,
    main: path.resolve(root, shared.main),
    workers_dev: true,
    vars: { ...shared.vars, [MARK]: names.branch },
    d1_databases: databases.map(({ binding }) => ({ binding, database_name: names.worker })),
    queues: {
      producers: queues.producers.map((producer) => ({ ...producer, queue: names.queue(producer.queue) })),
      consumers: queues.consumers.map(({ queue, dead_letter_queue: dead, ...consumer }) => ({
        ...consumer,
        queue: names.queue(queue),
        ...(dead === undefined ? {} : { dead_letter_queue: names.queue(dead) }),
      })),
    },
    ratelimits: shared.ratelimits.map((limit) => ({ ...limit, namespace_id: names.rateLimit(limit.namespace_id) })),
  };
}

const folderOf = ({ worker }: PreviewNames): string => path.join(root, ".wrangler/previews", worker);

/** Writes a preview's configuration where wrangler can read it and git does not, and says where. */
export async function writePreviewConfig(names: PreviewNames): Promise<string> {
  const { experimental_readRawConfig: readRawConfig } = await import("wrangler");
  const { rawConfig } = readRawConfig({ config: path.join(root, "wrangler.toml") }, { hideWarnings: true });
  const file = path.join(folderOf(names), "wrangler.json");
  await mkdir(path.dirname(file), { recursive: true });
  await writeFile(file, JSON.stringify(previewConfig(rawConfig, names), null, 2));
  return file;
}

export const removePreviewConfig = (names: PreviewNames): Promise<void> =>
  rm(folderOf(names), { recursive: true, force: true });
