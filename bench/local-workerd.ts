// One workerd that runs several of this project's Workers from their own wrangler.toml, in this
// process and without the proxies of `wrangler dev`, so that a bench measures the Workers.
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { convertV4MiniflareOptions, Log, LogLevel, Miniflare } from "miniflare";
import { unstable_getMiniflareWorkerOptions, unstable_readConfig, unstable_splitSqlQuery } from "wrangler";
import { SEED_LOCAL_KEYS } from "../scripts/local-keys.ts";

const root = path.join(import.meta.dirname, "..");

export type LocalWorkerd = { readonly url: URL; readonly close: () => Promise<void> };

/** Starts the Workers of these configurations; the first answers every host without a route of its own. */
export async function startWorkerd(configs: readonly string[]): Promise<LocalWorkerd> {
  const folder = await mkdtemp(path.join(tmpdir(), "edgemeter-bench-"));
  const workers = await Promise.all(configs.map((config) => workerOptions(path.join(root, config), folder)));
  const miniflare = new Miniflare(
    convertV4MiniflareOptions({
      workers,
      log: new Log(LogLevel.ERROR),
      resourcePersistencePath: path.join(folder, "state"),
    }),
  );
  const url = await miniflare.ready;
  const db = await miniflare.getD1Database("DB");
  const schema = (await readFile(path.join(root, "schema.sql"), "utf8")) + SEED_LOCAL_KEYS;
  await db.batch(unstable_splitSqlQuery(schema).map((statement) => db.prepare(statement)));
  return {
    url,
    close: async () => {
      await miniflare.dispose();
      await rm(folder, { recursive: true });
    },
  };
}

async function workerOptions(config: string, folder: string) {
  // The rules for modules did their work in the bundle.
  const { modulesRules: _, ...options } = unstable_getMiniflareWorkerOptions(config).workerOptions;
  const { name = config, routes = [] } = unstable_readConfig({ config });
  const outdir = path.join(folder, name);
  const wrangler = path.join(root, "node_modules/wrangler/bin/wrangler.js");
  await promisify(execFile)(
    process.execPath,
    [wrangler, "deploy", "--dry-run", "--config", config, "--outdir", outdir],
    {
      env: { ...process.env, WRANGLER_SEND_METRICS: "false" },
    },
  );
  return {
    ...options,
    name,
    bindings: { ...Object(options.bindings), SESSION_SECRET: randomBytes(32).toString("base64url") },
    routes: routes.map(String),
    modules: true as const,
    modulesRoot: outdir,
    scriptPath: path.join(outdir, "index.js"),
  };
}
