// The databases of a local server, whether it runs or not: in a workerd of this process, on the server's files.
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { setTimeout } from "node:timers/promises";
import { convertV4MiniflareOptions, Miniflare } from "miniflare";
import { unstable_getMiniflareWorkerOptions, unstable_splitSqlQuery } from "wrangler";
import { z } from "zod";
import { CommandError } from "./command-error.ts";
import { growthsOf, READ_SIZES, recordGrowth, type Sizes, sizesOf } from "./growth.ts";
import { reasonOf } from "./http.ts";
import { SEED_LOCAL_KEYS } from "./local-keys.ts";
import { CONTROL, migrate, migrationsOf } from "./migrations.ts";
import type { RunSql } from "./sql.ts";
import { root } from "./wrangler.ts";

/** By binding, how a local server knows them. */
const Databases = z.record(z.string(), z.object({ id: z.string() }));

/** What workerd says of a database that the server or another command writes to. */
const BUSY = /SQLITE_BUSY|database is locked|internal error/;

/** How long a busy database is waited for, and how long between two attempts (ms). */
const PATIENCE_MS = 60_000;
const PAUSE_MS = 250;

/** The databases of a local server, by their bindings. What they run throws a CommandError with the database's words. */
export type LocalDatabases = {
  readonly bindings: readonly string[];
  readonly run: (binding: string) => RunSql;
  readonly sizes: Sizes;
};

/** Gives `use` the databases in the folder of a local server, as a configuration names them, and closes them after it. */
export async function withLocalDatabases<T>(
  stateDir: string,
  use: (databases: LocalDatabases) => Promise<T>,
  config = path.join(root, "wrangler.toml"),
): Promise<T> {
  const { workerOptions } = unstable_getMiniflareWorkerOptions(config);
  const d1Databases = Databases.parse(workerOptions.d1Databases);
  const resourcePersistencePath = path.join(stateDir, "v3");
  await mkdir(resourcePersistencePath, { recursive: true });
  // What failed inside of workerd is in its log alone.
  let logged = "";
  const handleStructuredLogs = ({ message }: { readonly message: string }): void => {
    logged = ` (${message})`;
  };
  const options = { modules: true, script: "", resourcePersistencePath, d1Databases, handleStructuredLogs } as const;
  const miniflare = new Miniflare(convertV4MiniflareOptions(options));
  const run = (binding: string) => async (sql: string) => {
    const database = await miniflare.getD1Database(binding);
    const statements = unstable_splitSqlQuery(sql).map((statement) => database.prepare(statement));
    try {
      const results = await whenNotBusy(() => database.batch<Record<string, unknown>>(statements));
      return results.map((result) => result.results);
    } catch (error) {
      throw new CommandError(`the local database: ${reasonOf(error)}${logged}`);
    }
  };
  try {
    const bindings = Object.keys(d1Databases);
    return await use({ bindings, run, sizes: sizesOf(bindings, workerOptions.bindings ?? {}) });
  } finally {
    await miniflare.dispose();
  }
}

/**
 * Brings the databases of a local server to the newest migration, puts the local keys in, and has all of the databases
 * and shards used at once. Throws a CommandError when wrangler.toml has fewer than are in use, or no multiple of a log's.
 */
export const prepareLocal = (stateDir: string, config?: string): Promise<void> =>
  withLocalDatabases(stateDir, prepare, config);

async function prepare({ bindings, run, sizes }: LocalDatabases): Promise<void> {
  const control = run(CONTROL);
  await migrate(control, await migrationsOf(CONTROL));
  const [rows = []] = await control(READ_SIZES);
  const growths = growthsOf(new Map(rows.map(({ name, value }) => [String(name), String(value)])), sizes);
  await Promise.all(bindings.map(async (binding) => migrate(run(binding), await migrationsOf(binding))));
  await control(SEED_LOCAL_KEYS);
  for (const growth of growths) await control(recordGrowth(growth, Date.now()));
}

/** Does what is without effect when it fails, again while SQLite is busy. */
async function whenNotBusy<T>(work: () => Promise<T>): Promise<T> {
  const deadline = Date.now() + PATIENCE_MS;
  for (let hasWaited = false; ; hasWaited = true) {
    try {
      return await work();
    } catch (error) {
      if (!BUSY.test(reasonOf(error)) || Date.now() > deadline) throw error;
      if (!hasWaited) console.error("The local database is busy; waiting for it.");
      await setTimeout(PAUSE_MS);
    }
  }
}
