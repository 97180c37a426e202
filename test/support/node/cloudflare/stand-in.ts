import type { FastifyInstance } from "fastify";
import { hashOf } from "../../../../src/catalog/key-hash.ts";
import type { Account, Binding, Database, Worker } from "./account.ts";
import { ApiFailure } from "./api.ts";

const METER = "mtr_test_self_test";

/**
 * What a deployed Worker answers at `/NAME/…`, as far as a deployment asks: it knows the keys and meters of
 * the control database that it is bound to, and counts an event, of test mode, when it consumes that mode's queue.
 */
export function serveWorkers(server: FastifyInstance, account: Account, countsEvents: () => boolean): void {
  type Asked = { Params: { name: string }; Body: string; Querystring: { customer: string } };

  const workerOf = (name: string): Worker => {
    const worker = account.workers.get(name);
    if (worker === undefined) throw new ApiFailure(404, 0, "there is nothing here yet");
    return worker;
  };
  /** What a request with a key of its database reaches. */
  const reached = (name: string, authorization = ""): { worker: Worker; sql: Database["sql"] } => {
    const worker = workerOf(name);
    const id = bindingOf(worker, "DB")?.id;
    const sql = account.databases.values().find(({ uuid }) => uuid === id)?.sql;
    if (sql === undefined) throw new ApiFailure(503, 0, "D1 does not answer");
    const keys = sql.prepare("SELECT id FROM api_keys WHERE hash = ? AND livemode = 0 AND revoked_at IS NULL");
    const isKnown = keys.get(hashOf(authorization.replace("Bearer ", ""))) !== undefined;
    if (!isKnown) throw new ApiFailure(401, 0, "Invalid API Key");
    return { worker, sql };
  };
  const consumesItsQueue = (worker: Worker): boolean => {
    const queue = account.queues.get(String(bindingOf(worker, "TEST_EVENT_QUEUE")?.queue_name));
    return queue?.consumers.some(({ script }) => script === worker.name) ?? false;
  };

  server.get<Asked>("/:name/health", ({ params }) => ({ status: "ok", version: versionOf(workerOf(params.name)) }));
  server.post<Asked>("/:name/v1/billing/meters", ({ params, headers, body }) => {
    const { sql } = reached(params.name, headers.authorization);
    const form = new URLSearchParams(body);
    sql
      .prepare(`INSERT INTO meters (id, livemode, event_name, display_name, formula, customer_key, value_key, status, created, updated)
        VALUES (?, 0, ?, ?, 'sum', 'stripe_customer_id', 'value', 'active', 0, 0)`)
      .run(METER, form.get("event_name"), form.get("display_name"));
    return { id: METER };
  });
  server.post<Asked>("/:name/v2/billing/meter_events", ({ params, headers, body }) => {
    const { worker } = reached(params.name, headers.authorization);
    const { stripe_customer_id: customer, value } = JSON.parse(body).payload;
    if (countsEvents() && consumesItsQueue(worker)) worker.sums.set(customer, Number(value));
    return { identifier: "an-identifier" };
  });
  server.get<Asked>(`/:name/v1/billing/meters/${METER}/event_summaries`, ({ params, headers, query }) => {
    const sum = reached(params.name, headers.authorization).worker.sums.get(query.customer);
    return { data: sum === undefined ? [] : [{ aggregated_value: sum }] };
  });
}

const bindingOf = ({ versions }: Worker, name: string): Binding | undefined =>
  versions[0]?.bindings.find((binding) => binding.name === name);

/** The version that a response of /health names: the one before for as long as that responds. */
function versionOf(worker: Worker): unknown {
  const { versions, staleResponses = 0 } = worker;
  const isStale = staleResponses > 0;
  if (isStale) worker.staleResponses = staleResponses - 1;
  return versions[isStale ? 1 : 0]?.bindings.find(({ name }) => name === "DEPLOYED_VERSION")?.text;
}
