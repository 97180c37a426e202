// One Idempotency-Key, one request; what a retry is told; and the order in which events were received.
import { evictDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, describe, expect, it, vi } from "vitest";
import { LOCAL_KEYS } from "../../../scripts/local-keys.ts";
import { identifierOfKey, orderAt, uniqueKey } from "../../../src/domain/identifiers.ts";
import { type Aggregation, isLiveMeter } from "../../../src/domain/meter.ts";
import { DAY_MS, floorTo, HOUR_MS, MINUTE_MS } from "../../../src/domain/window.ts";
import { requireMeter } from "../../../src/http/v1/meters.ts";
import { EventLog } from "../../../src/index.ts";
import { customerMeter } from "../../../src/ingest/customer-meter-stub.ts";
import { Partitions } from "../../../src/log/partitions.ts";
import { anEventId, resultOf, unique } from "../../support/builders.ts";
import { readSummaries } from "../../support/summaries.ts";
import {
  aNewEvent,
  answerOf,
  aToken,
  createdMeter,
  eventually,
  FUTURE,
  liveShardOf,
  storedEvents,
  TEST_LOG,
} from "../support.ts";

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

type Meter = { readonly id: string; readonly event_name: string };

const EVENTS = "/v2/billing/meter_events";
const V1_EVENTS = "/v1/billing/meter_events";
const ADJUSTMENTS = "/v2/billing/meter_event_adjustments";
const SESSION = "/v2/billing/meter_event_session";
const STREAM = "/v2/billing/meter_event_stream";

const REUSED = { error: { type: "idempotency_error" } };

const anEvent = ({ event_name }: Meter, fields: Record<string, unknown> = {}) => ({
  event_name,
  payload: { stripe_customer_id: "cus_1", value: "25" },
  ...fields,
});

const post = (path: string, idempotencyKey: string | undefined, body: object, key?: string) =>
  answerOf(path, {
    body,
    ...(key === undefined ? {} : { key }),
    headers: idempotencyKey === undefined ? {} : { "idempotency-key": idempotencyKey },
  });

const postForm = (path: string, idempotencyKey: string, fields: Record<string, string>) =>
  answerOf(path, { form: String(new URLSearchParams(fields)), headers: { "idempotency-key": idempotencyKey } });

const cancellation = ({ event_name }: Meter, identifier: string) => ({
  event_name,
  type: "cancel",
  cancel: { identifier },
});

async function stream(events: readonly object[], idempotencyKey?: string, key?: string) {
  return post(STREAM, idempotencyKey, { events }, await aToken(key));
}

/** What a meter's summary of today and its neighbours says, once all its events are stored. */
async function summaryOf(meter: Meter, events: number): Promise<bigint | undefined> {
  await eventually(async () => expect(await storedEvents(meter.id)).toBe(events));
  const found = resultOf(await requireMeter({ env, key: { livemode: isLiveMeter(meter.id) } } as never, meter.id));
  const start = floorTo(Date.now(), DAY_MS) - 40 * DAY_MS;
  const range = { start, end: start + 42 * DAY_MS };
  const query = { meter: found, customer: "cus_1", range, windowLength: 42 * DAY_MS, limit: 1 };
  const [summary] = resultOf(await readSummaries(env, { ...query, order: "newest_first" }));
  return summary?.value;
}

describe("one Idempotency-Key", () => {
  it("belongs to one event: other identifiers under it are refused and count nowhere", async () => {
    const meter = await createdMeter();
    const key = unique("key");
    const first = unique("a");
    expect(await post(EVENTS, key, anEvent(meter, { identifier: first }))).toMatchObject({ status: 200 });
    for (const identifier of [unique("a"), unique("a"), undefined]) {
      expect(await post(EVENTS, key, anEvent(meter, { identifier }))).toMatchObject({ status: 409, body: REUSED });
    }
    expect(await post(EVENTS, key, anEvent(meter, { identifier: first }))).toMatchObject({ status: 200 });
    expect(await summaryOf(meter, 1)).toBe(25n);
  });

  /** Requests of every kind under one key. Each has an event of its own to cancel. */
  const requests = {
    "an event": (meter: Meter, key: string) => post(EVENTS, key, anEvent(meter)),
    "an event with an identifier": (meter: Meter, key: string) =>
      post(EVENTS, key, anEvent(meter, { identifier: unique("b") })),
    "a v1 event": (meter: Meter, key: string) =>
      postForm(V1_EVENTS, key, {
        event_name: meter.event_name,
        "payload[stripe_customer_id]": "cus_1",
        "payload[value]": "25",
      }),
    "a stream of that event": async (meter: Meter, key: string) => stream([anEvent(meter)], key),
    "an adjustment": async (meter: Meter, key: string) => {
      const identifier = unique("cancelled");
      await post(EVENTS, undefined, anEvent(meter, { identifier }));
      return post(ADJUSTMENTS, key, cancellation(meter, identifier));
    },
    "a session": (_: Meter, key: string) => post(SESSION, key, {}),
    "a meter": (_: Meter, key: string) =>
      postForm("/v1/billing/meters", key, {
        display_name: "Tokens",
        event_name: unique("tokens"),
        "default_aggregation[formula]": "sum",
      }),
    "a deactivation": async (_: Meter, key: string) => {
      const { id } = await createdMeter();
      return postForm(`/v1/billing/meters/${id}/deactivate`, key, {});
    },
  };
  const names = Object.keys(requests) as (keyof typeof requests)[];

  it.each(names)("that came with %s is refused for every other request", async (first) => {
    const meter = await createdMeter();
    const key = unique("key");
    expect(await requests[first](meter, key)).toMatchObject({ status: 200 });
    for (const other of names) {
      // The same session may be asked for again; all other requests have something of their own.
      if (other === first && (other === "a session" || /^a.* event$/.test(other) || /stream/.test(other))) continue;
      const { status, body } = await requests[other](meter, key);
      expect({ other, status: [400, 409].includes(status), body }).toMatchObject({ other, status: true, body: REUSED });
    }
  });

  it("stays claimed when its request was refused after it", async () => {
    const meter = await createdMeter();
    const identifier = unique("taken");
    await post(EVENTS, undefined, anEvent(meter, { identifier }));
    const key = unique("key");
    const refused = { status: 400, body: { error: { code: "duplicate_meter_event" } } };
    for (const _ of [1, 2]) expect(await post(EVENTS, key, anEvent(meter, { identifier }))).toMatchObject(refused);
    expect(await post(EVENTS, key, anEvent(meter, { identifier: unique("free") }))).toMatchObject({
      status: 409,
      body: REUSED,
    });
    const unknown = unique("unknown");
    const other = unique("key");
    expect(await post(ADJUSTMENTS, other, cancellation(meter, unknown))).toMatchObject({ status: 400 });
    expect(await post(EVENTS, other, anEvent(meter))).toMatchObject({ status: 409, body: REUSED });
  });

  it("is not claimed by a request that breaks a rule", async () => {
    const meter = await createdMeter();
    const key = unique("key");
    const bad = anEvent(meter, { identifier: unique("c"), payload: { stripe_customer_id: "cus_1", value: "-1" } });
    expect(await post(EVENTS, key, bad)).toMatchObject({ status: 400 });
    expect(await post(EVENTS, key, anEvent(meter, { identifier: unique("c") }))).toMatchObject({ status: 200 });
  });

  it("that the SDK made for one request claims nothing", async () => {
    const meter = await createdMeter();
    const key = `stripe-node-retry-${unique("key")}`;
    for (const identifier of [unique("d"), unique("d")]) {
      expect(await post(EVENTS, key, anEvent(meter, { identifier }))).toMatchObject({ status: 200 });
    }
    expect(await summaryOf(meter, 2)).toBe(50n);
  });

  it("is no event: its claim can be neither retrieved nor cancelled", async () => {
    const meter = await createdMeter();
    const key = unique("key");
    await post(EVENTS, key, anEvent(meter, { identifier: unique("e") }));
    const claimed = identifierOfKey(false, key);
    expect(await answerOf(`${V1_EVENTS}/${claimed}`)).toMatchObject({ status: 404 });
    expect(await post(ADJUSTMENTS, undefined, cancellation(meter, claimed))).toMatchObject({
      status: 400,
      body: { error: { code: "invalid_cancel_configuration" } },
    });
  });

  it("belongs to one endpoint: the same adjustment at the other API version is refused", async () => {
    const meter = await createdMeter();
    const identifier = unique("cancelled");
    await post(EVENTS, undefined, anEvent(meter, { identifier }));
    const key = unique("key");
    expect(await post(ADJUSTMENTS, key, cancellation(meter, identifier))).toMatchObject({ status: 200 });
    const form = { event_name: meter.event_name, type: "cancel", "cancel[identifier]": identifier };
    expect(await postForm("/v1/billing/meter_event_adjustments", key, form)).toMatchObject({
      status: 400,
      body: REUSED,
    });
  });

  it("is refused for another request also where a rule refuses that one", async () => {
    const meter = await createdMeter();
    const key = unique("key");
    await post(EVENTS, key, anEvent(meter, { identifier: unique("j") }));
    const payload = { stripe_customer_id: "cus_1", value: "-1" };
    const bad = anEvent(meter, { identifier: unique("j"), payload });
    expect(await post(EVENTS, key, bad)).toMatchObject({ status: 409, body: REUSED });
  });

  it("answers one request that comes twelve times at once the same each time, and counts it once", async () => {
    for (const identified of [false, true]) {
      for (const key of [unique("key"), `stripe-node-retry-${unique("key")}`]) {
        const meter = await createdMeter();
        const event = anEvent(meter, identified ? { identifier: unique("k") } : {});
        const answers = await Promise.all(Array.from({ length: 12 }, () => post(EVENTS, key, event)));
        expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
        expect(answers.filter(({ headers }) => headers.get("idempotent-replayed") === null)).toHaveLength(1);
        expect(await summaryOf(meter, 1)).toBe(25n);
      }
    }
  });

  it("lets an adjustment through while the log takes no events", async () => {
    const meter = await createdMeter();
    const identifier = unique("l");
    await post(EVENTS, undefined, anEvent(meter, { identifier }));
    vi.spyOn(Partitions.prototype, "size", "get").mockReturnValue(9_000_000_000);
    expect(await post(EVENTS, unique("key"), anEvent(meter))).toMatchObject({ status: 503 });
    expect(await post(ADJUSTMENTS, unique("key"), cancellation(meter, identifier))).toMatchObject({ status: 200 });
  });

  it.each(["key \u00e8", "key \u00e9", "key\tb"])("consists of printable ASCII: %j is refused", async (key) => {
    const meter = await createdMeter();
    expect(await post(EVENTS, key, anEvent(meter))).toMatchObject({
      status: 400,
      body: { error: { message: expect.stringContaining("printable ASCII") } },
    });
  });
});

describe("identifiers that the service makes", () => {
  it("cannot be reported, alone or in streams", async () => {
    const meter = await createdMeter();
    const identifier = identifierOfKey(false, unique("coming"));
    const refused = { status: 400, body: { error: { message: expect.stringContaining("em_") } } };
    expect(await post(EVENTS, undefined, anEvent(meter, { identifier }))).toMatchObject(refused);
    expect(await stream([anEvent(meter), anEvent(meter, { identifier })])).toMatchObject(refused);
    const form = {
      event_name: meter.event_name,
      identifier,
      "payload[stripe_customer_id]": "c",
      "payload[value]": "1",
    };
    expect(await postForm(V1_EVENTS, unique("key"), form)).toMatchObject(refused);
    await post(EVENTS, undefined, anEvent(meter));
    expect(await summaryOf(meter, 1)).toBe(25n);
  });

  it("can be cancelled by the caller that was given one", async () => {
    const meter = await createdMeter();
    const { body } = await post(EVENTS, unique("key"), anEvent(meter));
    expect(await post(ADJUSTMENTS, unique("key"), cancellation(meter, String(body.identifier)))).toMatchObject({
      status: 200,
    });
  });
});

describe("a replayed answer", () => {
  it("says so, and names the request that it was given to first", async () => {
    const meter = await createdMeter();
    const identifier = unique("f");
    await post(EVENTS, undefined, anEvent(meter, { identifier }));
    const replayable = {
      event: (key: string) => post(EVENTS, key, anEvent(meter)),
      "event with an identifier": (key: string) => post(EVENTS, key, anEvent(meter, { identifier: `id of ${key}` })),
      adjustment: (key: string) => post(ADJUSTMENTS, key, cancellation(meter, identifier)),
      meter: (key: string) =>
        postForm("/v1/billing/meters", key, {
          display_name: "Tokens",
          event_name: `name of ${key}`,
          "default_aggregation[formula]": "sum",
        }),
    };
    for (const [name, request] of Object.entries(replayable)) {
      const key = unique("key");
      const first = await request(key);
      expect([name, first.status, first.headers.get("idempotent-replayed")]).toEqual([name, 200, null]);
      const again = await request(key);
      expect(again).toMatchObject({ status: 200, body: first.body });
      expect(again.headers.get("idempotent-replayed")).toBe("true");
      expect(again.headers.get("original-request")).toBe(first.headers.get("request-id"));
      expect(again.headers.get("request-id")).not.toBe(first.headers.get("request-id"));
    }
  });
});

describe("writes of one customer at once", () => {
  it("are refused at the first attempt, and all succeed at the second, which waits in line", async () => {
    const meter = await createdMeter();
    const keys = Array.from({ length: 16 }, () => `stripe-node-retry-${unique("key")}`);
    const report = (key: string) => post(EVENTS, key, anEvent(meter));
    const first = await Promise.all(keys.map(report));
    expect(new Set(first.map(({ status }) => status))).toEqual(new Set([200, 409]));
    const refused = keys.filter((_, i) => first[i]?.status === 409);
    const second = await Promise.all(refused.map(report));
    expect(new Set(second.map(({ status }) => status))).toEqual(new Set([200]));
    expect(await summaryOf(meter, 16)).toBe(400n);
  });

  it("are at most a hundred in line", async () => {
    const meter = await createdMeter();
    const record = (keyDigest: string) =>
      customerMeter(env, meter.id, "cus_1").record(aNewEvent({ meter: meter.id, keyDigest }), undefined, TEST_LOG);
    const release = Promise.withResolvers<void>();
    const { append } = EventLog.prototype;
    vi.spyOn(EventLog.prototype, "append").mockImplementationOnce(async function (this: EventLog, entries, context) {
      await release.promise;
      return append.call(this, entries, context);
    });
    const first = record(unique("digest"));
    const keys = Array.from({ length: 110 }, () => unique("digest"));
    const busy = (count: number) => Array.from({ length: count }, () => ({ outcome: "busy" }));
    // The first attempts are refused at once, and so is the part of the retries that finds no place in line.
    expect(await Promise.all(keys.map(record))).toEqual(busy(110));
    const inLine = keys.slice(0, 100).map(record);
    expect(await Promise.all(keys.slice(100).map(record))).toEqual(busy(10));
    release.resolve();
    expect(await first).toMatchObject({ outcome: "accepted" });
    await Promise.all(inLine);
  });

  it("are not refused when the platform repeats a call that is under way", async () => {
    const meter = await createdMeter();
    const lock = customerMeter(env, meter.id, "cus_1");
    const event = aNewEvent({ meter: meter.id });
    const outcomes = await Promise.all([1, 2].map(() => lock.record(event, undefined, TEST_LOG)));
    expect(outcomes.map(({ outcome }) => outcome)).toEqual(["accepted", "accepted"]);
    expect(await summaryOf(meter, 1)).toBe(25n);
  });

  it("without a key are refused each time", async () => {
    const meter = await createdMeter();
    const answers = await Promise.all(Array.from({ length: 50 }, () => post(EVENTS, undefined, anEvent(meter))));
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200, 409]));
  });
});

describe("receipt order", () => {
  const HOUR = { event_time_window: "hour" };
  const DAY = { event_time_window: "day" };
  const LAST = { "default_aggregation[formula]": "last" };
  const aggregationOf = (kind: Record<string, string>): Aggregation =>
    kind === LAST ? "latest_of_quarter_hour" : kind === HOUR ? "last_received_of_hour" : "last_received_of_day";
  const kinds: [string, Record<string, string>][] = [
    ["a `last` meter", LAST],
    ["an hour's window", HOUR],
    ["a day's window", DAY],
  ];

  it.each(kinds)(
    "of a stream's events is that of the request, over all shards and in one commit: %s",
    async (_, kind) => {
      for (const length of [5, 50]) {
        const meter = await createdMeter(kind, LOCAL_KEYS.live);
        const timestamp = new Date().toISOString();
        const events = Array.from({ length }, (_, i) =>
          anEvent(meter, {
            identifier: unique("g"),
            timestamp,
            payload: { stripe_customer_id: "cus_1", value: String(i + 1) },
          }),
        );
        expect(await stream(events, undefined, LOCAL_KEYS.live)).toMatchObject({ status: 200 });
        expect(await summaryOf(meter, length)).toBe(BigInt(length));
      }
    },
  );

  it.each(kinds)(
    "of single events is that of their turns, also when an edge's clock is behind: %s",
    async (_, kind) => {
      const meter = await createdMeter(kind);
      const timestamp = Date.now();
      for (const [value, clock] of [
        [1, 5_000],
        [2, 0],
        [3, 2_500],
      ] as const) {
        const event = aNewEvent({ meter: meter.id, timestamp, value, id: anEventId(orderAt(timestamp + clock)) });
        const admitted = { ...event, event: { ...event.event, aggregation: aggregationOf(kind) } };
        const recorded = await customerMeter(env, meter.id, "cus_1").record(admitted, undefined, TEST_LOG);
        expect(recorded).toMatchObject({ outcome: "accepted" });
      }
      expect(await summaryOf(meter, 3)).toBe(3n);
    },
  );

  it.each(kinds)("of single events survives the lock: %s", async (_, kind) => {
    const meter = await createdMeter(kind);
    const timestamp = Date.now();
    for (const [value, clock] of [
      [1, 5_000],
      [2, 0],
    ] as const) {
      const lock = customerMeter(env, meter.id, "cus_1");
      const event = aNewEvent({ meter: meter.id, timestamp, value, id: anEventId(orderAt(timestamp + clock)) });
      const admitted = { ...event, event: { ...event.event, aggregation: aggregationOf(kind) } };
      expect(await lock.record(admitted, undefined, TEST_LOG)).toMatchObject({ outcome: "accepted" });
      await evictDurableObject(lock);
    }
    expect(await summaryOf(meter, 2)).toBe(2n);
  });

  it.each([
    ["a caller's key", () => unique("key")],
    ["an SDK's key", () => `stripe-node-retry-${unique("key")}`],
  ])("of a stream's events survives a shard that failed: under %s", async (_, aKey) => {
    const meter = await createdMeter(LAST, LOCAL_KEYS.live);
    const timestamp = new Date().toISOString();
    const identifiers = Array.from({ length: 6 }, () => unique("m"));
    const events = identifiers.map((identifier, i) =>
      anEvent(meter, { identifier, timestamp, payload: { stripe_customer_id: "cus_1", value: String(i + 1) } }),
    );
    const key = aKey();
    const { append } = EventLog.prototype;
    const first = liveShardOf(uniqueKey(true, identifiers[0] ?? ""));
    vi.spyOn(EventLog.prototype, "append").mockImplementation(function (this: EventLog, entries, context) {
      const fails = entries.some(({ kind, key }) => kind === "event" && liveShardOf(key) === first);
      return fails ? Promise.reject(new Error("Network connection lost.")) : append.call(this, entries, context);
    });
    vi.spyOn(console, "error").mockImplementation(() => {});
    expect(await stream(events, key, LOCAL_KEYS.live)).toMatchObject({ status: 503 });
    vi.restoreAllMocks();
    expect(await stream(events, key, LOCAL_KEYS.live)).toMatchObject({ status: 200 });
    expect(await summaryOf(meter, 6)).toBe(6n);
  });
});

describe("a stream under an Idempotency-Key", () => {
  it("is the same request whatever the order of its payloads' keys", async () => {
    const meter = await createdMeter();
    const key = unique("key");
    const payloads = [
      { stripe_customer_id: "cus_1", value: "25" },
      { value: "25", stripe_customer_id: "cus_1" },
    ];
    for (const payload of payloads)
      expect(await stream([anEvent(meter, { payload })], key)).toMatchObject({ status: 200 });
    expect(await summaryOf(meter, 1)).toBe(25n);
  });

  it("names other events once its claim has expired, also when a retry had stored the first ones later", async () => {
    const meter = await createdMeter();
    const key = unique("key");
    const { append } = EventLog.prototype;
    vi.spyOn(EventLog.prototype, "append").mockImplementation(function (this: EventLog, entries, context) {
      const fails = entries.some(({ kind }) => kind === "event");
      return fails ? Promise.reject(new Error("Network connection lost.")) : append.call(this, entries, context);
    });
    vi.spyOn(console, "error").mockImplementation(() => {});
    vi.useFakeTimers({ toFake: ["Date"], now: FUTURE });
    expect(await stream([anEvent(meter)], key)).toMatchObject({ status: 503 });
    vi.restoreAllMocks();
    vi.setSystemTime(FUTURE + 2 * HOUR_MS);
    expect(await stream([anEvent(meter)], key)).toMatchObject({ status: 200 });
    vi.setSystemTime(FUTURE + DAY_MS + MINUTE_MS);
    expect(await stream([anEvent(meter)], key)).toMatchObject({ status: 200 });
    vi.useRealTimers();
    await eventually(async () => expect(await storedEvents(meter.id)).toBe(2));
  });
});

describe("refused events of streams", () => {
  const codesOf = async (meter: Meter, count: number): Promise<unknown[]> => {
    const all = "SELECT code, count FROM error_reports WHERE meter = ? ORDER BY code";
    const query = env.TEST_EVENTS.prepare(all).bind(meter.id);
    return eventually(async () => {
      const { results } = await query.all<{ code: string; count: number }>();
      const codes = results.flatMap((row) => Array.from({ length: row.count }, () => row.code));
      expect(codes).toHaveLength(count);
      return codes;
    });
  };

  it("are reported each, also when they have one identifier", async () => {
    const meter = await createdMeter();
    const refused = (value: string) => ({ stripe_customer_id: "cus_1", value });
    const identifier = unique("n");
    const events = ["0", "-1"].map((value) => anEvent(meter, { identifier, payload: refused(value) }));
    for (const _ of [1, 2]) expect(await stream(events)).toMatchObject({ status: 200 });
    expect(await codesOf(meter, 2)).toEqual(["meter_event_invalid_value", "meter_event_invalid_value"]);
  });

  it("are reported again when another rule refuses them", async () => {
    const meter = await createdMeter();
    const identifier = unique("o");
    const ahead = new Date(Date.now() + 6 * MINUTE_MS).toISOString();
    const report = anEvent(meter, { identifier, timestamp: ahead });
    await stream([report]);
    await post(EVENTS, undefined, anEvent(meter, { identifier }));
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 2 * MINUTE_MS });
    expect(await stream([report])).toMatchObject({ status: 200 });
    vi.useRealTimers();
    expect(await codesOf(meter, 2)).toEqual(["duplicate_meter_event", "timestamp_in_future"]);
  });

  it("are not lost when the log is full before the report of a duplicate is stored", async () => {
    const meter = await createdMeter();
    const identifier = unique("p");
    await post(EVENTS, undefined, anEvent(meter, { identifier }));
    vi.spyOn(Partitions.prototype, "size", "get").mockReturnValue(9_000_000_000);
    const other = anEvent(meter, { identifier, payload: { stripe_customer_id: "cus_1", value: "1" } });
    expect(await stream([other])).toMatchObject({ status: 503, body: { error: { code: "log_full" } } });
    vi.restoreAllMocks();
    expect(await stream([other])).toMatchObject({ status: 200 });
    expect(await codesOf(meter, 1)).toEqual(["duplicate_meter_event"]);
  });
});
