import type { Cloudflare } from "../deploy/cloudflare.ts";
import { deleteDatabase, findDatabase } from "../deploy/database.ts";
import { consumerOf, deleteConsumer, deleteQueue, findQueue } from "../deploy/queue.ts";
import { deleteWorker } from "../deploy/worker.ts";
import { isPreviewWorker } from "./claim.ts";
import { readLedger } from "./ledger.ts";
import type { PreviewNames } from "./names.ts";

/**
 * Deletes a preview: its queues, as its database notes them, its Worker, and the database last, so that
 * what a failure leaves over is found by the next run. Everything is looked at before anything is
 * deleted. Throws a CommandError when anything of the names is not the preview's.
 */
export async function removePreview(
  cloudflare: Cloudflare,
  { branch, worker }: PreviewNames,
  log: (line: string) => void,
): Promise<void> {
  const [database, hasWorker] = await Promise.all([
    findDatabase(cloudflare, worker),
    isPreviewWorker(cloudflare, worker, branch),
  ]);
  const ledger = database && (await readLedger(cloudflare, database, branch));
  const queues = await Promise.all((ledger?.queues ?? []).map((name) => findQueue(cloudflare, name)));
  const existing = queues.filter((queue) => queue !== undefined);

  // A queue's consumer holds the Worker, and the Worker's binding the queue.
  for (const queue of existing) {
    const consumer = consumerOf(queue, worker);
    if (consumer !== undefined) await deleteConsumer(cloudflare, queue, consumer.consumer_id);
  }
  if (hasWorker) {
    await deleteWorker(cloudflare, worker);
    log(`Worker    ${worker} is deleted`);
  }
  for (const queue of existing) {
    await deleteQueue(cloudflare, queue);
    log(`queue     ${queue.queue_name} is deleted`);
  }
  if (database !== undefined) {
    await deleteDatabase(cloudflare, database);
    log(`database  ${worker} is deleted`);
  }
  if (database === undefined && !hasWorker) log("There is nothing to delete.");
}
