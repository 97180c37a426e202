// What responses say of how complete they are, and reads that wait: with the real log, queue and four databases.
import { env } from "cloudflare:workers";
import { afterEach, beforeAll, beforeEach, expect, it, vi } from "vitest";
import { LOCAL_KEYS } from "../../../scripts/local-keys.ts";
import { eventsDatabase } from "../../../src/catalog/databases.ts";
import { allPlaces, databaseOf } from "../../../src/domain/placement.ts";
import { contextOf } from "../../../src/log/calls.ts";
import { Completeness, type Sources } from "../../../src/log/completeness.ts";
import { eventLog, recordedLogOfMode } from "../../../src/log/shards.ts";
import { unique } from "../../support/builders.ts";
import { D1, HostileD1 } from "../hostile-d1.ts";
import { aContext, aNewEvent, answerOf, aShard, createdMeter, eventually, growTo } from "../support.ts";

beforeAll(() => growTo(4, 0));
beforeEach(() => {
  vi.spyOn(console, "error").mockImplementation(() => {});
});
afterEach(() => {
  vi.restoreAllMocks();
});

type Reader = { readonly meter: string; readonly key?: string };

/** A customer whose events on a meter are in one of four databases. */
const customerIn = (meter: string, place: number): string => {
  for (;;) {
    const customer = unique("cus");
    if (databaseOf(meter, customer, 4) === place) return customer;
  }
};

async function report(meter: { event_name: string }, customer: string, key: string = LOCAL_KEYS.live): Promise<void> {
  const { status } = await answerOf("/v2/billing/meter_events", {
    key,
    body: { event_name: meter.event_name, payload: { stripe_customer_id: customer, value: "5" } },
  });
  expect(status).toBe(200);
}

/** What the summary of a customer says, and its headers; `wait` is the request's own. */
async function summaryOf({ meter, key = LOCAL_KEYS.live }: Reader, customer: string, wait?: string) {
  const hour = Math.floor(Date.now() / 3_600_000) * 3_600;
  const path = `/v1/billing/meters/${meter}/event_summaries?customer=${customer}&start_time=${hour - 3_600}&end_time=${hour + 7_200}`;
  const { status, body, headers } = await answerOf(path, { key, headers: wait ? { "edgemeter-wait": wait } : {} });
  const [summary] = (body.data ?? []) as { aggregated_value: number }[];
  const through = headers.get("edgemeter-complete-through");
  return {
    status,
    body,
    value: summary?.aggregated_value,
    through: through === null ? undefined : Date.parse(through),
  };
}

it("a read that waits has what was reported before it, and lists do", async () => {
  const meter = await createdMeter({}, LOCAL_KEYS.live);
  const before = Date.now();
  for (const place of [0, 1, 2, 3]) {
    const customer = customerIn(meter.id, place);
    await report(meter, customer);
    const { status, value, through } = await summaryOf({ meter: meter.id }, customer, "10");
    expect({ status, value }).toEqual({ status: 200, value: 5 });
    expect(through).toBeGreaterThan(before - 1_100);
    const path = `/v1/billing/meter_events?meter=${meter.id}&customer=${customer}`;
    const { body, headers } = await answerOf(path, { key: LOCAL_KEYS.live, headers: { "edgemeter-wait": "10" } });
    expect(body.data).toHaveLength(1);
    expect(headers.get("edgemeter-complete-through")).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  }
});

it("an event is in every response that is said to be complete beyond its receipt", async () => {
  const meter = await createdMeter({}, LOCAL_KEYS.live);
  const customer = customerIn(meter.id, 1);
  await report(meter, customer);
  const received = Date.now();
  await eventually(async () => {
    const { value, through = 0 } = await summaryOf({ meter: meter.id }, customer);
    if (through > received) expect(value).toBe(5);
    expect(through).toBeGreaterThan(received);
  });
});

it("a delayed database holds back its own moment, and the waits for it alone", async () => {
  const meter = await createdMeter({}, LOCAL_KEYS.live);
  const [delayed, other] = [customerIn(meter.id, 2), customerIn(meter.id, 3)];
  const d1 = new HostileD1([eventsDatabase(env, true, 2)]);
  // It can be read, and takes nothing.
  d1.fate = (call, queries) => (queries.length > 1 ? D1.isAway() : call());
  const before = Date.now();
  await report(meter, delayed);
  const after = Date.now();
  await report(meter, other);
  expect(await summaryOf({ meter: meter.id }, other, "10")).toMatchObject({ status: 200, value: 5 });
  expect(await summaryOf({ meter: meter.id }, delayed, "0")).toMatchObject({
    status: 503,
    body: { error: { code: "not_included_in_time" } },
  });
  await eventually(async () => {
    const { through = 0 } = await summaryOf({ meter: meter.id }, other);
    expect(through).toBeGreaterThan(after);
  });
  const { status, value, through } = await summaryOf({ meter: meter.id }, delayed);
  expect({ status, value }).toEqual({ status: 200, value: undefined });
  expect(through).toBeGreaterThanOrEqual(before);
  expect(through).toBeLessThanOrEqual(after);
});

it("a parked event holds back the moment, and no wait succeeds", async () => {
  const meter = await createdMeter();
  const reader = { meter: meter.id, key: LOCAL_KEYS.test };
  const before = Date.now();
  const poison = { ...aNewEvent({ meter: meter.id }), identifier: null as never };
  await eventLog(env, "test-0").append([poison], aContext({ shards: [1] }));
  const after = Date.now();
  const letter = await eventually(async () => {
    const { body } = await answerOf("/v1/edgemeter/dead_letters");
    const [letter] = body.data as { id: string }[];
    expect(letter).toBeDefined();
    return String(letter?.id);
  });
  await report(meter, "cus_2", LOCAL_KEYS.test);
  expect((await summaryOf(reader, "cus_2", "1")).status).toBe(503);
  await eventually(async () => expect((await summaryOf(reader, "cus_2")).value).toBe(5));
  const { through } = await summaryOf(reader, "cus_2");
  expect(through).toBeGreaterThanOrEqual(before);
  expect(through).toBeLessThanOrEqual(after);
  await env.TEST_EVENTS.prepare("UPDATE dead_letters SET redriven = 1 WHERE id = ?").bind(letter).run();
  expect((await summaryOf(reader, "cus_2", "10")).status).toBe(200);
});

it("a shard says how far it is by database, and since when its newest entries are there", async () => {
  const { log } = aShard();
  const before = Date.now();
  vi.spyOn(env.TEST_EVENT_QUEUE, "sendBatch").mockResolvedValue({} as never);
  expect(await log.progress(aContext(), false)).toMatchObject({ newest: 0, oldestOf: {}, shards: [] });
  await log.append([aNewEvent()], aContext());
  const { now, newest, oldestOf } = await log.progress(aContext(), false);
  expect(newest).toBeGreaterThanOrEqual(before);
  expect(now).toBeGreaterThanOrEqual(newest);
  expect(oldestOf).toEqual({ 0: newest });
  // By one that has given keys up, readers who know less learn that the log has grown, before a new one takes anything.
  await log.handOver(aContext({ shards: [2_000, 4_000] }));
  expect(await log.progress(aContext({ shards: [2_000] }), false)).toMatchObject({ shards: [2_000, 4_000] });
  await expect(async () => log.progress(aContext({ version: 0 as never }), false)).rejects.toThrow("another version");
});

it("a shard that does not answer leaves the others' word; its own is as old as its last", async () => {
  const sources: Sources = {
    context: () => recordedLogOfMode(env, true),
    ask: (shard, context) => eventLog(env, shard).progress(contextOf(context), false),
    oldestLetter: async () => undefined,
  };
  const clock = { now: () => time, wait: async () => {} };
  let time = Date.now();
  const completeness = new Completeness(clock);
  const first = await completeness.through(sources, allPlaces);
  expect(first).toBeDefined();
  const getByName = env.EVENT_LOG.getByName.bind(env.EVENT_LOG);
  vi.spyOn(env.EVENT_LOG, "getByName").mockImplementation((name, options) =>
    name === "live-2"
      ? ({ progress: () => Promise.reject(new Error("overloaded")) } as never)
      : getByName(name, options),
  );
  time += 60_000;
  const second = await completeness.through(sources, allPlaces);
  expect(second).toBeGreaterThanOrEqual(first ?? 0);
  expect(second).toBeLessThan((first ?? 0) + 1_000);
  expect(await new Completeness(clock).through(sources, allPlaces)).toBeUndefined();
  expect(await completeness.isIncluded(sources, allPlaces, time)).toBe(false);
});

it.each(["11", "-1", "1.5", "soon", "01"])("a wait of %s is refused", async (wait) => {
  const meter = await createdMeter();
  const { status, body } = await summaryOf({ meter: meter.id, key: LOCAL_KEYS.test }, "cus_1", wait);
  expect({ status, body }).toMatchObject({
    status: 400,
    body: {
      error: { message: "Invalid edgemeter-wait: it must be an integer from 0 to 10.", param: "edgemeter-wait" },
    },
  });
});
