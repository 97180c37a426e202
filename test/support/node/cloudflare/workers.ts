import { z } from "zod";
import type { Account, Binding, Version, Worker } from "./account.ts";
import { ApiFailure, type ApiRequest, newId, type Route } from "./route.ts";

/** The account's part of workers.dev. */
export const SUBDOMAIN = "example-account";

const Metadata = z.looseObject({
  bindings: z.array(z.looseObject({ type: z.string(), name: z.string() })),
  keep_bindings: z.array(z.string()).default([]),
  annotations: z.record(z.string(), z.string()).default({}),
});

const Crons = z.array(z.object({ cron: z.string() }));

export const WORKER_ROUTES: readonly Route[] = [
  ["GET", "/workers/subdomain", () => ({ subdomain: SUBDOMAIN })],
  ["GET", "/workers/workers/*", ({ account, params }) => overview(workerOf(account, params[0]))],
  ["PATCH", "/workers/scripts/*/script-settings", tag],
  ["GET", "/workers/services/*", ({ account, params }) => service(workerOf(account, params[0], 10_090))],
  // What wrangler asks when it deletes a Worker: whether another one needs it, and whether it had assets.
  ["GET", "/storage/kv/namespaces", () => []],
  ["GET", "/workers/scripts/*/references", () => ({})],
  ["GET", "/workers/tails/by-consumer/*", () => []],
  ["DELETE", "/workers/services/*", removeWorker],
  ["PUT", "/workers/scripts/*", upload],
  ["GET", "/workers/scripts/*/settings", settings],
  [
    "GET",
    "/workers/scripts/*/secrets",
    ({ account, params }) =>
      [...workerOf(account, params[0]).secrets.keys()].map((name) => ({ name, type: "secret_text" })),
  ],
  [
    "GET",
    "/workers/scripts/*/deployments",
    ({ account, params }) => ({
      deployments: workerOf(account, params[0]).versions.map(({ id }) => ({
        id,
        source: "wrangler",
        strategy: "percentage",
        author_email: "engineer@example.com",
        created_on: "2026-11-22T00:00:00Z",
        versions: [{ version_id: id, percentage: 100 }],
      })),
    }),
  ],
  ["GET", "/workers/scripts/*/versions/*", version],
  ["GET", "/workers/scripts/*/subdomain", ({ account, params }) => publicity(workerOf(account, params[0]))],
  [
    "POST",
    "/workers/scripts/*/subdomain",
    ({ account, params, json }) => {
      const worker = workerOf(account, params[0]);
      worker.isPublic = json().enabled === true;
      return publicity(worker);
    },
  ],
  [
    "GET",
    "/workers/scripts/*/schedules",
    ({ account, params }) => ({ schedules: workerOf(account, params[0]).crons.map((cron) => ({ cron })) }),
  ],
  [
    "PUT",
    "/workers/scripts/*/schedules",
    ({ account, params, json }) => {
      const worker = workerOf(account, params[0]);
      worker.crons = Crons.parse(Object.values(json())).map(({ cron }) => cron);
      return { schedules: worker.crons.map((cron) => ({ cron })) };
    },
  ],
];

const Origins = z.object({ origins: z.array(z.object({ hostname: z.string() })) });

/** Custom domains: wrangler asks what would change, then sets them, whomever they led to. */
export const DOMAIN_ROUTES: readonly Route[] = [
  [
    "GET",
    "/workers/domains",
    ({ account, query }) =>
      [...account.domains]
        .filter(([hostname]) => hostname === query.get("hostname"))
        .map(([hostname, service]) => ({ hostname, service })),
  ],
  ["POST", "/workers/scripts/*/domains/changeset", () => ({ added: [], removed: [], updated: [], conflicting: [] })],
  [
    "PUT",
    "/workers/scripts/*/domains/records",
    ({ account, params: [name = ""], json }) => {
      for (const { hostname } of Origins.parse(json()).origins) account.domains.set(hostname, name);
      return null;
    },
  ],
];

function workerOf({ workers }: Account, name: string | undefined, code = 10_007): Worker {
  const worker = workers.get(name ?? "");
  if (worker === undefined) throw new ApiFailure(404, code, `This Worker does not exist on your account: ${name}`);
  return worker;
}

const service = ({ name, tags }: Worker): object => ({
  id: name,
  default_environment: {
    environment: "production",
    script: { id: name, tag: `tag-of-${name}`, tags, last_deployed_from: "wrangler" },
  },
});

/** What wrangler learns the address from. */
const overview = (worker: Worker): object => ({ id: worker.name, name: worker.name, subdomain: publicity(worker) });

/** wrangler groups the environments of a Worker by tags. */
function tag({ account, params, json }: ApiRequest): object {
  const worker = workerOf(account, params[0]);
  worker.tags = z.array(z.string()).parse(json().tags);
  return { tags: worker.tags };
}

const publicity = ({ name, isPublic }: Worker): object => ({
  enabled: isPublic,
  previews_enabled: isPublic,
  url: `https://${name}.${SUBDOMAIN}.workers.dev`,
});

function removeWorker({ account, params: [name] }: ApiRequest): null {
  workerOf(account, name, 10_090);
  const consumes = [...account.queues.values()].some(({ consumers }) =>
    consumers.some(({ script }) => script === name),
  );
  if (consumes) throw new ApiFailure(400, 10_064, "This Worker is a consumer of a queue");
  account.workers.delete(name ?? "");
  return null;
}

/** The bindings of the version that runs. Secrets are there by their names. */
function settings({ account, params }: ApiRequest): object {
  const { versions, secrets } = workerOf(account, params[0]);
  const hidden = [...secrets.keys()].map((name) => ({ type: "secret_text", name }));
  return { bindings: [...(versions[0]?.bindings ?? []), ...hidden] };
}

function version({ account, params: [name, id] }: ApiRequest): object {
  const found = workerOf(account, name).versions.find((candidate) => candidate.id === id);
  if (found === undefined) throw new ApiFailure(404, 10_029, "This version does not exist");
  return { id: found.id, annotations: found.annotations, resources: { bindings: found.bindings } };
}

/** A first or new version of a Worker, which runs at once. What it is bound to must exist. */
async function upload({ account, params, form }: ApiRequest): Promise<object> {
  const name = params[0] ?? "";
  const metadata = Metadata.parse(JSON.parse(String((await form()).get("metadata"))));
  for (const binding of metadata.bindings) refuseDangling(account, binding);
  const worker: Worker = account.workers.get(name) ?? {
    name,
    versions: [],
    secrets: new Map(),
    crons: [],
    isPublic: false,
    tags: [],
    sums: new Map(),
  };
  const isSecret = ({ type }: Binding): boolean => type === "secret_text";
  if (!metadata.keep_bindings.includes("secret_text")) worker.secrets.clear();
  for (const { name: secret, text } of metadata.bindings.filter(isSecret)) worker.secrets.set(secret, String(text));
  const uploaded: Version = {
    id: newId(),
    annotations: metadata.annotations,
    bindings: metadata.bindings.filter((binding) => !isSecret(binding)).map((binding) => resolved(worker, binding)),
    metadata,
  };
  worker.versions.unshift(uploaded);
  account.workers.set(name, worker);
  return { id: name, tag: `tag-of-${name}`, deployment_id: uploaded.id, startup_time_ms: 1 };
}

/** A binding that is to stay what it was. */
function resolved({ versions }: Worker, binding: Binding): Binding {
  if (binding.type !== "inherit") return binding;
  const before = versions[0]?.bindings.find(({ name }) => name === binding.name);
  if (before === undefined) throw new ApiFailure(400, 10_021, `there is no binding ${binding.name} to inherit`);
  return before;
}

function refuseDangling({ databases, queues }: Account, { type, name, ...binding }: Binding): void {
  const dangles =
    (type === "d1" && ![...databases.values()].some(({ uuid }) => uuid === (binding.id ?? binding.database_id))) ||
    (type === "queue" && !queues.has(String(binding.queue_name)));
  if (dangles) throw new ApiFailure(400, 10_021, `binding ${name} of type ${type} refers to what does not exist`);
}
