import type { Cloudflare } from "./cloudflare.ts";
import { createDatabase, replicate } from "./database.ts";
import { awaitHealth } from "./health.ts";
import { describePlan, planOf, stateOf } from "./plan.ts";
import { createQueue } from "./queue.ts";
import { applySteps } from "./schema.ts";
import type { Target } from "./target.ts";
import { upload } from "./upload.ts";
import { addressOf } from "./worker.ts";

export type DeployOptions = {
  readonly log: (line: string) => void;
  /** Where the Worker is reached, when that is not workers.dev. */
  readonly url: string | undefined;
  /** How long its address may take to answer (ms). */
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
  const plan = await planOf(target, state);
  for (const line of describePlan(target, state, plan)) options.log(line);
  const address = options.url ?? (await addressOf(cloudflare, target.worker));
  if (options.dryRun) return address;

  const database = state.database ?? (await createDatabase(cloudflare, target.database, target.region));
  if (plan.replicate) await replicate(cloudflare, database);
  if (plan.schema.length > 0) await applySteps(cloudflare, database, plan.schema);
  for (const queue of plan.createQueues) await createQueue(cloudflare, queue);
  if (plan.upload !== undefined) await upload(target, plan.setSecret);
  await awaitHealth(address, options.patienceMs);
  return address;
}
