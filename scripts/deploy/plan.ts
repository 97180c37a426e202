import { CommandError } from "../command-error.ts";
import { desiredObjects } from "../schema/desired.ts";
import type { StoredObject } from "../schema/objects.ts";
import { type Step, stepsTo } from "../schema/steps.ts";
import type { Cloudflare } from "./cloudflare.ts";
import { type Database, findDatabase, isReplicated, objectsOf, recordedIn } from "./database.ts";
import { consumerOf, findQueue, type Queue, refuseOthersQueue } from "./queue.ts";
import { hintBeside, regionOf } from "./region.ts";
import type { Target } from "./target.ts";
import { findWorker, type Worker, workerBehind } from "./worker.ts";

/** Signs the tokens of streams; made here once, and known to the Worker alone. */
export const SECRET = "SESSION_SECRET";

/** What the account has of a target. */
export type State = {
  readonly database: Database | undefined;
  /** Its tables and indexes. */
  readonly objects: readonly StoredObject[];
  readonly queues: readonly Queue[];
  readonly worker: Worker | undefined;
  /** The Worker behind each of the target's domains. */
  readonly domains: ReadonlyMap<string, string | undefined>;
  /**
   * What its database records: the settings that the data was started with, and under `self_test` the fingerprint
   * of the last deployment that passed its self-test.
   */
  readonly recorded: ReadonlyMap<string, string>;
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
  readonly selfTest: boolean;
};

export async function stateOf(cloudflare: Cloudflare, target: Target): Promise<State> {
  const [database, worker, domains, ...queues] = await Promise.all([
    findDatabase(cloudflare, target.database),
    findWorker(cloudflare, target.worker),
    Promise.all(target.domains.map(async (domain) => [domain, await workerBehind(cloudflare, domain)] as const)),
    ...target.queues.map((name) => findQueue(cloudflare, name)),
  ]);
  const objects = database === undefined ? [] : await objectsOf(cloudflare, database);
  const recorded = database === undefined ? new Map() : await recordedIn(cloudflare, database, objects);
  return {
    ...{ database, objects, worker, recorded },
    domains: new Map(domains),
    queues: queues.filter((queue) => queue !== undefined),
  };
}

/**
 * Throws a CommandError when the database cannot be brought to schema.sql by adding to it, when its data was
 * started with other settings, and when what the target names is another Worker's. `hasAddress`: it is reached at
 * an address that is not in the target.
 */
export async function planOf(target: Target, state: State, hasAddress: boolean): Promise<Plan> {
  refuseForeign(target, state);
  refuseChanged(target, state);
  const queues = new Set(state.queues.map(({ queue_name }) => queue_name));
  const upload = whyUpload(target, state, hasAddress);
  return {
    createDatabase: state.database === undefined,
    replicate: state.database === undefined || !isReplicated(state.database),
    schema: stepsTo(await desiredObjects(), state.objects),
    createQueues: target.queues.filter((name) => !queues.has(name)),
    setSecret: !state.worker?.secrets.includes(SECRET),
    upload,
    selfTest: upload !== undefined || state.recorded.get("self_test") !== target.fingerprint,
  };
}

function refuseForeign({ worker, jurisdiction }: Target, { database, queues, domains }: State): void {
  for (const queue of queues) refuseOthersQueue(queue, worker);
  for (const [domain, owner] of domains) {
    if (owner !== undefined && owner !== worker) {
      throw new CommandError(`the domain ${domain} leads to the Worker ${owner}: it is left alone.`);
    }
  }
  if (database !== undefined && (database.jurisdiction ?? "") !== jurisdiction) {
    throw new CommandError(
      `the database ${database.name} was made with JURISDICTION = "${database.jurisdiction ?? ""}", which cannot be changed to "${jurisdiction}".`,
    );
  }
}

/** The deployed Worker itself would accept no more events: see src/catalog/deployment.ts, which records the settings. */
function refuseChanged({ jurisdiction, shards }: Target, { recorded }: State): void {
  const settings = [
    ["EVENT_LOG_SHARDS", recorded.get("event_log_shards"), String(shards)],
    ["JURISDICTION", recorded.get("jurisdiction"), jurisdiction],
  ] as const;
  for (const [setting, was, is] of settings) {
    if (was === undefined || was === is) continue;
    throw new CommandError(`the data was started with ${setting} = "${was}", which cannot be changed to "${is}".`);
  }
}

/** The variables of a Worker that are derived from where its database is, and from what is deployed. */
export const derivedVars = (
  { locationHint, fingerprint }: Target,
  database: Database | undefined,
): { readonly LOCATION_HINT: string; readonly DEPLOYED_VERSION: string } => ({
  // GET /health returns it.
  DEPLOYED_VERSION: fingerprint,
  LOCATION_HINT: locationHint === "" ? hintBeside(database?.running_in_region) : locationHint,
});

function whyUpload(target: Target, state: State, hasAddress: boolean): string | undefined {
  const { worker, database } = state;
  if (worker === undefined) return "it is not there";
  if (database === undefined) return "its database is gone";
  if (worker.database !== database.uuid) return "it is bound to another database";
  if (worker.fingerprint !== target.fingerprint) return "its code or settings are others";
  const isAsDerived = ([name, value]: [string, string]): boolean => worker.vars.get(name) === value;
  if (!Object.entries(derivedVars(target, database)).every(isAsDerived)) return "its settings are others";
  if (!worker.secrets.includes(SECRET)) return `it has no ${SECRET}`;
  if (target.isPublic && !worker.isPublic && !hasAddress) return "it has no address";
  if (!target.isPublic && worker.isPublic) return "it has a workers.dev address";
  if (target.domains.some((domain) => state.domains.get(domain) === undefined)) return "a domain of it is not attached";
  if ([...worker.crons].sort().join() !== [...target.crons].sort().join()) return "its crons are others";
  return consumesAsItShould(target, state) ? undefined : "it does not take its queue's messages as it should";
}

function consumesAsItShould(target: Target, { queues }: State): boolean {
  return target.consumers.every(({ queue: name, settings }) => {
    const queue = queues.find(({ queue_name }) => queue_name === name);
    const consumer = queue && consumerOf(queue, target.worker);
    if (consumer === undefined) return false;
    // Cloudflare leaves out what is 0.
    const isSet = ([key, value]: [string, number | undefined]): boolean =>
      value === undefined || (consumer.settings[key] ?? 0) === value;
    return Object.entries(settings).every(isSet);
  });
}

/** The plan for people, a line for each part. */
export function describePlan(target: Target, state: State, plan: Plan): string[] {
  const line = (what: string, isThere: boolean, otherwise: string): string =>
    `${what.padEnd(9)} ${isThere ? "is there" : otherwise}`;
  const movedFrom = elsewhere(target, state);
  return [
    line("database", !plan.createDatabase, `make ${target.database}${placeOf(target)}`),
    ...(movedFrom === undefined
      ? []
      : [`          in ${movedFrom}, not ${regionOf(target.locationHint)}: a database stays where it was made`]),
    line("replicas", !plan.replicate, "have them kept, of keys and meters for the edge"),
    line("tables", plan.schema.length === 0, `add ${whatIsAdded(plan.schema)}`),
    ...target.queues.map((queue) => line("queue", !plan.createQueues.includes(queue), `make ${queue}`)),
    line("secret", !plan.setSecret, `make a ${SECRET}`),
    `Worker    ${plan.upload === undefined ? "is up to date" : `deploy ${target.worker}: ${plan.upload}`}`,
    `self-test ${plan.selfTest ? "run it" : "was passed"}`,
  ];
}

function placeOf({ locationHint, jurisdiction }: Target): string {
  if (jurisdiction !== "") return `, within ${jurisdiction}`;
  const region = regionOf(locationHint);
  return region === undefined ? "" : `, in ${region}`;
}

/** A first deployment adds more than anybody wants to read. */
const NAMED = 6;

const whatIsAdded = (steps: readonly Step[]): string =>
  steps.length > NAMED ? `${steps.length} tables and indexes` : steps.map(({ makes }) => makes).join(", ");

function elsewhere({ locationHint }: Target, { database }: State): string | undefined {
  const region = regionOf(locationHint);
  const actual = database?.running_in_region?.toLowerCase();
  return region !== undefined && actual !== undefined && actual !== region ? actual : undefined;
}
