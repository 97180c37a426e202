import type { Account, Consumer, Queue } from "./account.ts";
import { ApiFailure, newId, type Route } from "./route.ts";

export const QUEUE_ROUTES: readonly Route[] = [
  [
    "GET",
    "/queues",
    ({ account, query }) => {
      const names = query.getAll("name");
      return [...account.queues.values()].filter(({ queue_name }) => names.length === 0 || names.includes(queue_name));
    },
  ],
  [
    "POST",
    "/queues",
    ({ account, json }) => {
      const name = String(json().queue_name);
      if (account.queues.has(name)) throw new ApiFailure(409, 11_009, `Queue name '${name}' is already taken`);
      const queue: Queue = { queue_id: newId(), queue_name: name, consumers: [] };
      account.queues.set(name, queue);
      return queue;
    },
  ],
  [
    "DELETE",
    "/queues/*",
    ({ account, params }) => {
      const queue = queueOf(account, params[0]);
      if (queue.consumers.length > 0) throw new ApiFailure(400, 11_005, "This queue has consumers");
      account.queues.delete(queue.queue_name);
      return null;
    },
  ],
  [
    "POST",
    "/queues/*/consumers",
    ({ account, params, json }) => {
      const { type, script_name, settings } = json();
      const { consumers } = queueOf(account, params[0]);
      if (consumers.length > 0) throw new ApiFailure(409, 11_004, "Queue already has a consumer");
      const script = String(script_name);
      if (!account.workers.has(script)) throw new ApiFailure(400, 11_012, `There is no Worker '${script}'`);
      const consumer: Consumer = { consumer_id: newId(), type: String(type), script, settings: settingsOf(settings) };
      consumers.push(consumer);
      return consumer;
    },
  ],
  [
    "PUT",
    "/queues/*/consumers/*",
    ({ account, params: [queue, id], json }) => {
      const consumer = consumerOf(queueOf(account, queue), id);
      consumer.settings = settingsOf(json().settings);
      return consumer;
    },
  ],
  [
    "DELETE",
    "/queues/*/consumers/*",
    ({ account, params: [id, consumer] }) => {
      const queue = queueOf(account, id);
      queue.consumers.splice(queue.consumers.indexOf(consumerOf(queue, consumer)), 1);
      return null;
    },
  ],
];

/** Without what is 0, as the API gives it back. */
const settingsOf = (settings: unknown): Record<string, unknown> =>
  Object.fromEntries(Object.entries(Object(settings)).filter(([, value]) => value !== 0));

function queueOf({ queues }: Account, id: string | undefined): Queue {
  const queue = [...queues.values()].find(({ queue_id }) => queue_id === id);
  if (queue === undefined) throw new ApiFailure(404, 11_000, `The queue ${id} does not exist`);
  return queue;
}

function consumerOf({ consumers }: Queue, id: string | undefined): Consumer {
  const consumer = consumers.find(({ consumer_id }) => consumer_id === id);
  if (consumer === undefined) throw new ApiFailure(404, 11_001, `The consumer ${id} does not exist`);
  return consumer;
}
