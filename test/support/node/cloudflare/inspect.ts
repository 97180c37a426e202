import type { Account, Binding, Database } from "./account.ts";
import type { Call, FakeCloudflare } from "./server.ts";

/** What of the calls changes anything. Queries of D1 are all POSTs; those that only read are none of it. */
export const changesOf = ({ calls }: FakeCloudflare): string[] =>
  calls.filter(isChange).map(({ method, path }) => `${method} ${path.replace(/\?.*/, "").replaceAll(ID, "ID")}`);

const ID = /[0-9a-f]{8}-0000-4000-8000-\d{12}/g;

const isChange = ({ method, path, body }: Call): boolean =>
  method !== "GET" && !(path.endsWith("/query") && /^\{"sql":"SELECT/.test(body));

/** What runs under a name, by the names of its bindings. */
function bindingsOf({ workers }: Account, worker: string): Record<string, Binding> {
  const bindings = workers.get(worker)?.versions[0]?.bindings ?? [];
  return Object.fromEntries(bindings.map((binding) => [binding.name, binding]));
}

/** A Worker of the account, with what runs and its database of the same name. Throws when it is not deployed. */
export function deployed(account: Account, name = "edgemeter") {
  const worker = account.workers.get(name);
  const database = account.databases.get(name);
  const [running] = worker?.versions ?? [];
  if (worker === undefined || database === undefined || running === undefined) throw new Error(`there is no ${name}`);
  return { worker, running, database, sql: database.sql, bindings: bindingsOf(account, name) };
}

/** The keys of a database that work, by a column of them. */
export const keysIn = ({ sql }: Pick<Database, "sql">, column: "id" | "hash" = "id"): unknown[] =>
  sql
    .prepare("SELECT * FROM api_keys WHERE revoked_at IS NULL")
    .all()
    .map((key) => key[column]);

/** All that an account has, without ids, times and the values of secrets: what two runs must agree on. */
export const describeAccount = ({ domains, workers, databases, buckets, queues }: Account): object => ({
  domains: [...domains],
  workers: [...workers.values()].map(({ name, versions, secrets, crons, isPublic }) => ({
    name,
    tag: versions[0]?.annotations["workers/tag"],
    bindings: versions[0]?.bindings.map(({ type, name: binding, text, queue_name, bucket_name, id }) => ({
      type,
      binding,
      text,
      queue_name,
      bucket_name,
      database: [...databases.values()].find(({ uuid }) => uuid === id)?.name,
    })),
    secrets: [...secrets.keys()],
    crons,
    isPublic,
  })),
  databases: [...databases.values()].map(({ name, location, jurisdiction, sql }) => ({
    name,
    location,
    jurisdiction,
    tables: sql.prepare("SELECT name FROM sqlite_master ORDER BY name").all(),
  })),
  buckets: [...buckets.values()],
  queues: [...queues.values()].map(({ queue_name, consumers }) => ({
    queue_name,
    consumers: consumers.map(({ script, settings }) => ({ script, settings })),
  })),
});

/** The values of all secrets of an account. */
export const secretsOf = ({ workers }: Account): string[] =>
  [...workers.values()].flatMap(({ secrets }) => [...secrets.values()]);
