import { CommandError } from "../command-error.ts";
import { type Growth, growthsOf } from "../growth.ts";
import { appliedTo, CONTROL, type Migration, migrationsOf } from "../migrations.ts";
import { hasBucket } from "./bucket.ts";
import type { Cloudflare } from "./cloudflare.ts";
import { type Database, findDatabase, isReplicated, recordedIn, runOn } from "./database.ts";
import { consumerOf, findQueue, type Queue, refuseOthersQueue } from "./queue.ts";
import { hintBeside, regionOf } from "./region.ts";
import { ARCHIVE, type Target, type TargetBucket, type TargetDatabase } from "./target.ts";
import { findWorker, type Worker, workerBehind } from "./worker.ts";

/** Signs the tokens of streams; made here once, and known to the Worker alone. */
export const SECRET = "SESSION_SECRET";

/**
 * How long after a deployment its new events databases take events: until then, isolates of the version before may
 * still be answering.
 */
export const GROWTH_MINUTES = 15;

/** What the account has of a target. */
export type State = {
  /** The databases that are there, by binding. */
  readonly databases: ReadonlyMap<string, Database>;
  /** The names of the migrations that each of them has. */
  readonly applied: ReadonlyMap<string, readonly string[]>;
  /** Whether the archive's bucket is there. */
  readonly hasBucket: boolean;
  readonly queues: readonly Queue[];
  readonly worker: Worker | undefined;
  /** The Worker behind each of the target's domains. */
  readonly domains: ReadonlyMap<string, string | undefined>;
  /**
   * What its control database records: the jurisdiction that the data was started in, how many databases and shards
   * there were and since when, and under `self_test` the fingerprint of the last deployment that passed its self-test.
   */
  readonly recorded: ReadonlyMap<string, string>;
};

/** What is to be done, in this order. */
export type Plan = {
  readonly createDatabases: readonly TargetDatabase[];
  /** Have Cloudflare keep read replicas of the control database. */
  readonly replicate: boolean;
  /** What each database lacks, by binding. They are brought forward before any code that knows the new schema. */
  readonly migrations: ReadonlyMap<string, readonly Migration[]>;
  readonly createBucket: TargetBucket | undefined;
  readonly createQueues: readonly string[];
  readonly setSecret: boolean;
  /** Why the Worker is uploaded; `undefined` when it is as it should be. */
  readonly upload: string | undefined;
  readonly selfTest: boolean;
  /** What is recorded as grown once all that is done. */
  readonly growths: readonly Growth[];
};

/** Throws a CommandError when the target has a bucket, and the account no R2. */
export async function stateOf(cloudflare: Cloudflare, target: Target): Promise<State> {
  const [found, bucketIsThere, worker, domains, ...queues] = await Promise.all([
    Promise.all(
      target.databases.map(async ({ binding, name }) => ({ binding, database: await findDatabase(cloudflare, name) })),
    ),
    target.bucket !== undefined && hasBucket(cloudflare, target.bucket),
    findWorker(cloudflare, target.worker),
    Promise.all(target.domains.map(async (domain) => [domain, await workerBehind(cloudflare, domain)] as const)),
    ...target.queues.map((name) => findQueue(cloudflare, name)),
  ]);
  const databases = new Map(
    found.flatMap(({ binding, database }) => (database === undefined ? [] : [[binding, database] as const])),
  );
  const applied = await Promise.all(
    [...databases].map(async ([binding, database]) => [binding, await appliedTo(runOn(cloudflare, database))] as const),
  );
  return {
    ...{ databases, worker, applied: new Map(applied) },
    recorded: await recordsOf(cloudflare, databases.get(CONTROL), new Map(applied).get(CONTROL)),
    domains: new Map(domains),
    hasBucket: bucketIsThere,
    queues: queues.filter((queue) => queue !== undefined),
  };
}

/** A control database without tables records nothing. */
const recordsOf = async (
  cloudflare: Cloudflare,
  control: Database | undefined,
  applied: readonly string[] = [],
): Promise<State["recorded"]> =>
  control === undefined || applied.length === 0 ? new Map() : recordedIn(runOn(cloudflare, control));

/**
 * Throws a CommandError when the data was started in another jurisdiction, when databases or a log cannot become as many
 * as the target says, and when what it names is another Worker's. `hasAddress`: it is reached at an address that is not in the target.
 */
export async function planOf(target: Target, state: State, hasAddress: boolean): Promise<Plan> {
  refuseForeign(target, state);
  refuseMoved(target, state);
  const { databases, worker, recorded } = state;
  const queues = new Set(state.queues.map(({ queue_name }) => queue_name));
  const upload = whyUpload(target, state, hasAddress);
  const control = databases.get(CONTROL);
  return {
    createDatabases: target.databases.filter(({ binding }) => !databases.has(binding)),
    replicate: control === undefined || !isReplicated(control),
    migrations: await migrationsFor(target, state),
    createBucket: state.hasBucket ? undefined : target.bucket,
    createQueues: target.queues.filter((name) => !queues.has(name)),
    setSecret: !worker?.secrets.includes(SECRET),
    upload,
    selfTest: upload !== undefined || recorded.get("self_test") !== target.fingerprint,
    growths: growthsOf(recorded, target.sizes),
  };
}

/** A database may have more than this code knows: those of a newer version, before a rollback. */
async function migrationsFor({ databases }: Target, { applied }: State): Promise<Plan["migrations"]> {
  const lacking = databases.map(async ({ binding }) => {
    const migrations = await migrationsOf(binding);
    return [binding, migrations.filter(({ name }) => !applied.get(binding)?.includes(name))] as const;
  });
  return new Map(await Promise.all(lacking));
}

function refuseForeign({ worker, jurisdiction }: Target, { databases, queues, domains }: State): void {
  for (const queue of queues) refuseOthersQueue(queue, worker);
  for (const [domain, owner] of domains) {
    if (owner !== undefined && owner !== worker) {
      throw new CommandError(`the domain ${domain} leads to the Worker ${owner}: it is left alone.`);
    }
  }
  for (const database of databases.values()) {
    const was = database.jurisdiction ?? "";
    if (was === jurisdiction) continue;
    throw new CommandError(
      `the database ${database.name} was made with JURISDICTION = "${was}", which cannot be changed to "${jurisdiction}".`,
    );
  }
}

/** The deployed Worker itself would accept no more events: see src/catalog/deployment.ts, which records the setting. */
function refuseMoved({ jurisdiction }: Target, { recorded }: State): void {
  const was = recorded.get("jurisdiction");
  if (was === undefined || was === jurisdiction) return;
  throw new CommandError(
    `the data was started with JURISDICTION = "${was}", which cannot be changed to "${jurisdiction}".`,
  );
}

/** The variables of a Worker that are derived from where its control database is, and from what is deployed. */
export const derivedVars = (
  { locationHint, fingerprint }: Target,
  control: Database | undefined,
): { readonly LOCATION_HINT: string; readonly DEPLOYED_VERSION: string } => ({
  // GET /health returns it.
  DEPLOYED_VERSION: fingerprint,
  LOCATION_HINT: locationHint === "" ? hintBeside(control?.running_in_region) : locationHint,
});

function whyUpload(target: Target, state: State, hasAddress: boolean): string | undefined {
  const { worker } = state;
  if (worker === undefined) return "it is not there";
  const misbound = whyMisbound(target, state, worker);
  if (misbound !== undefined) return misbound;
  if (worker.fingerprint !== target.fingerprint) return "its code or settings are others";
  const isAsDerived = ([name, value]: [string, string]): boolean => worker.vars.get(name) === value;
  if (!Object.entries(derivedVars(target, state.databases.get(CONTROL))).every(isAsDerived))
    return "its settings are others";
  if (!worker.secrets.includes(SECRET)) return `it has no ${SECRET}`;
  if (target.isPublic && !worker.isPublic && !hasAddress) return "it has no address";
  if (!target.isPublic && worker.isPublic) return "it has a workers.dev address";
  if (target.domains.some((domain) => state.domains.get(domain) === undefined)) return "a domain of it is not attached";
  if ([...worker.crons].sort().join() !== [...target.crons].sort().join()) return "its crons are others";
  return consumesAsItShould(target, state) ? undefined : "it does not take its queues' messages as it should";
}

function whyMisbound({ databases, bucket }: Target, state: State, worker: Worker): string | undefined {
  for (const { binding, name } of databases) {
    const bound = worker.databases.get(binding);
    const database = state.databases.get(binding);
    if (bound === undefined) return `it is not bound to ${name}`;
    if (database === undefined) return `its database ${name} is gone`;
    if (bound !== database.uuid) return `${binding} is another database than ${name}`;
  }
  return bucket && whyMisarchived(bucket, state, worker);
}

function whyMisarchived({ name, jurisdiction }: TargetBucket, state: State, { bucket }: Worker): string | undefined {
  if (bucket === undefined) return `it is not bound to ${name}`;
  const isSame = bucket.name === name && bucket.jurisdiction === jurisdiction;
  if (!isSame) return `${ARCHIVE} is another bucket than ${name}`;
  return state.hasBucket ? undefined : `its bucket ${name} is gone`;
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

const line = (what: string, isThere: boolean, otherwise: string): string =>
  `${what.padEnd(9)} ${isThere ? "is there" : otherwise}`;

/** The plan for people, a line for each kind of part. */
export function describePlan(target: Target, state: State, plan: Plan): string[] {
  const { createDatabases, createQueues, growths } = plan;
  const migrations = new Set([...plan.migrations.values()].flat().map(({ file }) => file));
  return [
    line("databases", createDatabases.length === 0, `make ${named(createDatabases)}${placeOf(target)}`),
    ...elsewhere(target, state),
    line("replicas", !plan.replicate, "have them kept, of keys and meters for the edge"),
    line("tables", migrations.size === 0, `apply ${[...migrations].join(", ")}`),
    describeBucket(target, plan),
    line("queues", createQueues.length === 0, `make ${createQueues.join(", ")}`),
    line("secret", !plan.setSecret, `make a ${SECRET}`),
    `Worker    ${plan.upload === undefined ? "is up to date" : `deploy ${target.worker}: ${plan.upload}`}`,
    `self-test ${plan.selfTest ? "run it" : "was passed"}`,
    ...growths.flatMap(describeGrowth),
  ];
}

function describeBucket(target: Target, { createBucket }: Plan): string {
  const { bucket } = target;
  if (bucket === undefined) return "bucket    none: events stay in D1";
  return line("bucket", createBucket === undefined, `make ${bucket.name}${placeOf({ ...target, ...bucket })}`);
}

function describeGrowth({ name, from, to }: Growth): string[] {
  if (name === "databases") return [`events    go to ${to} databases, ${GROWTH_MINUTES} minutes after that`];
  return [
    `${name === "event_log_shards" ? "live" : "test"} log  grows from ${from} to ${to} shards after that, and cannot shrink again`,
    "          for 24 hours, each new shard asks the old ones about its keys, once a commit",
  ];
}

type Place = { readonly locationHint: string; readonly jurisdiction: string };

function placeOf({ locationHint, jurisdiction }: Place): string {
  if (jurisdiction !== "") return `, within ${jurisdiction}`;
  const region = regionOf(locationHint);
  return region === undefined ? "" : `, in ${region}`;
}

/** More databases than anybody wants to read. */
const NAMED = 6;

const named = (databases: readonly TargetDatabase[]): string =>
  databases.length > NAMED ? `${databases.length} of them` : databases.map(({ name }) => name).join(", ");

/** A line for each database that is in another region than LOCATION_HINT says. */
function elsewhere({ locationHint }: Target, { databases }: State): string[] {
  const region = regionOf(locationHint);
  if (region === undefined) return [];
  return [...databases.values()].flatMap(({ name, running_in_region }) => {
    const actual = running_in_region?.toLowerCase();
    if (actual === undefined || actual === region) return [];
    return [`          ${name} in ${actual}, not ${region}: a database stays where it was made`];
  });
}
