// As much of Cloudflare's API, below an account, as wrangler and the deployment use.
import { DatabaseSync } from "node:sqlite";
import {
  type Account,
  aWorker,
  type Binding,
  type Bucket,
  type Consumer,
  type Database,
  type Queue,
  type Worker,
} from "./account.ts";

/** The account's part of workers.dev. */
const SUBDOMAIN = "example-account";

/** A call: what its path left open, its query, its headers and its body. wrangler sends some JSON as text. */
type Call = {
  readonly params: Readonly<Record<string, string>>;
  readonly query: Readonly<Record<string, string | string[]>>;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly json: <T>() => T;
  readonly form: () => Promise<FormData>;
};

/** By method and path, what is answered as the `result`. */
export type Routes = Readonly<Record<string, (call: Call) => unknown>>;

/** What is answered with `success: false`. */
export class ApiFailure extends Error {
  readonly status: number;
  readonly code: number;

  constructor(status: number, code: number, message: string) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** Throws an ApiFailure for what is not there. */
function required<T>(found: T | undefined, code: number, what: string): T {
  if (found === undefined) throw new ApiFailure(404, code, `${what} does not exist on your account`);
  return found;
}

let made = 0;

/** An id like Cloudflare's, another each time. */
const newId = (): string => `00000000-0000-4000-8000-${String(++made).padStart(12, "0")}`;

export const routesOf = (account: Account): Routes => ({
  ...databaseRoutes(account),
  ...bucketRoutes(account),
  ...queueRoutes(account),
  ...workerRoutes(account),
  ...domainRoutes(account),
});

/** D1, with real SQL. */
function databaseRoutes({ databases }: Account): Routes {
  const databaseOf = ({ params: { id } }: Call): Database => {
    const found = databases.values().find(({ uuid, name }) => uuid === id || name === id);
    return required(found, 7404, `The database ${id}`);
  };
  return {
    "GET /d1/database": () => [...databases.values()].map(described),
    "GET /d1/database/:id": (call) => described(databaseOf(call)),
    "POST /d1/database": ({ json }) => {
      type Body = Pick<Database, "name" | "jurisdiction"> & { readonly primary_location_hint?: string };
      // Without a hint it is made near the client: in Western Europe, here.
      const { name, primary_location_hint: location = "weur", jurisdiction } = json<Body>();
      if (databases.has(name)) throw new ApiFailure(400, 7502, "A database with that name already exists");
      const uuid = newId();
      databases.set(name, { uuid, name, location, jurisdiction, replicated: false, sql: new DatabaseSync(":memory:") });
      // Where it runs is not in this response.
      return { uuid, name };
    },
    "PUT /d1/database/:id": (call) => {
      const database = databaseOf(call);
      const { read_replication: replication } = call.json<{ read_replication: { mode: string } }>();
      if (replication.mode !== "auto") throw new ApiFailure(400, 7400, "an unknown setting");
      database.replicated = true;
      return described(database);
    },
    "DELETE /d1/database/:id": (call) => void databases.delete(databaseOf(call).name),
    "POST /d1/database/:id/query": (call) => runSql(databaseOf(call), call.json<{ sql: string }>().sql),
  };
}

const described = ({ uuid, name, location, jurisdiction, replicated }: Database): object => ({
  ...{ uuid, name, jurisdiction: jurisdiction ?? null, running_in_region: location?.toUpperCase() },
  read_replication: { mode: replicated ? "auto" : "disabled" },
});

/** All statements or none. */
function runSql({ sql, lacks = [] }: Database, text: string): object[] {
  const missing = lacks.find((name) => text.includes(`${name}(`));
  if (missing !== undefined) throw new ApiFailure(400, 7500, `no such table: ${missing}: SQLITE_ERROR`);
  sql.exec("BEGIN");
  try {
    const results = statementsOf(text).map((statement) => sql.prepare(statement).all());
    sql.exec("COMMIT");
    return results.map((rows) => ({ results: rows, success: true, meta: { duration: 1 } }));
  } catch (error) {
    sql.exec("ROLLBACK");
    throw new ApiFailure(400, 7500, String(error));
  }
}

/** The statements of a script whose lines end where a statement does; a trigger ends with END. */
function statementsOf(script: string): string[] {
  const statements: string[] = [];
  let current = "";
  for (const part of script.split(/(?<=;)[ \t]*(?:\n|$)/)) {
    current += part;
    if (/CREATE TRIGGER/.test(current) && !/\bEND;$/.test(current)) continue;
    statements.push(current);
    current = "";
  }
  return statements.filter((statement) => statement.replaceAll(/--.*$/gm, "").trim() !== "");
}

/** R2: a jurisdiction sees its own buckets only. */
function bucketRoutes({ buckets }: Account): Routes {
  const within = ({ headers }: Call): string => String(headers["cf-r2-jurisdiction"] ?? "default");
  const bucketOf = (call: Call): Bucket => {
    const found = buckets.get(call.params.name ?? "");
    return required(found?.jurisdiction === within(call) ? found : undefined, 10_006, "The specified bucket");
  };
  return {
    "GET /r2/buckets/:name": bucketOf,
    "POST /r2/buckets": (call) => {
      const { name, locationHint: location } = call.json<{ name: string; locationHint?: string }>();
      const jurisdiction = within(call);
      if (buckets.has(name)) throw new ApiFailure(409, 10_004, "The bucket you tried to create already exists");
      if (location !== undefined && jurisdiction !== "default") throw new ApiFailure(400, 10_001, "a hint as well");
      buckets.set(name, { name, location, jurisdiction });
      return buckets.get(name);
    },
    "DELETE /r2/buckets/:name": (call) => void buckets.delete(bucketOf(call).name),
  };
}

function queueRoutes({ queues, workers }: Account): Routes {
  const queueOf = ({ params: { id } }: Call): Queue => {
    const found = queues.values().find(({ queue_id }) => queue_id === id);
    return required(found, 11_000, `The queue ${id}`);
  };
  const consumerOf = (call: Call): Consumer => {
    const found = queueOf(call).consumers.find(({ consumer_id }) => consumer_id === call.params.consumer);
    return required(found, 11_001, `The consumer ${call.params.consumer}`);
  };
  type Body = { readonly type: string; readonly script_name: string; readonly settings: object };
  return {
    "GET /queues": ({ query: { name } }) =>
      [...queues.values()].filter(({ queue_name }) => name === undefined || [name].flat().includes(queue_name)),
    "POST /queues": ({ json }) => {
      const { queue_name: name } = json<{ queue_name: string }>();
      if (queues.has(name)) throw new ApiFailure(409, 11_009, `Queue name '${name}' is already taken`);
      queues.set(name, { queue_id: newId(), queue_name: name, consumers: [] });
      return queues.get(name);
    },
    "DELETE /queues/:id": (call) => {
      const { consumers, queue_name } = queueOf(call);
      if (consumers.length > 0) throw new ApiFailure(400, 11_005, "This queue has consumers");
      queues.delete(queue_name);
    },
    "POST /queues/:id/consumers": (call) => {
      const { type, script_name: script, settings } = call.json<Body>();
      const { consumers } = queueOf(call);
      if (consumers.length > 0) throw new ApiFailure(409, 11_004, "Queue already has a consumer");
      if (!workers.has(script)) throw new ApiFailure(400, 11_012, `There is no Worker '${script}'`);
      consumers.push({ consumer_id: newId(), type, script, settings: settingsOf(settings) });
      return consumers[0];
    },
    "PUT /queues/:id/consumers/:consumer": (call) => {
      const consumer = consumerOf(call);
      consumer.settings = settingsOf(call.json<Body>().settings);
      return consumer;
    },
    "DELETE /queues/:id/consumers/:consumer": (call) => {
      const { consumers } = queueOf(call);
      consumers.splice(consumers.indexOf(consumerOf(call)), 1);
    },
  };
}

/** Without what is 0, as the API gives it back. */
const settingsOf = (settings: object): Consumer["settings"] =>
  Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== 0));

function workerRoutes(account: Account): Routes {
  const { workers, queues } = account;
  const workerOf = ({ params: { name = "" } }: Call, code = 10_007): Worker =>
    required(workers.get(name), code, `This Worker (${name})`);
  return {
    "GET /workers/subdomain": () => ({ subdomain: SUBDOMAIN }),
    // What wrangler learns the address from.
    "GET /workers/workers/:name": (call) => {
      const worker = workerOf(call);
      return { id: worker.name, name: worker.name, subdomain: publicity(worker) };
    },
    // wrangler groups the environments of a Worker by tags.
    "PATCH /workers/scripts/:name/script-settings": (call) => {
      const { tags } = call.json<Pick<Worker, "tags">>();
      workerOf(call).tags = tags;
      return { tags };
    },
    "GET /workers/services/:name": (call) => {
      const { name, tags } = workerOf(call, 10_090);
      const script = { id: name, tag: `tag-of-${name}`, tags, last_deployed_from: "wrangler" };
      return { id: name, default_environment: { environment: "production", script } };
    },
    // What wrangler asks when it deletes a Worker: whether another one needs it, and whether it had assets.
    "GET /storage/kv/namespaces": () => [],
    "GET /workers/scripts/:name/references": () => ({}),
    "GET /workers/tails/by-consumer/:name": () => [],
    "DELETE /workers/services/:name": (call) => {
      const { name } = workerOf(call, 10_090);
      const isConsumer = queues.values().some(({ consumers }) => consumers.some(({ script }) => script === name));
      if (isConsumer) throw new ApiFailure(400, 10_064, "This Worker is a consumer of a queue");
      workers.delete(name);
    },
    "PUT /workers/scripts/:name": async ({ params: { name = "" }, form }) =>
      upload(account, name, JSON.parse(String((await form()).get("metadata")))),
    // The bindings of the version that runs. Secrets are there by their names.
    "GET /workers/scripts/:name/settings": (call) => {
      const { versions, secrets } = workerOf(call);
      return { bindings: [...(versions[0]?.bindings ?? []), ...named(secrets)] };
    },
    "GET /workers/scripts/:name/secrets": (call) => named(workerOf(call).secrets),
    "GET /workers/scripts/:name/deployments": (call) => ({
      deployments: workerOf(call).versions.map(({ id }) => ({
        ...{ id, source: "wrangler", strategy: "percentage", author_email: "engineer@example.com" },
        ...{ created_on: "2026-11-22T00:00:00Z", versions: [{ version_id: id, percentage: 100 }] },
      })),
    }),
    "GET /workers/scripts/:name/versions/:id": (call) => {
      const { id } = call.params;
      const found = workerOf(call).versions.find((version) => version.id === id);
      const { annotations, bindings } = required(found, 10_029, `The version ${id}`);
      return { id, annotations, resources: { bindings } };
    },
    "GET /workers/scripts/:name/subdomain": (call) => publicity(workerOf(call)),
    "POST /workers/scripts/:name/subdomain": (call) => {
      const worker = workerOf(call);
      worker.isPublic = call.json<{ enabled: boolean }>().enabled;
      return publicity(worker);
    },
    "GET /workers/scripts/:name/schedules": (call) => ({ schedules: workerOf(call).crons.map((cron) => ({ cron })) }),
    "PUT /workers/scripts/:name/schedules": (call) => {
      const schedules = call.json<{ cron: string }[]>();
      workerOf(call).crons = schedules.map(({ cron }) => cron);
      return { schedules };
    },
  };
}

const named = (secrets: Worker["secrets"]): object[] =>
  [...secrets.keys()].map((name) => ({ name, type: "secret_text" }));

const publicity = ({ name, isPublic }: Worker): object => ({
  ...{ enabled: isPublic, previews_enabled: isPublic },
  url: `https://${name}.${SUBDOMAIN}.workers.dev`,
});

/** What comes with the code of a Worker. */
type Metadata = {
  readonly bindings: readonly Binding[];
  readonly keep_bindings?: readonly string[];
  readonly annotations?: Readonly<Record<string, string>>;
};

/** A first or new version of a Worker, which runs at once. What it is bound to must exist. */
function upload(account: Account, name: string, metadata: Metadata): object {
  const { keep_bindings: kept = [], annotations = {} } = metadata;
  for (const binding of metadata.bindings) refuseDangling(account, binding);
  const worker = account.workers.get(name) ?? aWorker(name);
  if (!kept.includes("secret_text")) worker.secrets.clear();
  const { secret_text: secrets = [], others = [] } = Object.groupBy(metadata.bindings, ({ type }) =>
    type === "secret_text" ? type : "others",
  );
  for (const { name: secret, text } of secrets) worker.secrets.set(secret, String(text));
  const bindings = others.map((binding) => resolved(worker, binding));
  const id = newId();
  worker.versions.unshift({ id, annotations, bindings, metadata });
  account.workers.set(name, worker);
  return { id: name, tag: `tag-of-${name}`, deployment_id: id, startup_time_ms: 1 };
}

/** A binding that is to stay what it was. */
function resolved({ versions }: Worker, binding: Binding): Binding {
  if (binding.type !== "inherit") return binding;
  const before = versions[0]?.bindings.find(({ name }) => name === binding.name);
  return required(before, 10_021, `A binding ${binding.name} to inherit`);
}

function refuseDangling({ databases, buckets, queues }: Account, { type, name, ...binding }: Binding): void {
  const dangles =
    (type === "d1" && !databases.values().some(({ uuid }) => uuid === (binding.id ?? binding.database_id))) ||
    (type === "r2_bucket" &&
      buckets.get(String(binding.bucket_name))?.jurisdiction !== (binding.jurisdiction ?? "default")) ||
    (type === "queue" && !queues.has(String(binding.queue_name)));
  if (dangles) throw new ApiFailure(400, 10_021, `binding ${name} of type ${type} refers to what does not exist`);
}

/** Custom domains: wrangler asks what would change, then sets them, whatever Worker they led to. */
const domainRoutes = ({ domains }: Account): Routes => ({
  "GET /workers/domains": ({ query }) =>
    [...domains].flatMap(([hostname, service]) => (hostname === query.hostname ? [{ hostname, service }] : [])),
  "POST /workers/scripts/:name/domains/changeset": () => ({ added: [], removed: [], updated: [], conflicting: [] }),
  "PUT /workers/scripts/:name/domains/records": ({ params: { name = "" }, json }) => {
    for (const { hostname } of json<{ origins: { hostname: string }[] }>().origins) domains.set(hostname, name);
  },
});
