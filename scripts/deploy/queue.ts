import { z } from "zod";
import { CommandError } from "../command-error.ts";
import type { Cloudflare } from "./cloudflare.ts";

const Consumer = z.object({
  consumer_id: z.string(),
  type: z.string().optional(),
  script: z.string().optional(),
  script_name: z.string().optional(),
  service: z.string().optional(),
  settings: z.record(z.string(), z.unknown()).default({}),
});

const Queue = z.object({
  queue_id: z.string(),
  queue_name: z.string(),
  consumers: z.array(Consumer).default([]),
});

/** A queue of the account, with whoever takes its messages. */
export type Queue = Readonly<z.output<typeof Queue>>;

export async function findQueue(cloudflare: Cloudflare, name: string): Promise<Queue | undefined> {
  const queues = await cloudflare.find(`/queues?name=${encodeURIComponent(name)}`, z.array(Queue));
  return queues?.find(({ queue_name }) => queue_name === name);
}

export async function createQueue(cloudflare: Cloudflare, name: string): Promise<void> {
  await cloudflare.post("/queues", { queue_name: name }, z.unknown());
}

const workerOf = ({ script, script_name, service }: z.output<typeof Consumer>): string | undefined =>
  script ?? script_name ?? service;

/** How a Worker consumes a queue, if it does. */
export const consumerOf = ({ consumers }: Queue, worker: string): Queue["consumers"][number] | undefined =>
  consumers.find((consumer) => workerOf(consumer) === worker);

/** Throws a CommandError for a queue whose messages another Worker, or a client that pulls, takes: there can be one only. */
export function refuseOthersQueue({ queue_name, consumers }: Queue, worker: string): void {
  const other = consumers.find((consumer) => workerOf(consumer) !== worker);
  if (other === undefined) return;
  const who = workerOf(other);
  throw new CommandError(
    `the queue ${queue_name} has another consumer already (${who === undefined ? (other.type ?? "of another kind") : `the Worker ${who}`}), and a queue has one: give it another name in wrangler.toml.`,
  );
}

export const deleteConsumer = (cloudflare: Cloudflare, { queue_id }: Queue, consumer: string): Promise<void> =>
  cloudflare.remove(`/queues/${queue_id}/consumers/${consumer}`);

/** Deletes a queue with every message in it. */
export const deleteQueue = (cloudflare: Cloudflare, { queue_id }: Queue): Promise<void> =>
  cloudflare.remove(`/queues/${queue_id}`);
