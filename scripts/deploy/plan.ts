import { desiredObjects } from "../schema/desired.ts";
import type { StoredObject } from "../schema/objects.ts";
import { type Step, stepsTo } from "../schema/steps.ts";
import type { Cloudflare } from "./cloudflare.ts";
import { type Database, findDatabase, isReplicated } from "./database.ts";
import { consumerOf, findQueue, type Queue } from "./queue.ts";
import { objectsOf } from "./schema.ts";
import type { Target } from "./target.ts";
import { findWorker, type Worker } from "./worker.ts";

/** Signs the tokens of streams; made here once, and known to the Worker alone. */
export const SECRET = "SESSION_SECRET";

/** What the account has of a target. */
export type State = {
  readonly database: Database | undefined;
  /** Its tables and indexes. */
  readonly objects: readonly StoredObject[];
  readonly queues: readonly Queue[];
  readonly worker: Worker | undefined;
};

/** What is to be done, in this order. */
export type Plan = {
  readonly createDatabase: boolean;
  /** Have Cloudflare keep read replicas of the database. */
  readonly replicate: boolean;
  /** What the database lacks of schema.sql. It is brought forward before any code that knows the new schema. */
  readonly schema: readonly Step[];
  readonly createQueues: readonly string[];
  readonly setSecret: boolean;
  /** Why the Worker is uploaded; `undefined` when it is as it should be. */
  readonly upload: string | undefined;
};

export async function stateOf(cloudflare: Cloudflare, target: Target): Promise<State> {
  const [database, worker, ...queues] = await Promise.all([
    findDatabase(cloudflare, target.database),
    findWorker(cloudflare, target.worker),
    ...target.queues.map((name) => findQueue(cloudflare, name)),
  ]);
  const objects = database === undefined ? [] : await objectsOf(cloudflare, database);
  return { database, objects, worker, queues: queues.filter((queue) => queue !== undefined) };
}

/** Throws a CommandError when the database cannot be brought to schema.sql by adding to it. */
export async function planOf(target: Target, state: State): Promise<Plan> {
  const queues = new Set(state.queues.map(({ queue_name }) => queue_name));
  return {
    createDatabase: state.database === undefined,
    replicate: state.database === undefined || !isReplicated(state.database),
    schema: stepsTo(await desiredObjects(), state.objects),
    createQueues: target.queues.filter((name) => !queues.has(name)),
    setSecret: !state.worker?.secrets.includes(SECRET),
    upload: whyUpload(target, state),
  };
}

function whyUpload(target: Target, { worker, queues }: State): string | undefined {
  if (worker === undefined) return "it is not there";
  if (worker.fingerprint !== target.fingerprint) return "its code or settings are others";
  if (!worker.secrets.includes(SECRET)) return `it has no ${SECRET}`;
  if (!worker.isPublic) return "it has no address";
  if ([...worker.crons].sort().join() !== [...target.crons].sort().join()) return "its crons are others";
  const consumes = target.consumers.every(({ queue: name, settings }) => {
    const queue = queues.find(({ queue_name }) => queue_name === name);
    const consumer = queue && consumerOf(queue, target.worker);
    return Object.entries(settings).every(([key, value]) => value === undefined || consumer?.settings[key] === value);
  });
  return consumes ? undefined : "it does not take its queue's messages as it should";
}

/** The plan for people, a line for each part. */
export function describePlan(target: Target, state: State, plan: Plan): string[] {
  const line = (what: string, isThere: boolean, otherwise: string): string =>
    `${what.padEnd(9)} ${isThere ? "is there" : otherwise}`;
  const where = target.region === undefined ? "" : `, in ${target.region}`;
  const movedFrom = elsewhere(target, state);
  return [
    line("database", !plan.createDatabase, `make ${target.database}${where}`),
    ...(movedFrom === undefined
      ? []
      : [`          in ${movedFrom}, not ${target.region}: a database stays where it was made`]),
    line("replicas", !plan.replicate, "have them kept, of keys and meters for the edge"),
    line("tables", plan.schema.length === 0, `add ${whatIsAdded(plan.schema)}`),
    ...target.queues.map((queue) => line("queue", !plan.createQueues.includes(queue), `make ${queue}`)),
    line("secret", !plan.setSecret, `make a ${SECRET}`),
    `Worker    ${plan.upload === undefined ? "is up to date" : `deploy ${target.worker}: ${plan.upload}`}`,
  ];
}

/** A first deployment adds more than anybody wants to read. */
const NAMED = 6;

const whatIsAdded = (steps: readonly Step[]): string =>
  steps.length > NAMED ? `${steps.length} tables and indexes` : steps.map(({ makes }) => makes).join(", ");

function elsewhere({ region }: Target, { database }: State): string | undefined {
  const actual = database?.running_in_region?.toLowerCase();
  return region !== undefined && actual !== undefined && actual !== region ? actual : undefined;
}
