// One workerd that runs several of this project's Workers from their wrangler.toml, in this process
// and without the proxies of `wrangler dev`, so that a bench measures the Workers. Its data lies in
// the folder for temporary files (TMPDIR), on a disk that syncs.
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readFileSync, rmSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { convertV4MiniflareOptions, Log, LogLevel, Miniflare } from "miniflare";
import { unstable_getMiniflareWorkerOptions, unstable_splitSqlQuery } from "wrangler";
import { SEED_LOCAL_KEYS } from "../scripts/local-keys.ts";
import { SCHEMA as BARE_SCHEMA } from "./bare/schema.ts";
import { processCpuMs, workerdChildren } from "./process-cpu.ts";

/** A Worker to run. Each has Durable Objects, a database and a queue of its own. */
export type WorkerSpec = {
  /** Also its host: `name.test`. */
  readonly name: string;
  /** Its wrangler.toml. */
  readonly config: string;
  /** What runs instead of the configuration's `main`. */
  readonly main?: string;
  readonly vars?: Readonly<Record<string, string>>;
  /** SQL that makes its database. */
  readonly schema: string;
};

const root = path.join(import.meta.dirname, "..");

const SCHEMA = readFileSync(path.join(root, "schema.sql"), "utf8") + SEED_LOCAL_KEYS;

/** edgemeter as it is deployed. */
export const EDGEMETER: WorkerSpec = { name: "edgemeter", config: "wrangler.toml", schema: SCHEMA };

/** What edgemeter is measured beside. */
export const BARE: WorkerSpec = { name: "bare", config: "bench/bare/wrangler.toml", schema: BARE_SCHEMA };

type Database = Awaited<ReturnType<Miniflare["getD1Database"]>>;

export type LocalWorkerd = {
  /** The address of all its Workers; the host header decides. */
  readonly url: URL;
  /** The database of a Worker, for SQL that does not belong to what is measured. */
  readonly database: (worker: WorkerSpec) => Promise<Database>;
  /** What the process has taken so far, all threads, user and system (ms). */
  readonly cpuMs: () => Promise<number>;
  readonly close: () => Promise<void>;
};

/** Starts these Workers. */
async function startWorkerd(specs: readonly WorkerSpec[]): Promise<LocalWorkerd> {
  const folder = await mkdtemp(path.join(tmpdir(), "edgemeter-bench-"));
  const remove = (): void => rmSync(folder, { recursive: true, force: true });
  process.once("exit", remove);
  const workers = [];
  for (const spec of specs) workers.push(await workerOptions(spec, folder));
  const before = await workerdChildren();
  const miniflare = new Miniflare(
    convertV4MiniflareOptions({
      workers,
      log: new Log(LogLevel.ERROR),
      resourcePersistencePath: path.join(folder, "state"),
    }),
  );
  const url = await miniflare.ready;
  const pid = (await workerdChildren()).find((child) => !before.includes(child));
  const database = (spec: WorkerSpec) => miniflare.getD1Database("DB", spec.name);
  for (const spec of specs) {
    const db = await database(spec);
    await db.batch(unstable_splitSqlQuery(spec.schema).map((statement) => db.prepare(statement)));
  }
  return {
    url,
    database,
    cpuMs: async () => (pid === undefined ? Number.NaN : processCpuMs(pid)),
    close: async () => {
      await miniflare.dispose();
      process.off("exit", remove);
      remove();
    },
  };
}

/** Runs `work` on these Workers, and ends them whatever comes of it. */
export async function withWorkerd<T>(
  specs: readonly WorkerSpec[],
  work: (workerd: LocalWorkerd) => Promise<T>,
): Promise<T> {
  const workerd = await startWorkerd(specs);
  try {
    return await work(workerd);
  } finally {
    await workerd.close();
  }
}

async function workerOptions({ name, config, main, vars }: WorkerSpec, folder: string) {
  // The rules for modules did their work in the bundle.
  const { modulesRules: _, ...options } = unstable_getMiniflareWorkerOptions(path.join(root, config)).workerOptions;
  const outdir = path.join(folder, name);
  await bundle(config, outdir, main === undefined ? [] : [main]);
  const { d1Databases, queueProducers, queueConsumers } = options;
  return {
    ...options,
    name,
    bindings: { ...Object(options.bindings), SESSION_SECRET: randomBytes(32).toString("base64url"), ...vars },
    d1Databases: mapValues(d1Databases, (_, binding) => `${name}-${binding}`),
    queueProducers: mapValues(queueProducers, ({ queueName }: { queueName: string }) => `${name}-${queueName}`),
    queueConsumers: Object.fromEntries(
      Object.entries(Object(queueConsumers)).map(([queue, consumer]) => [`${name}-${queue}`, Object(consumer)]),
    ),
    routes: [`${name}.test/*`],
    modules: true as const,
    modulesRoot: outdir,
    scriptPath: path.join(outdir, "index.js"),
  };
}

function mapValues<V, T>(record: unknown, map: (value: V, name: string) => T): Record<string, T> {
  return Object.fromEntries(Object.entries<V>(Object(record)).map(([name, value]) => [name, map(value, name)]));
}

/** Bundles a Worker as a deployment would; gives nothing but the files. */
export async function bundle(config: string, outdir: string, args: readonly string[] = []): Promise<void> {
  const wrangler = path.join(root, "node_modules/wrangler/bin/wrangler.js");
  await promisify(execFile)(
    process.execPath,
    [wrangler, "deploy", ...args, "--dry-run", "--config", config, "--outdir", outdir],
    { cwd: root, env: { ...process.env, WRANGLER_SEND_METRICS: "false" } },
  );
}
