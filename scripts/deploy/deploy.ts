import type { Cloudflare } from "./cloudflare.ts";
import { applySteps, createDatabase, hasJsonbEach, query, replicate } from "./database.ts";
import { awaitHealth } from "./health.ts";
import { derivedVars, describePlan, planOf, stateOf } from "./plan.ts";
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

  const database = state.database ?? (await createDatabase(cloudflare, target));
  if (plan.replicate) await replicate(cloudflare, database);
  if (plan.schema.length > 0) await applySteps(cloudflare, database, plan.schema);
  for (const queue of plan.createQueues) await createQueue(cloudflare, queue);
  if (!(await hasJsonbEach(cloudflare, database))) {
    options.log("          D1 has no jsonb_each here: events are aggregated with json_each, at about half the speed");
  }
  if (plan.upload !== undefined) {
    const found = { account: cloudflare.account, database: database.uuid, vars: derivedVars(target, database) };
    await upload(target, found, plan.setSecret);
  }
  await awaitHealth(address, target.fingerprint, options.patienceMs);
  if (plan.selfTest) {
    await selfTest((sql) => query(cloudflare, database, sql), address, target.fingerprint, options.patienceMs);
    options.log("self-test passed: an event was counted");
  }
  return address;
}

async function addressOf(cloudflare: Cloudflare, { worker, domains }: Target): Promise<string> {
  const [domain] = domains;
  return domain === undefined ? workersDevAddress(cloudflare, worker) : `https://${domain}`;
}
