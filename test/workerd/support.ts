import { env, exports } from "cloudflare:workers";
import { vi } from "vitest";
import { LOCAL_KEYS } from "../../scripts/local-keys.ts";
import { newEventId, uniqueKey } from "../../src/domain/identifiers.ts";
import type { ClaimAppend, EventAppend } from "../../src/log/entries.ts";
import type { EventLog } from "../../src/log/event-log.ts";
import { unique } from "../support/builders.ts";

/** A time of the tests (ms). It lies ahead, since the runtime rings an alarm that lies behind at once. */
export const FUTURE = Date.UTC(2040, 5, 15, 3);

/** An event on its way into the log: 25 for a customer, in test mode, with an identifier of its own. */
export function aNewEvent(
  changes: Partial<EventAppend> & { customer?: string; timestamp?: number; value?: number; meter?: string } = {},
): EventAppend {
  const { customer = "cus_1", timestamp, value = 25, meter = "mtr_test_1", ...rest } = changes;
  const identifier = changes.identifier ?? unique("identifier");
  return {
    kind: "event",
    key: uniqueKey(false, identifier),
    shard: 0,
    id: newEventId(Date.now()),
    identifier,
    event: { meter, customer, value, aggregation: "additive", timestamp, dimensions: undefined },
    keyDigest: undefined,
    reportDigest: `report of ${identifier}`,
    claims: false,
    ...rest,
  };
}

/** The same event once more, as a client's retry brings it. */
export const again = (event: EventAppend): EventAppend => ({ ...event, id: newEventId(Date.now()) });

/** The claim of an Idempotency-Key by a request of its own. */
export function aClaim(): ClaimAppend {
  const { key, shard, reportDigest } = aNewEvent();
  return { kind: "claim", key, shard, reportDigest, claims: true };
}

/** A shard of its own for a test; its number is what the aggregator confirms to. */
export function aShard(): { shard: number; log: DurableObjectStub<EventLog> } {
  const shard = 1_000 + nextShard++;
  return { shard, log: env.EVENT_LOG.getByName(`shard-${shard}`) };
}

let nextShard = 0;

type Call = {
  method?: string;
  key?: string | undefined;
  body?: unknown;
  form?: string | Record<string, string>;
  idempotencyKey?: string | undefined;
  headers?: Record<string, string>;
};

/** Calls the Worker as a client does. A `body` is sent as JSON, text and a `form` as they stand. */
export function call(path: string, request: Call = {}): Promise<Response> {
  const { method, key = LOCAL_KEYS.test, body, form, idempotencyKey, headers = {} } = request;
  const fields = form === undefined ? undefined : String(new URLSearchParams(form));
  const content = body === undefined ? fields : typeof body === "string" ? body : JSON.stringify(body);
  const type = body === undefined ? "application/x-www-form-urlencoded" : "application/json";
  return exports.default.fetch(`http://edgemeter.test${path}`, {
    method: method ?? (content === undefined ? "GET" : "POST"),
    headers: {
      authorization: `Bearer ${key}`,
      ...(content === undefined ? {} : { "content-type": type }),
      ...(idempotencyKey === undefined ? {} : { "idempotency-key": idempotencyKey }),
      ...headers,
    },
    ...(content === undefined ? {} : { body: content }),
  });
}

/** A call's status and JSON body. */
export async function answerOf(
  path: string,
  request?: Call,
): Promise<{ status: number; body: Record<string, unknown>; headers: Headers }> {
  const response = await call(path, request);
  return { status: response.status, body: await response.json(), headers: response.headers };
}

/** The token of a new session. */
export async function aToken(key?: string): Promise<string> {
  const { body } = await answerOf("/v2/billing/meter_event_session", { key, body: {} });
  return String(body.authentication_token);
}

/** Fields of a meter to which an event name is added. */
export const A_METER = { display_name: "Tokens", "default_aggregation[formula]": "sum" };

/** Creates a meter over the API, with an event name of its own. */
export async function createdMeter(
  fields: Record<string, string> = {},
  key: string = LOCAL_KEYS.test,
): Promise<{ id: string; event_name: string }> {
  const response = await call("/v1/billing/meters", {
    key,
    form: { ...A_METER, event_name: unique("tokens"), ...fields },
  });
  if (response.status !== 200) throw new Error(await response.text());
  return response.json();
}

/** Waits until a check passes. */
export const eventually = <T>(check: () => T | Promise<T>): Promise<T> =>
  vi.waitFor(check, { timeout: 30_000, interval: 20 });

/** How many events of a meter D1 has. */
export async function storedEvents(meter: string): Promise<number> {
  return (
    (await env.DB.prepare("SELECT COUNT(*) AS count FROM events WHERE meter = ?").bind(meter).first<number>("count")) ??
    0
  );
}

/** Messages as the queue hands them to the aggregator. */
export const aBatch = (bodies: readonly string[]): MessageBatch =>
  ({ messages: bodies.map((body, i) => ({ id: `message ${i}`, body })), ackAll: () => {} }) as unknown as MessageBatch;
