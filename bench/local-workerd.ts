// One workerd that runs several Workers from their wrangler.toml, in this process and without the proxies of
// `wrangler dev`, so that a bench measures the Workers.
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { convertV4MiniflareOptions, Log, LogLevel, Miniflare } from "miniflare";
import { unstable_getMiniflareWorkerOptions, unstable_readConfig, unstable_splitSqlQuery } from "wrangler";
import { root, scratch, type Worker } from "./sides.ts";
import { unlimited } from "./unlimited.ts";

export type Database = Awaited<ReturnType<Miniflare["getD1Database"]>>;

export type LocalWorkerd = {
  /** The address of all its Workers; the host header decides. */
  readonly url: URL;
  /** A Worker's database, for SQL that does not belong to what is measured. */
  readonly database: (worker: Worker, binding: string) => Promise<Database>;
};

/** Runs `work` on these Workers, and ends them whatever comes of it. */
export async function withWorkerd<T>(
  workers: readonly Worker[],
  work: (workerd: LocalWorkerd) => Promise<T>,
): Promise<T> {
  const resourcePersistencePath = await mkdtemp(path.join(scratch, "state-"));
  const options = await Promise.all(workers.map(workerOptions));
  const log = new Log(LogLevel.ERROR);
  const miniflare = new Miniflare(convertV4MiniflareOptions({ workers: options, log, resourcePersistencePath }));
  const database = ({ name }: Worker, binding: string) => miniflare.getD1Database(binding, name);
  try {
    const url = await miniflare.ready;
    for (const worker of workers) {
      for (const [binding, schema] of Object.entries(worker.databases)) {
        const db = await database(worker, binding);
        await db.batch(unstable_splitSqlQuery(schema).map((statement) => db.prepare(statement)));
      }
    }
    return await work({ url, database });
  } finally {
    await miniflare.dispose();
    await rm(resourcePersistencePath, { recursive: true, force: true });
  }
}

/** Linux counts processor time in hundredths of a second, whatever its own clock does (USER_HZ). */
const TICK_MS = 10;

/** User and system time of the running workerd, all its threads, so far (ms). Nothing but 0 where there is no /proc. */
export async function cpuMs(): Promise<number> {
  const pids = (await readdir("/proc").catch(() => [])).filter((name) => /^\d+$/.test(name));
  const stats = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/stat`, "utf8").catch(() => "")));
  // The command stands in brackets; of what follows, the parent is the second and the times are the twelfth and next.
  const workerd = stats
    .filter((stat) => stat.includes(`(workerd) `))
    .map((stat) => stat.split(") ")[1]?.split(" ") ?? []);
  const own = workerd.filter(([, parent]) => Number(parent) === process.pid);
  return own.reduce((total, fields) => total + (Number(fields[11]) + Number(fields[12])) * TICK_MS, 0);
}

/** Databases and queues get names of their Worker's, and its rate limits never refuse. */
async function workerOptions(worker: Worker) {
  const { name, config, vars } = worker;
  // The rules for modules did their work in the bundle.
  const { modulesRules: _, ratelimits, ...options } = unstable_getMiniflareWorkerOptions(config).workerOptions;
  const objects = Object.values(Object(options.durableObjects)).map((object) => String(Object(object).className));
  const modulesRoot = await bundled(worker, objects);
  const own = (text: unknown): string => `${name}-${text}`;
  return {
    ...options,
    name,
    bindings: { ...Object(options.bindings), SESSION_SECRET: randomBytes(32).toString("base64url"), ...vars },
    unsafeBindings: Object.keys(Object(ratelimits)).map(unlimited),
    d1Databases: mapEntries(worker.databases, (binding) => [binding, own(binding)]),
    queueProducers: mapEntries(options.queueProducers, (binding, { queueName }) => [binding, own(queueName)]),
    queueConsumers: mapEntries(options.queueConsumers, (queue, consumer) => [own(queue), Object(consumer)]),
    routes: [`${name}.test/*`],
    modules: true as const,
    modulesRoot,
    scriptPath: path.join(modulesRoot, "index.js"),
  };
}

function mapEntries<T>(record: unknown, map: (name: string, value: Record<string, unknown>) => [string, T]) {
  return Object.fromEntries(Object.entries(Object(record)).map(([name, value]) => map(name, Object(value))));
}

const bundles = new Map<string, Promise<string>>();

/** The folder with a Worker's bundle, which is made once. A counted one has the Worker inside, of whatever commit. */
function bundled({ config, counted = false }: Worker, objects: readonly string[]): Promise<string> {
  const key = `${config} ${counted}`;
  const make = async () => bundle(config, counted ? [await countedEntry(config, objects)] : []);
  const made = bundles.get(key) ?? make();
  bundles.set(key, made);
  return made;
}

/** Bundles a Worker as a deployment would; gives the folder with nothing but its files. */
export async function bundle(config: string, args: readonly string[]): Promise<string> {
  const outdir = await mkdtemp(path.join(scratch, "bundle-"));
  const wrangler = path.join(root, "node_modules/wrangler/bin/wrangler.js");
  const command = [wrangler, "deploy", ...args, "--dry-run", "--config", config, "--outdir", outdir];
  const env = { ...process.env, WRANGLER_SEND_METRICS: "false" };
  await promisify(execFile)(process.execPath, command, { cwd: path.dirname(config), env });
  return outdir;
}

async function countedEntry(config: string, objects: readonly string[]): Promise<string> {
  const entry = path.join(await mkdtemp(path.join(scratch, "entry-")), "index.js");
  const lines = [
    `import * as edgemeter from ${JSON.stringify(unstable_readConfig({ config }).main)};`,
    `import { countedObject, countedWorker } from ${JSON.stringify(path.join(root, "bench/counted/index.ts"))};`,
    ...objects.map((name) => `export class ${name} extends countedObject(edgemeter.${name}) {}`),
    "export default countedWorker(edgemeter.default);",
  ];
  await writeFile(entry, lines.join("\n"));
  return entry;
}
