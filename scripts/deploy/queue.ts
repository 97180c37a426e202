import { z } from "zod";
import type { Cloudflare } from "./cloudflare.ts";

const Queue = z.object({
  queue_id: z.string(),
  queue_name: z.string(),
  consumers: z
    .array(
      z.object({
        consumer_id: z.string(),
        script: z.string().optional(),
        service: z.string().optional(),
        settings: z.record(z.string(), z.unknown()).default({}),
      }),
    )
    .default([]),
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

/** How a Worker consumes a queue, if it does. */
export const consumerOf = ({ consumers }: Queue, worker: string): Queue["consumers"][number] | undefined =>
  consumers.find(({ script, service }) => script === worker || service === worker);

export const deleteConsumer = (cloudflare: Cloudflare, { queue_id }: Queue, consumer: string): Promise<void> =>
  cloudflare.remove(`/queues/${queue_id}/consumers/${consumer}`);

/** Deletes a queue with every message in it. */
export const deleteQueue = (cloudflare: Cloudflare, { queue_id }: Queue): Promise<void> =>
  cloudflare.remove(`/queues/${queue_id}`);
