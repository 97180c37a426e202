import { recordGrowth } from "../growth.ts";
import { applyMigration, CONTROL } from "../migrations.ts";
import type { RunSql } from "../sql.ts";
import { createBucket } from "./bucket.ts";
import type { Cloudflare } from "./cloudflare.ts";
import { createDatabase, type Database, hasJsonbEach, replicate, runOn } from "./database.ts";
import { awaitHealth } from "./health.ts";
import { derivedVars, describePlan, GROWTH_MINUTES, type Plan, planOf, type State, stateOf } from "./plan.ts";
import { createQueue } from "./queue.ts";
import { selfTest } from "./self-test.ts";
import type { Target } from "./target.ts";
import { upload } from "./upload.ts";
import { workersDevAddress } from "./worker.ts";

export type DeployOptions = {
  readonly log: (line: string) => void;
  /** Where the Worker is reached, when that is neither its first custom domain nor workers.dev. */
  readonly url: string | undefined;
  /** How long its address may take to answer, and its self-test to pass (ms). */
  readonly patienceMs: number;
  /** Only says what it would do. */
  readonly dryRun: boolean;
};

/**
 * Brings the account to what a target is, and gives its address. What is there is looked at anew each
 * time and nothing else is remembered, so that a run that failed anywhere is finished by the next one,
 * and a run after a good one changes nothing.
 */
export async function deploy(cloudflare: Cloudflare, target: Target, options: DeployOptions): Promise<string> {
  const state = await stateOf(cloudflare, target);
  const plan = await planOf(target, state, options.url !== undefined);
  for (const line of describePlan(target, state, plan)) options.log(line);
  const address = options.url ?? (await addressOf(cloudflare, target));
  if (options.dryRun) return address;

  const databases = await prepareDatabases(cloudflare, target, state, plan);
  const run = (binding: string): RunSql => {
    const database = databases.get(binding);
    if (database === undefined) throw new Error(`there is no database ${binding}`);
    return runOn(cloudflare, database);
  };
  if (plan.createBucket !== undefined) {
    await createBucket(cloudflare, target, plan.createBucket, databases.get(CONTROL)?.running_in_region);
  }
  for (const queue of plan.createQueues) await createQueue(cloudflare, queue);
  if (!(await hasJsonbEach(run("EVENTS_0")))) {
    options.log("          D1 has no jsonb_each here: events are aggregated with json_each, at about half the speed");
  }
  if (plan.upload !== undefined) {
    const ids = new Map([...databases].map(([binding, { uuid }]) => [binding, uuid]));
    const vars = derivedVars(target, databases.get(CONTROL));
    await upload(target, { account: cloudflare.account, databases: ids, vars }, plan.setSecret);
  }
  await awaitHealth(address, target.fingerprint, options.patienceMs);
  if (plan.selfTest) {
    await selfTest(run(CONTROL), address, target.fingerprint, options.patienceMs);
    options.log("self-test passed: an event was counted");
  }
  if (plan.growths.length > 0) {
    // A log tells a caller that it has grown; of a new database only the record does.
    const now = Date.now();
    const since = { databases: now + GROWTH_MINUTES * 60_000, event_log_shards: now, test_event_log_shards: now };
    await run(CONTROL)(plan.growths.map((growth) => recordGrowth(growth, since[growth.name])).join(";\n"));
  }
  return address;
}

/** Makes the databases that are missing, the control database first, and brings all forward; gives each by its binding. */
async function prepareDatabases(
  cloudflare: Cloudflare,
  target: Target,
  state: State,
  plan: Plan,
): Promise<ReadonlyMap<string, Database>> {
  const databases = new Map<string, Database>();
  for (const { binding, name } of target.databases) {
    const beside = databases.get(CONTROL)?.running_in_region;
    const database = state.databases.get(binding) ?? (await createDatabase(cloudflare, target, name, beside));
    databases.set(binding, database);
    if (binding === CONTROL && plan.replicate) await replicate(cloudflare, database);
    for (const migration of plan.migrations.get(binding) ?? []) {
      await applyMigration(runOn(cloudflare, database), migration);
    }
  }
  return databases;
}

async function addressOf(cloudflare: Cloudflare, { worker, domains }: Target): Promise<string> {
  const [domain] = domains;
  return domain === undefined ? workersDevAddress(cloudflare, worker) : `https://${domain}`;
}
