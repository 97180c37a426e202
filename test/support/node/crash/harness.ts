// The crash harness: a server under load, started as a user starts it, dies again and again; in the end
// it must have all that it acknowledged, and none of it twice.
import { watch } from "node:fs";
import { cp, readdir, readFile, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { growTo } from "../../../../scripts/deploy/grow.ts";
import { READ_SIZES, recordGrowth } from "../../../../scripts/growth.ts";
import { withLocalDatabases } from "../../../../scripts/local.ts";
import { CONTROL } from "../../../../scripts/migrations.ts";
import type { RunSql } from "../../../../scripts/sql.ts";
import { newStateDir, removeStateDir, startServer } from "../server.ts";
import { audit, type Findings, type Meters } from "./audit.ts";
import { read } from "./client.ts";
import { drawMoments, FORMULAS, type Moment } from "./drawn.ts";
import { Ledger } from "./ledger.ts";
import { Load } from "./load.ts";
import type { CrashReport } from "./report.ts";

/** How soon after its last start the server must be right (ms): before the minute's nudge could help it. */
const CONVERGENCE_MS = 45_000;

/** From one audit to the next (ms). */
const AUDIT_PAUSE_MS = 500;

/** The longest that something is waited for, which the load may not bring (ms). */
const PATIENCE_MS = 4_000;

/** Where the databases of D1 and of the logs lie in the state folder. */
const FOLDERS = { d1: "v3/d1/miniflare-D1DatabaseObject", log: "v3/do/edgemeter-EventLog" } as const;

/** How many events databases the server has after half of the kills; before it has one. */
const DATABASES = 4;

/** How many shards live mode's log has at first, after a quarter of the kills, and for the last quarter of them. */
const SHARDS = [2, 4, 8] as const;

/** The longest until a running server uses shards that were recorded (ms): its isolate's cache is ten seconds old at most. */
const GROWTH_PATIENCE_MS = 20_000;

/**
 * Kills the server so many times under a load drawn from the seed, then compares what it has with what
 * it had acknowledged. Half way it grows to more databases; its log grows with a restart, and later while it serves.
 * With the last kill the client ends too, so that the logs must wake by themselves.
 */
export async function crash({ kills, seed }: { kills: number; seed: number }): Promise<CrashReport> {
  const begin = Date.now();
  const project = await newProject();
  const stateDir = path.join(project, ".edgemeter");
  const [first, second, third] = SHARDS;
  await setShards(project, first);
  let server = await startServer(stateDir, { cwd: project });
  const { port, url } = server;
  const ledger = new Ledger();
  const load = new Load(url, ledger, seed);
  const moments = drawMoments(seed);
  try {
    const meters = await createMeters(url);
    load.start();
    await load.answers(1);
    for (let left = kills; left > 0; left--) {
      if (left === Math.ceil(kills / 4)) await growLog(project, stateDir, third);
      await until(moments.next().value, stateDir, load);
      if (left === 1) load.stop();
      // First, since every request that still ends takes time from the kill.
      const killed = server.kill();
      load.resume();
      await killed;
      if (left === Math.ceil(kills * 0.75)) await setShards(project, second);
      if (left === Math.ceil(kills / 2)) await growTo(DATABASES, "", path.join(project, "wrangler.toml"));
      if (left === Math.ceil(kills / 4)) await setShards(project, third);
      server = await startServer(stateDir, { port, cwd: project });
    }
    await load.ended();
    const { findings, seconds } = await converge(url, meters, ledger);
    const { lost, doubled, wrong, summaries } = findings;
    const pipeline = await read<Pipeline>(url, { path: "/v1/edgemeter/pipeline" });
    const problems = [...ledger.problems, ...lost, ...doubled, ...wrong];
    const doubledInAll = ledger.doubled + doubled.length;
    return {
      seed,
      kills,
      acknowledged: ledger.claims.filter(({ acknowledged }) => acknowledged).length,
      cancellations: ledger.claims.filter(({ cancelled }) => cancelled).length,
      retries: load.retries,
      abandoned: load.abandoned,
      lost: lost.length,
      doubled: doubledInAll,
      wrong: problems.length - lost.length - doubledInAll,
      summaries,
      databases: pipeline.databases.filter(({ database }) => database.startsWith("EVENTS_")).length,
      shards: pipeline.shards.filter(({ shard }) => shard.startsWith("live-")).length,
      convergence: seconds,
      seconds: Math.round((Date.now() - begin) / 1_000),
      problems,
    };
  } finally {
    load.stop();
    load.resume();
    await server.kill();
    await removeStateDir(project);
  }
}

type Pipeline = { readonly databases: { database: string }[]; readonly shards: { shard: string }[] };

/** What the next start of the server has the log grow to. */
async function setShards(project: string, shards: number): Promise<void> {
  const file = path.join(project, "wrangler.toml");
  const text = await readFile(file, "utf8");
  await writeFile(file, text.replace(/^EVENT_LOG_SHARDS = ".*"/m, `EVENT_LOG_SHARDS = "${shards}"`));
}

/** Has the log grow while the server runs, as a deployment does, and settles once the server uses a new shard. */
async function growLog(project: string, stateDir: string, shards: number): Promise<void> {
  const objects = async (): Promise<number> =>
    (await readdir(path.join(stateDir, FOLDERS.log))).filter((file) => file.endsWith(".sqlite")).length;
  const before = await objects();
  const record = async (run: RunSql): Promise<void> => {
    const [rows = []] = await run(READ_SIZES);
    const recorded = String(rows.find(({ name }) => name === "event_log_shards")?.value);
    await run(recordGrowth({ name: "event_log_shards", recorded, to: shards }, Date.now()));
  };
  await withLocalDatabases(stateDir, ({ run }) => record(run(CONTROL)), path.join(project, "wrangler.toml"));
  const deadline = Date.now() + GROWTH_PATIENCE_MS;
  while ((await objects()) === before && Date.now() < deadline) await sleep(20);
}

/** A copy of the project whose wrangler.toml may change, with the packages of this one. */
async function newProject(): Promise<string> {
  const root = path.join(import.meta.dirname, "../../../..");
  const folder = await newStateDir();
  for (const name of ["package.json", "package-lock.json", "wrangler.toml", "scripts", "src"]) {
    // By their times it is seen that the packages are installed.
    await cp(path.join(root, name), path.join(folder, name), { recursive: true, preserveTimestamps: true });
  }
  await symlink(path.join(root, "node_modules"), path.join(folder, "node_modules"));
  return folder;
}

/** Creates a meter of each formula. Throws when one was not. */
async function createMeters(url: string): Promise<Meters> {
  const ids = FORMULAS.map(async (formula) => {
    const body = { display_name: formula, event_name: formula, default_aggregation: { formula } };
    return [formula, (await read<{ id: string }>(url, { path: "/v1/billing/meters", body })).id] as const;
  });
  return Object.fromEntries(await Promise.all(ids)) as Meters;
}

/** Settles at the moment; the load may pause from then on. */
async function until(moment: Moment, stateDir: string, load: Load): Promise<unknown> {
  if (moment.at === "answer") return Promise.race([load.answers(moment.count), sleep(PATIENCE_MS)]);
  await sleep(moment.ms);
  if (moment.at === "time") return;
  // A busy log appends, and D1 writes with nearly every request: without requests it is the aggregator that writes,
  // and its confirmation is what the log writes.
  if (moment.by !== "append") await load.pause();
  await nextWrite(path.join(stateDir, moment.by === "aggregator" ? FOLDERS.d1 : FOLDERS.log));
}

/**
 * Settles as soon as a database in this folder is written. What waits for that write (the caller for
 * its 200, the log for D1's confirmation) hears of it a few milliseconds later, or never.
 */
async function nextWrite(folder: string): Promise<void> {
  await new Promise<void>((resolve) => {
    const end = (): void => {
      watcher.close();
      clearTimeout(timer);
      resolve();
    };
    const watcher = watch(folder, (_, file) => {
      if (file?.endsWith(".sqlite-wal") && !file.startsWith("metadata")) end();
    });
    const timer = setTimeout(end, PATIENCE_MS);
  });
}

/** Audits until nothing is wrong, for some time; gives the last findings, and after how many seconds. */
async function converge(url: string, meters: Meters, ledger: Ledger): Promise<{ findings: Findings; seconds: number }> {
  const begin = Date.now();
  for (;;) {
    const findings = await audit(url, meters, ledger).catch(notAudited);
    const passed = Date.now() - begin;
    const isRight = findings.lost.length + findings.doubled.length + findings.wrong.length === 0;
    if (isRight || passed > CONVERGENCE_MS) return { findings, seconds: Math.round(passed / 100) / 10 };
    await sleep(AUDIT_PAUSE_MS);
  }
}

/** A read that failed may succeed next time; if it does not, that is what is wrong. */
const notAudited = (error: unknown): Findings => ({ lost: [], doubled: [], wrong: [String(error)], summaries: 0 });
