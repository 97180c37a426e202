import { runInDurableObject } from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { vi } from "vitest";
import { LOCAL_KEYS } from "../../scripts/local-keys.ts";
import { tableOf } from "../../src/aggregate/sql/events.ts";
import { type LiveSlice, liveSlices } from "../../src/aggregate/sql/slices.ts";
import { eventsDatabases } from "../../src/catalog/databases.ts";
import { writePlacement } from "../../src/catalog/deployment.ts";
import type { MeteringError } from "../../src/domain/errors.ts";
import { hashedTo, newEventId, uniqueKey, uuidOf } from "../../src/domain/identifiers.ts";
import { isLiveMeter, type Meter } from "../../src/domain/meter.ts";
import { ONE_DATABASE, type Placement } from "../../src/domain/placement.ts";
import type { Result } from "../../src/domain/result.ts";
import { settingsOf } from "../../src/env.ts";
import type { LogEntry } from "../../src/log/codec.ts";
import type { LogContext } from "../../src/log/entries.ts";
import { CALL_VERSION, type CallContext, type ClaimAppend, type EventAppend } from "../../src/log/entries.ts";
import type { EventLog } from "../../src/log/event-log.ts";
import { isLiveShard, placeOfShard, shardName } from "../../src/log/shard-name.ts";
import type { EventQuery, Whose } from "../../src/query/event-order.ts";
import { type EventPage, listEvents } from "../../src/query/events.ts";
import { unique } from "../support/builders.ts";

/** A time of the tests (ms). It lies ahead, since the runtime rings an alarm that lies behind at once. */
export const FUTURE = Date.UTC(2040, 5, 15, 3);

/** The shard of live mode that has a unique key, of those that a story begins with. */
export const liveShardOf = (key: string): string => shardName(true, hashedTo(key, settingsOf(env).EVENT_LOG_SHARDS));

/** An event on its way into the log: 25 for a customer, in test mode, with an identifier of its own. */
export function aNewEvent(
  changes: Partial<EventAppend> & { customer?: string; timestamp?: number; value?: number; meter?: string } = {},
): EventAppend {
  const { customer = "cus_1", timestamp, value = 25, meter = "mtr_test_1", ...rest } = changes;
  const identifier = changes.identifier ?? unique("identifier");
  return {
    kind: "event",
    key: uniqueKey(false, identifier),
    id: newEventId(Date.now()),
    identifier,
    apiKey: 1,
    event: { meter, customer, value, aggregation: "additive", timestamp, dimensions: "", payload: undefined },
    keyDigest: undefined,
    reportDigest: `report of ${identifier}`,
    claims: false,
    ...rest,
  };
}

/** What goes with a call of a log: the caller knows one database, and no number of shards. */
export const aContext = (changes: Partial<CallContext> = {}): CallContext => ({
  version: CALL_VERSION,
  placement: ONE_DATABASE,
  shards: [],
  now: Date.now(),
  ...changes,
});

/** What the edge knows of test mode's log. */
export const TEST_LOG: LogContext = { livemode: false, placement: ONE_DATABASE, shards: [1] };

/** The same event once more, as a client's retry brings it. */
export const again = (event: EventAppend): EventAppend => ({ ...event, id: newEventId(Date.now()) });

/** The claim of an Idempotency-Key by a request of its own. */
export function aClaim(): ClaimAppend {
  const { key, reportDigest } = aNewEvent();
  return { kind: "claim", key, reportDigest, claims: true };
}

/** A shard of its own for a test; its name is what the aggregator confirms to. */
export function aShard({ livemode = false } = {}): { shard: string; log: DurableObjectStub<EventLog> } {
  const shard = shardName(livemode, 1_000 + nextShard++);
  return { shard, log: env.EVENT_LOG.getByName(shard) };
}

let nextShard = 0;

/** Leaves an events database as if it had never had any. */
export async function emptyEvents(db: D1Database): Promise<void> {
  const drop = ({ slice }: LiveSlice): D1PreparedStatement => db.prepare(`DROP TABLE ${tableOf(slice)}`);
  const empty = ["series", "sums", "survivors", "slices"].map((table) => db.prepare(`DELETE FROM ${table}`));
  await db.batch([...(await liveSlices(db)).map(drop), ...empty]);
}

/** Live mode's logs that were called since the last story, by their places. */
export const calledLogs = new Set<number>();

/** Leaves the logs of the last story as if they had never been, and notes which are called from now on. */
export async function forgetLogs(): Promise<void> {
  await Promise.all(
    [...calledLogs].map((place) =>
      runInDurableObject(env.EVENT_LOG.getByName(shardName(true, place)), async (_, context) => {
        await context.storage.deleteAlarm();
        await context.storage.deleteAll();
        await context.storage.sync();
        context.abort("forgotten");
      }).catch(() => {}),
    ),
  );
  calledLogs.clear();
  if (vi.isMockFunction(env.EVENT_LOG.getByName)) return;
  const getByName = env.EVENT_LOG.getByName.bind(env.EVENT_LOG);
  vi.spyOn(env.EVENT_LOG, "getByName").mockImplementation((name, options) => {
    if (isLiveShard(name)) calledLogs.add(placeOfShard(name));
    return getByName(name, options);
  });
}

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

/** Records how many databases live mode has had. What has read an earlier record goes on with it for FRESH_MS. */
export const recordPlacement = (placement: Placement): Promise<unknown> =>
  env.DB.prepare("INSERT OR REPLACE INTO deployment (name, value) VALUES ('databases', ?)")
    .bind(writePlacement(placement))
    .run();

/** Has live mode grow from one database to `databases`, of which four are bound, at a time (ms). */
export const growTo = (databases: number, since = Date.now()): Promise<unknown> =>
  recordPlacement([
    { databases: 1, since: 0 },
    { databases, since },
  ]);

/** An event as its slice keeps it, with its series; a UUID in `identifier` is text again. */
export type StoredRow = Omit<LogEntry, "aggregation" | "payload" | "apiKey"> & {
  readonly payload: string | null;
  readonly api_key: number;
  readonly cancelled: number | null;
  readonly cancelled_by: number | null;
};

/** The events of meters in the live slices of a database, in receipt order. */
export async function storedIn(db: D1Database, ...meters: string[]): Promise<StoredRow[]> {
  const slices = await liveSlices(db);
  if (slices.length === 0) return [];
  const read = slices.map(({ slice }) =>
    db
      .prepare(
        `SELECT meter, customer, dimensions, timestamp, stored.id, hex(identifier) AS uuid, identifier, value,
           timestamp + delay AS received, json(payload) AS payload, api_key, cancelled, cancelled_by
         FROM series JOIN ${tableOf(slice)} AS stored ON stored.series = series.id
         WHERE meter IN (SELECT value FROM json_each(?))`,
      )
      .bind(JSON.stringify(meters)),
  );
  const results = await db.batch<StoredRow & { uuid: string }>(read);
  return results
    .flatMap((each) => each.results)
    .map(({ uuid, ...row }) => (typeof row.identifier === "string" ? row : { ...row, identifier: uuidOf(uuid) }))
    .sort((a, b) => (a.id < b.id ? -1 : 1));
}

/** How many events of a meter the databases of its mode have. */
export async function storedEvents(meter: string): Promise<number> {
  const databases = eventsDatabases(env, isLiveMeter(meter));
  return (await Promise.all(databases.map(({ db }) => storedIn(db, meter)))).flat().length;
}

/** Messages as the queue hands them to the aggregator. */
export const aBatch = (bodies: readonly unknown[]): MessageBatch =>
  ({ messages: bodies.map((body, i) => ({ id: `message ${i}`, body })), ackAll: () => {} }) as unknown as MessageBatch;

/** A page of events, newest first: of cus_1 on a meter, unless it is changed. */
export const readPage = (
  meter: Meter,
  changes: Partial<Omit<EventQuery, keyof Whose>> & { readonly [K in keyof Whose]?: Whose[K] } = {},
): Promise<Result<EventPage, MeteringError>> => {
  const always = { start: 0, end: Number.MAX_SAFE_INTEGER };
  return listEvents(env, {
    ...{ meter, customer: "cus_1", late: undefined, range: always, received: always, cancelled: undefined, limit: 11 },
    from: { order: "newest_first", place: undefined },
    ...changes,
  } as EventQuery);
};
