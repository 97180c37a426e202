import path from "node:path";
import { z } from "zod";
import { CommandError } from "../command-error.ts";
import { root } from "../wrangler.ts";
import { fingerprintOf } from "./fingerprint.ts";
import { type Region, regionOf } from "./region.ts";

/** How a Worker takes a queue's messages. */
export type Consumer = {
  readonly queue: string;
  readonly settings: Readonly<Record<"batch_size" | "max_retries" | "max_wait_time_ms", number | undefined>>;
};

/** What is to be on the account, by names: all that the deployment needs of a wrangler configuration. */
export type Target = {
  /** What wrangler is to be told, so that it reads the same configuration. */
  readonly args: readonly string[];
  /** Of the configuration, when it names one. */
  readonly account: string | undefined;
  readonly worker: string;
  readonly database: string;
  /** Where the database is made; `undefined`: near whoever makes it. */
  readonly region: Region | undefined;
  readonly queues: readonly string[];
  readonly consumers: readonly Consumer[];
  readonly crons: readonly string[];
  /** Of code and settings: a deployed version that carries it is this one. */
  readonly fingerprint: string;
};

const CONFIG = path.join(root, "wrangler.toml");

/** As much of wrangler's configuration as is needed here. */
const Config = z.object({
  name: z.string(),
  account_id: z.string().optional(),
  definedEnvironments: z.array(z.string()).default([]),
  d1_databases: z.tuple([z.object({ binding: z.literal("DB"), database_name: z.string() })]),
  queues: z.object({
    producers: z.array(z.object({ queue: z.string() })).default([]),
    consumers: z
      .array(
        z.object({
          queue: z.string(),
          max_batch_size: z.number().optional(),
          max_batch_timeout: z.number().optional(),
          max_retries: z.number().optional(),
          dead_letter_queue: z.string().optional(),
        }),
      )
      .default([]),
  }),
  triggers: z.object({ crons: z.array(z.string()).default([]) }),
  vars: z.object({ LOCATION_HINT: z.string() }),
});

/**
 * wrangler.toml's top level, or an environment of it. Throws a CommandError for one that it has not:
 * wrangler itself would only warn, and take a mixture of both.
 */
export async function targetOf(env = ""): Promise<Target> {
  const { environments } = await configuredNames();
  if (env !== "" && !environments.includes(env)) {
    throw new CommandError(`wrangler.toml has no environment '${env}', only ${environments.join(", ")}.`);
  }
  return read(CONFIG, env);
}

/** Another configuration, which has no environments. */
export const targetOfFile = (file: string): Promise<Target> => read(file, "");

/** The names of wrangler.toml: of its Worker, and of its environments. */
export async function configuredNames(): Promise<{
  readonly worker: string;
  readonly environments: readonly string[];
}> {
  const { name, definedEnvironments } = Config.parse(await settingsOf(CONFIG, ""));
  return { worker: name, environments: definedEnvironments };
}

async function settingsOf(file: string, env: string): Promise<object> {
  const { unstable_readConfig: readConfig } = await import("wrangler");
  try {
    return readConfig({ config: file, env }, { hideWarnings: true });
  } catch (error) {
    throw new CommandError(error instanceof Error ? error.message : String(error));
  }
}

async function read(file: string, env: string): Promise<Target> {
  const settings = await settingsOf(file, env);
  const config = Config.parse(settings);
  const { producers, consumers } = config.queues;
  return {
    args: ["--config", file, "--env", env],
    account: config.account_id,
    worker: config.name,
    database: config.d1_databases[0].database_name,
    region: regionOf(config.vars.LOCATION_HINT),
    queues: [
      ...new Set([
        ...producers.map(({ queue }) => queue),
        ...consumers.flatMap(({ queue, dead_letter_queue: dead }) => (dead === undefined ? [queue] : [queue, dead])),
      ]),
    ],
    consumers: consumers.map(({ queue, max_batch_size, max_batch_timeout, max_retries }) => ({
      queue,
      settings: {
        batch_size: max_batch_size,
        max_retries,
        max_wait_time_ms: max_batch_timeout === undefined ? undefined : max_batch_timeout * 1_000,
      },
    })),
    crons: config.triggers.crons,
    fingerprint: await fingerprintOf(settings),
  };
}
