// What a team would write instead of edgemeter, for one box: Fastify and PostgreSQL, in one Node
// process (the load generator and the database have the other core). Runs as a child process with an
// IPC channel: sends its port when it listens, and ends with its parent.
//
// It has the synchronous endpoint, a batch endpoint and summaries of `sum` and `count` meters. It has
// not: Idempotency-Key replay, cancellation, event time windows, error reports, audits, rate limits.
import { createHash, randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import Fastify, { type FastifyError, type FastifyReply, type FastifyRequest } from "fastify";
import { LIMITS } from "../../src/domain/limits.ts";
import { err, ok, type Result } from "../../src/domain/result.ts";
import { admit, type Refusal, type Report, reportSchema } from "./rules.ts";
import { type NewEvent, Store } from "./store.ts";

/** How long after one aggregation the next begins (ms). */
const AGGREGATE_EVERY_MS = 1_000;
const PURGE_EVERY_MS = 3_600_000;
/** How long keys and meters are used without asking for them again (ms). */
const CACHE_MS = 10_000;

const store = new Store();

/** Remembers what was found; "no such" is always the database's own word. */
function cached<T>(find: (...key: string[]) => Promise<T | undefined>): typeof find {
  const found = new Map<string, { value: T; until: number }>();
  return async (...key) => {
    const name = key.join("\0");
    const entry = found.get(name);
    if (entry !== undefined && Date.now() < entry.until) return entry.value;
    const value = await find(...key);
    if (value === undefined) found.delete(name);
    else found.set(name, { value, until: Date.now() + CACHE_MS });
    return value;
  };
}

const findKey = cached((hash = "") => store.findKey(hash));
const findLiveMeter = cached((eventName = "") => store.findMeter(true, eventName));
const findTestMeter = cached((eventName = "") => store.findMeter(false, eventName));

declare module "fastify" {
  interface FastifyRequest {
    /** The mode of the request's key. */
    livemode: boolean;
  }
}

async function authenticate({ headers }: FastifyRequest): Promise<{ livemode: boolean } | undefined> {
  const [scheme = "", credentials = ""] = (headers.authorization ?? "").split(" ");
  const secret =
    scheme.toLowerCase() === "basic" ? Buffer.from(credentials, "base64").toString().split(":")[0] : credentials;
  if (!secret) return undefined;
  return findKey(createHash("sha256").update(secret).digest("hex"));
}

async function admitReport(report: Report, livemode: boolean, now: number): Promise<Result<NewEvent, Refusal>> {
  const meter = await (livemode ? findLiveMeter : findTestMeter)(report.event_name);
  const admitted = admit(report, meter, now);
  if (!admitted.ok) return admitted;
  return ok({ ...admitted.value, identifier: report.identifier ?? `em_${randomUUID()}` });
}

/** Admits an event and stores it, when it is its turn. */
async function record(report: Report, livemode: boolean, now: number): Promise<Result<NewEvent, Refusal>> {
  const admitted = await admitReport(report, livemode, now);
  if (!admitted.ok) return admitted;
  const outcome = await store.record(admitted.value, livemode, new Date(now).toISOString());
  switch (outcome) {
    case "accepted":
      return admitted;
    case "duplicate":
      return err({
        status: 400,
        code: "duplicate_meter_event",
        message: `An event already exists with identifier ${admitted.value.identifier}.`,
      });
    case "busy":
      return err({
        status: 409,
        code: "too_many_concurrent_requests",
        message: "Cannot create multiple usage events for the same customer, meter concurrently.",
      });
  }
}

const refuse = (reply: FastifyReply, { status, code, message }: Refusal) =>
  reply.code(status).send({ error: { code, message } });

const UNAUTHORIZED: Refusal = { status: 401, code: "unauthorized", message: "Invalid API Key provided." };

const eventSchema = {
  type: "object",
  properties: {
    object: { type: "string" },
    created: { type: "string" },
    livemode: { type: "boolean" },
    identifier: { type: "string" },
    event_name: { type: "string" },
    timestamp: { type: "string" },
    payload: { type: "object", additionalProperties: { type: "string" } },
  },
} as const;

const app = Fastify({
  bodyLimit: LIMITS.bodyBytes,
  ajv: { customOptions: { coerceTypes: false, removeAdditional: false, allowUnionTypes: true, strictTypes: false } },
});

app.decorateRequest("livemode", false);

// Before anything is read of the body.
app.addHook("onRequest", async (request, reply) => {
  const key = await authenticate(request);
  if (key === undefined) return refuse(reply, UNAUTHORIZED);
  request.livemode = key.livemode;
});

app.setErrorHandler((error: FastifyError, _request, reply) => {
  const status = error.statusCode ?? 503;
  if (status < 500) return reply.code(status).send({ error: { code: "invalid_fields", message: error.message } });
  console.error(error);
  const message = "The request could not be finished. It is safe to send it again with the same identifier.";
  return reply
    .code(503)
    .header("stripe-should-retry", "true")
    .send({ error: { code: "service_unavailable", message } });
});

app.setNotFoundHandler(({ method, url }, reply) => {
  const message = `Unrecognized request URL (${method}: ${url}).`;
  return reply.code(404).send({ error: { code: "not_found", message } });
});

app.post<{ Body: Report }>(
  "/v2/billing/meter_events",
  { schema: { body: reportSchema, response: { 200: eventSchema } } },
  async (request, reply) => {
    const now = Date.now();
    const recorded = await record(request.body, request.livemode, now);
    if (!recorded.ok) return refuse(reply, recorded.error);
    const { identifier, timestamp, payload } = recorded.value;
    return {
      object: "v2.billing.meter_event",
      created: new Date(now).toISOString(),
      livemode: request.livemode,
      identifier,
      event_name: request.body.event_name,
      timestamp,
      payload,
    };
  },
);

// Takes an API key and not a session's token; says at once what it refuses, instead of in a report.
app.post<{ Body: { events: Report[] } }>(
  "/v2/billing/meter_event_stream",
  {
    bodyLimit: LIMITS.streamBodyBytes,
    schema: {
      body: {
        type: "object",
        required: ["events"],
        additionalProperties: false,
        properties: { events: { type: "array", minItems: 1, maxItems: LIMITS.streamEvents, items: reportSchema } },
      },
    },
  },
  async (request) => {
    const now = Date.now();
    // Of several with the same identifier the first counts.
    const events = new Map<string, NewEvent>();
    const refused: { position: number; code: string }[] = [];
    for (const [position, report] of request.body.events.entries()) {
      const admitted = await admitReport(report, request.livemode, now);
      if (!admitted.ok) refused.push({ position, code: admitted.error.code });
      else if (!events.has(admitted.value.identifier)) events.set(admitted.value.identifier, admitted.value);
    }
    if (events.size > 0) await store.recordMany([...events.values()], request.livemode, new Date(now).toISOString());
    return refused.length === 0 ? {} : { refused };
  },
);

const digits = { type: "string", pattern: "^[0-9]{1,11}$" } as const;

app.get<{ Params: { id: string }; Querystring: { customer: string; start_time: string; end_time: string } }>(
  "/v1/billing/meters/:id/event_summaries",
  {
    schema: {
      querystring: {
        type: "object",
        required: ["customer", "start_time", "end_time"],
        properties: { customer: { type: "string" }, start_time: digits, end_time: digits },
      },
    },
  },
  async ({ livemode, params, query }, reply) => {
    const [start_time, end_time] = [Number(query.start_time), Number(query.end_time)];
    if (start_time % 60 !== 0 || end_time % 60 !== 0 || start_time >= end_time) {
      const message = "start_time and end_time should be aligned with minute boundaries, in this order.";
      return refuse(reply, { status: 400, code: "invalid_fields", message });
    }
    const value = await store.summarize(
      { livemode, meter: params.id, customer: query.customer },
      { start: start_time * 1_000, end: end_time * 1_000 },
    );
    // Written digit by digit: a number would round past 2^53.
    const data = value === undefined ? [] : [{ aggregated_value: JSON.rawJSON(value), start_time, end_time }];
    return reply.type("application/json").send(JSON.stringify({ object: "list", data, has_more: false }));
  },
);

async function aggregateForever(): Promise<never> {
  for (;;) {
    await store.aggregate().catch((error: unknown) => console.error(error));
    await sleep(AGGREGATE_EVERY_MS);
  }
}

process.on("disconnect", () => process.exit());
setInterval(() => store.purge().catch((error: unknown) => console.error(error)), PURGE_EVERY_MS);
void aggregateForever();
process.send?.(await app.listen({ host: "127.0.0.1", port: 0 }));
