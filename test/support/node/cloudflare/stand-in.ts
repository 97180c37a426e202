import { z } from "zod";
import { hashOf } from "../../../../src/catalog/key-hash.ts";
import type { Account, Database, Worker } from "./account.ts";

const Event = z.object({ payload: z.object({ stripe_customer_id: z.string(), value: z.string() }) });

const failure = (status: number, message: string): Response => Response.json({ error: { message } }, { status });

/**
 * What a deployed Worker answers at `/NAME/…`, as far as a deployment asks: it knows the keys and meters of
 * the database that it is bound to, and counts an event when it consumes the queue that it is bound to.
 */
export function answerAsWorker(account: Account, countsEvents: boolean, request: Request, body: string): Response {
  const { pathname, searchParams } = new URL(request.url);
  const [, name = "", ...rest] = pathname.split("/");
  const worker = account.workers.get(name);
  if (worker === undefined) return failure(404, "there is nothing here yet");
  const route = `${request.method} /${rest.join("/")}`;
  if (route === "GET /health") return Response.json({ status: "ok", version: versionOf(worker) });
  const database = boundDatabase(account, worker);
  if (database === undefined) return failure(503, "D1 does not answer");
  if (!isKey(database, request.headers.get("authorization") ?? "")) return failure(401, "Invalid API Key");
  if (route === "POST /v1/billing/meters") return Response.json(createMeter(database, new URLSearchParams(body)));
  if (route === "POST /v2/billing/meter_events") {
    const { stripe_customer_id: customer, value } = Event.parse(JSON.parse(body)).payload;
    if (countsEvents && consumesItsQueue(account, worker)) worker.sums.set(customer, Number(value));
    return Response.json({ identifier: "an-identifier" });
  }
  const [meter] = /(?<=^GET \/v1\/billing\/meters\/)[^/]+(?=\/event_summaries$)/.exec(route) ?? [];
  if (meter === undefined || !hasMeter(database, meter)) return failure(404, "no such route or meter");
  const sum = worker.sums.get(searchParams.get("customer") ?? "");
  return Response.json({ data: sum === undefined ? [] : [{ aggregated_value: sum }] });
}

const bindingOf = ({ versions }: Worker, type: string) =>
  versions[0]?.bindings.find((binding) => binding.type === type);

/** The version that a response of /health names: the one before for as long as that responds. */
function versionOf(worker: Worker): unknown {
  const { versions, staleResponses = 0 } = worker;
  const isStale = staleResponses > 0;
  if (isStale) worker.staleResponses = staleResponses - 1;
  return versions[isStale ? 1 : 0]?.bindings.find(({ name }) => name === "DEPLOYED_VERSION")?.text;
}

const boundDatabase = ({ databases }: Account, worker: Worker): Database | undefined =>
  [...databases.values()].find(({ uuid }) => uuid === bindingOf(worker, "d1")?.id);

const consumesItsQueue = ({ queues }: Account, worker: Worker): boolean =>
  queues.get(String(bindingOf(worker, "queue")?.queue_name))?.consumers.some(({ script }) => script === worker.name) ??
  false;

const isKey = ({ sql }: Database, authorization: string): boolean =>
  sql
    .prepare("SELECT id FROM api_keys WHERE hash = ? AND livemode = 0 AND revoked_at IS NULL")
    .get(hashOf(authorization.replace("Bearer ", ""))) !== undefined;

const hasMeter = ({ sql }: Database, id: string): boolean =>
  sql.prepare("SELECT id FROM meters WHERE id = ?").get(id) !== undefined;

function createMeter({ sql }: Database, form: URLSearchParams): { id: string } {
  const id = "mtr_test_self_test";
  sql
    .prepare(`INSERT INTO meters (id, livemode, event_name, display_name, formula, customer_key, value_key, status, created, updated)
      VALUES (?, 0, ?, ?, 'sum', 'stripe_customer_id', 'value', 'active', 0, 0)`)
    .run(id, form.get("event_name"), form.get("display_name"));
  return { id };
}
