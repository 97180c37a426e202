import { CommandError } from "../command-error.ts";
import type { Cloudflare } from "../deploy/cloudflare.ts";
import { createDatabase, type Database, findDatabase } from "../deploy/database.ts";
import { findQueue } from "../deploy/queue.ts";
import type { Target } from "../deploy/target.ts";
import { findVars } from "../deploy/worker.ts";
import { MARK } from "./config.ts";
import { readLedger, writeLedger } from "./ledger.ts";

/** What allows previews on the account of production: the environment variable PREVIEWS. */
const THIS_ACCOUNT = "this-account";

/**
 * Throws a CommandError when the account has production, whose name is `worker`, and nothing says that
 * previews may be there too: what deploys a branch can change everything else on its account.
 */
export async function allowPreviews(
  cloudflare: Cloudflare,
  worker: string,
  previews: string | undefined,
): Promise<void> {
  if (previews === THIS_ACCOUNT || (await findVars(cloudflare, worker)) === undefined) return;
  throw new CommandError(
    `account ${cloudflare.account} has production (${worker}), which a preview's token can change: use an account of its own, or set PREVIEWS=${THIS_ACCOUNT}.`,
  );
}

/** Throws a CommandError when there is a Worker of the name that is no preview of the branch. Says whether there is one. */
export async function isPreviewWorker(cloudflare: Cloudflare, worker: string, branch: string): Promise<boolean> {
  const vars = await findVars(cloudflare, worker);
  if (vars === undefined) return false;
  if (vars.get(MARK) === branch) return true;
  throw new CommandError(`the Worker ${worker} is no preview of '${branch}': it is left alone.`);
}

/**
 * Makes sure that every name of a preview is free or the preview's own, before anything is made, and
 * notes in its database what will be. Throws a CommandError that names what is somebody else's.
 */
export async function claim(cloudflare: Cloudflare, target: Target, branch: string): Promise<Database> {
  const [found, queues] = await Promise.all([
    findDatabase(cloudflare, target.database),
    Promise.all(target.queues.map((name) => findQueue(cloudflare, name))),
    isPreviewWorker(cloudflare, target.worker, branch),
  ]);
  const ledger = found && (await readLedger(cloudflare, found, branch));
  for (const queue of queues) {
    if (queue !== undefined && !ledger?.queues.includes(queue.queue_name)) {
      throw new CommandError(`the queue ${queue.queue_name} was not made by a preview: it is left alone.`);
    }
  }
  const database = found ?? (await createDatabase(cloudflare, target));
  const unnoted = target.queues.filter((name) => !ledger?.queues.includes(name));
  if (ledger === undefined || unnoted.length > 0) await writeLedger(cloudflare, database, branch, unnoted);
  return database;
}
