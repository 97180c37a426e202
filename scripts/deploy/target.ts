import path from "node:path";
import { z } from "zod";
import { CommandError } from "../command-error.ts";
import { liveDatabases, type Sizes, sizesOf } from "../growth.ts";
import { CONTROL } from "../migrations.ts";
import { root } from "../wrangler.ts";
import { fingerprintOf } from "./fingerprint.ts";
import { HINTS } from "./region.ts";

const Consumer = z
  .object({
    queue: z.string(),
    max_batch_size: z.number().optional(),
    max_batch_timeout: z.number().optional(),
    max_retries: z.number().optional(),
    max_concurrency: z.number().nullish(),
    dead_letter_queue: z.string().optional(),
  })
  .transform(({ queue, dead_letter_queue, ...read }) => ({
    queues: dead_letter_queue === undefined ? [queue] : [queue, dead_letter_queue],
    settings: {
      batch_size: read.max_batch_size,
      max_retries: read.max_retries,
      max_wait_time_ms: read.max_batch_timeout === undefined ? undefined : read.max_batch_timeout * 1_000,
      max_concurrency: read.max_concurrency ?? undefined,
    },
    queue,
  }));

/** How a Worker takes a queue's messages. */
type Consumer = Readonly<Pick<z.output<typeof Consumer>, "queue" | "settings">>;

/** Where data may be kept; "" for anywhere. */
export type Jurisdiction = "" | "eu" | "fedramp";

/** A D1 database, and what the Worker calls it. */
export type TargetDatabase = { readonly binding: string; readonly name: string };

/** The binding of the archive's bucket. */
export const ARCHIVE = "ARCHIVE";

/** An R2 bucket, by its name within a jurisdiction ("" for none). */
export type TargetBucket = { readonly name: string; readonly jurisdiction: string };

/** What is to be on the account, by names: all that the deployment needs of a wrangler configuration. */
export type Target = {
  /** Wrangler's configuration, and the environment of it ("": its top level). */
  readonly file: string;
  readonly env: string;
  /** Of the configuration, when it names one. */
  readonly account: string | undefined;
  readonly worker: string;
  /** The control database first. */
  readonly databases: readonly [TargetDatabase, ...TargetDatabase[]];
  /** LOCATION_HINT, "" for none. */
  readonly locationHint: string;
  readonly jurisdiction: Jurisdiction;
  /** The archive's; without one, events stay in the databases. */
  readonly bucket: TargetBucket | undefined;
  readonly sizes: Sizes;
  readonly queues: readonly string[];
  readonly consumers: readonly Consumer[];
  readonly crons: readonly string[];
  /** Whether it is to have a workers.dev address. */
  readonly isPublic: boolean;
  /** The custom domains that it is to have. */
  readonly domains: readonly string[];
  /** Of code and settings: a deployed version that carries it is this one. */
  readonly fingerprint: string;
};

/** The configuration of the project. */
export const CONFIG = path.join(root, "wrangler.toml");

const Route = z.union([z.string(), z.object({ pattern: z.string(), custom_domain: z.boolean().optional() })]);

const Shards = z.coerce.number().int().min(1).max(1_000);

/** The control database, then live mode's without a gap, then test mode's: each once, under a name of its own. */
const Databases = z.array(z.object({ binding: z.string(), database_name: z.string() })).transform((blocks, context) => {
  const live = Math.max(1, liveDatabases(blocks.map(({ binding }) => binding)));
  const wanted = [CONTROL, ...Array.from({ length: live }, (_, place) => `EVENTS_${place}`), "TEST_EVENTS"];
  const databases = wanted.flatMap((wants) =>
    blocks.flatMap(({ binding, database_name: name }) => (binding === wants ? [{ binding, name }] : [])),
  );
  const [control, ...others] = databases;
  const isWhole = databases.map(({ binding }) => binding).join() === wanted.join() && blocks.length === wanted.length;
  const names = new Set(databases.map(({ name }) => name));
  if (isWhole && names.size === wanted.length && control !== undefined) return [control, ...others] as const;
  context.addIssue(`there must be ${wanted.join(", ")}, each once, and each with a database_name of its own`);
  return z.NEVER;
});

const Bucket = z.object({ binding: z.string(), bucket_name: z.string(), jurisdiction: z.string().optional() });

/** As much of wrangler's configuration as is needed here. */
const Config = z.object({
  name: z.string(),
  account_id: z.string().optional(),
  definedEnvironments: z.array(z.string()).default([]),
  workers_dev: z.boolean().optional(),
  routes: z.array(Route).default([]),
  d1_databases: Databases,
  r2_buckets: z.array(Bucket).default([]),
  queues: z.object({
    producers: z.array(z.object({ queue: z.string() })).default([]),
    consumers: z.array(Consumer).default([]),
  }),
  triggers: z.object({ crons: z.array(z.string()).default([]) }),
  // As src/env.ts takes them, which reads them only once the Worker runs.
  vars: z.object({
    EVENT_LOG_SHARDS: Shards,
    TEST_EVENT_LOG_SHARDS: Shards,
    LOCATION_HINT: z.enum(["", ...HINTS]),
    JURISDICTION: z.enum(["", "eu", "fedramp"]),
  }),
});

/**
 * The top level of wrangler.toml, or of another configuration, or an environment of it. Throws a CommandError for one that it has not:
 * wrangler itself would only warn, and take a mixture of both.
 */
export async function targetOf(env = "", file = CONFIG): Promise<Target> {
  const { environments, domains } = await configured(file);
  if (env !== "" && !environments.includes(env)) {
    throw new CommandError(`wrangler.toml has no environment '${env}', only ${environments.join(", ")}.`);
  }
  const target = await read(file, env);
  const shared = env === "" ? undefined : target.domains.find((domain) => domains.includes(domain));
  if (shared !== undefined) {
    throw new CommandError(
      `'${env}' would take production's domain ${shared}: an environment inherits routes, so give [env.${env}] its own, or routes = [].`,
    );
  }
  return target;
}

/** The names of wrangler.toml: of its Worker, and of its environments. */
export async function configuredNames(): Promise<{
  readonly worker: string;
  readonly environments: readonly string[];
}> {
  const { worker, environments } = await configured(CONFIG);
  return { worker, environments };
}

async function configured(file: string) {
  const { name, definedEnvironments, routes } = parsed(file, await settingsOf(file, ""));
  return { worker: name, environments: definedEnvironments, domains: customDomains(routes) };
}

const customDomains = (routes: readonly z.output<typeof Route>[]): string[] =>
  routes.flatMap((route) => (typeof route === "object" && route.custom_domain === true ? [route.pattern] : []));

async function settingsOf(file: string, env: string): Promise<object> {
  const { unstable_readConfig: readConfig } = await import("wrangler");
  try {
    return readConfig({ config: file, env }, { hideWarnings: true });
  } catch (error) {
    throw new CommandError(error instanceof Error ? error.message : String(error));
  }
}

/** Throws a CommandError of one line that names every setting with a wrong value. */
function parsed(file: string, settings: object): z.output<typeof Config> {
  const { success, data, error } = Config.safeParse(settings);
  if (success) return data;
  const faults = error.issues.map((issue) => `${z.core.toDotPath(issue.path)}: ${issue.message}`);
  throw new CommandError(`${path.basename(file)}: ${faults.join("; ")}`);
}

async function read(file: string, env: string): Promise<Target> {
  const settings = await settingsOf(file, env);
  const config = parsed(file, settings);
  const { producers, consumers } = config.queues;
  const { name, account_id, d1_databases, r2_buckets, vars, triggers, routes, workers_dev } = config;
  refuseContradiction(vars);
  return {
    file,
    env,
    account: account_id,
    worker: name,
    databases: d1_databases,
    locationHint: vars.LOCATION_HINT,
    jurisdiction: vars.JURISDICTION,
    bucket: bucketOf(r2_buckets, vars.JURISDICTION),
    sizes: sizesOf(
      d1_databases.map(({ binding }) => binding),
      vars,
    ),
    queues: [...new Set([...producers.map(({ queue }) => queue), ...consumers.flatMap(({ queues }) => queues)])],
    consumers,
    crons: triggers.crons,
    // As wrangler takes it.
    isPublic: workers_dev ?? routes.length === 0,
    domains: customDomains(routes),
    fingerprint: await fingerprintOf(settings),
  };
}

const HINTS_WITHIN: Record<Exclude<Jurisdiction, "">, readonly string[]> = {
  eu: ["", "weur", "eeur"],
  fedramp: ["", "wnam", "enam"],
};

function refuseContradiction({
  LOCATION_HINT: hint,
  JURISDICTION: jurisdiction,
}: z.output<typeof Config>["vars"]): void {
  if (jurisdiction === "" || HINTS_WITHIN[jurisdiction].includes(hint)) return;
  throw new CommandError(`LOCATION_HINT = "${hint}" is outside of JURISDICTION = "${jurisdiction}".`);
}

/** A bucket is kept in JURISDICTION, unless its block has one of its own. Throws a CommandError for one outside of it. */
function bucketOf(buckets: readonly z.output<typeof Bucket>[], within: Jurisdiction): TargetBucket | undefined {
  const bucket = buckets.find(({ binding }) => binding === ARCHIVE);
  if (bucket === undefined) return undefined;
  const { bucket_name: name, jurisdiction = within } = bucket;
  if (within === "" || jurisdiction === within) return { name, jurisdiction };
  throw new CommandError(
    `the bucket ${name} with jurisdiction = "${jurisdiction}" is outside of JURISDICTION = "${within}".`,
  );
}
