// What a Worker meets of the deployment that it is part of. Tests go by their order: what an isolate has
// once learnt, it does not ask again.
import { env } from "cloudflare:workers";
import { afterEach, expect, it, vi } from "vitest";
import { LOCAL_KEYS } from "../../../scripts/local-keys.ts";
import { applyEntries } from "../../../src/aggregate/apply.ts";
import type { Placement } from "../../../src/domain/placement.ts";
import { QUARTER_HOUR_MS, sliceOf } from "../../../src/domain/window.ts";
import type { Env } from "../../../src/env.ts";
import { customerMeter } from "../../../src/ingest/customer-meter-stub.ts";
import { writeEvent } from "../../../src/log/codec.ts";
import { allShards, eventLog } from "../../../src/log/shards.ts";
import { maintain } from "../../../src/scheduled.ts";
import { aLogEntry, NOON } from "../../support/builders.ts";
import { answerOf, createdMeter, recordPlacement, storedIn } from "../support.ts";

afterEach(() => void vi.restoreAllMocks());

/** The Worker's environment with a D1 that says which region it is in, as Cloudflare's does. */
function inRegion(region: string): Env {
  const prepare = (sql: string) => {
    const statement = env.DB.prepare(sql);
    const all = async () => {
      const result = await statement.all();
      return { ...result, meta: { ...result.meta, served_by_region: region } };
    };
    return new Proxy(statement, {
      get: (target, name) => {
        const value: unknown = name === "all" ? all : Reflect.get(target, name);
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
  };
  const { DB } = env;
  const database = new Proxy(DB, {
    get: (target, name) => (name === "prepare" ? prepare : Reflect.get(target, name).bind(target)),
  });
  return { ...env, DB: database };
}

const record = (name: string, value: string): Promise<unknown> =>
  env.DB.prepare("INSERT INTO deployment (name, value) VALUES (?1, ?2)").bind(name, value).run();

it("the schedule calls no log before the first event, so that none is created where it happens to run", async () => {
  await env.DB.exec("DELETE FROM deployment");
  const calls = vi.spyOn(env.EVENT_LOG, "getByName");
  await maintain(inRegion("EEUR"), Date.now());
  expect(calls).not.toHaveBeenCalled();
});

it("after the first event it creates what logs are missing in the database's region", async () => {
  await record("event_log_shards", "[[4,0]]");
  const calls = vi.spyOn(env.EVENT_LOG, "getByName");
  await maintain(inRegion("EEUR"), Date.now());
  expect(new Set(calls.mock.calls.map(([name]) => name))).toEqual(new Set(await allShards(env)));
  for (const [, options] of calls.mock.calls) expect(options).toEqual({ locationHint: "eeur" });
});

it("a LOCATION_HINT stands before the database's region, and a region that is no hint is left out", async () => {
  const calls = vi.spyOn(env.EVENT_LOG, "getByName");
  await maintain({ ...inRegion("EEUR"), LOCATION_HINT: "oc" }, Date.now());
  for (const [, options] of calls.mock.calls) expect(options).toEqual({ locationHint: "oc" });
  calls.mockClear();
  await maintain(inRegion("MARS"), Date.now());
  for (const [, options] of calls.mock.calls) expect(options).toEqual({});
  expect(calls).toHaveBeenCalled();
});

it.each([
  ["EVENT_LOG_SHARDS", "event_log_shards", "[[3,0]]", /EVENT_LOG_SHARDS = 4, .*3/],
  ["TEST_EVENT_LOG_SHARDS", "test_event_log_shards", "[[1,0],[2,1]]", /TEST_EVENT_LOG_SHARDS = 1, .*2/],
  ["JURISDICTION", "jurisdiction", "eu", /JURISDICTION = \\"\\", .* recorded with eu/],
])("a deployment with another %s than its data takes no events, and says so", async (_, name, value, message) => {
  await env.DB.prepare("DELETE FROM deployment").run();
  await record(name, value);
  const meter = await createdMeter();
  const event = { event_name: meter.event_name, payload: { stripe_customer_id: "cus_1", value: "1" } };
  const refused = await answerOf("/v2/billing/meter_events", { body: event });
  expect(refused).toMatchObject({ status: 503, body: { error: { code: "setting_changed" } } });
  expect(JSON.stringify(refused.body)).toMatch(message);
});

it("takes events once the settings are again what they were", async () => {
  await env.DB.prepare("DELETE FROM deployment").run();
  const meter = await createdMeter();
  const event = { event_name: meter.event_name, payload: { stripe_customer_id: "cus_1", value: "1" } };
  expect((await answerOf("/v2/billing/meter_events", { body: event })).status).toBe(200);
  const { results } = await env.DB.prepare("SELECT name, value FROM deployment ORDER BY name").all();
  expect(results).toEqual([
    // Four are bound to the tests.
    { name: "databases", value: "[[4,0]]" },
    { name: "event_log_shards", value: "[[4,0]]" },
    { name: "jurisdiction", value: "" },
    { name: "test_event_log_shards", value: "[[1,0]]" },
  ]);
});

it("a deployment with fewer databases than its data takes no live events and reads no live sums, and says so", async () => {
  const meter = await createdMeter({}, LOCAL_KEYS.live);
  const placement: Placement = [
    { databases: 1, since: 0 },
    { databases: 9, since: 1 },
  ];
  await recordPlacement(placement);
  const event = { event_name: meter.event_name, payload: { stripe_customer_id: "cus_1", value: "1" } };
  const summaries = `/v1/billing/meters/${meter.id}/event_summaries?customer=cus_1&start_time=0&end_time=60`;
  for (const [path, request] of [
    ["/v2/billing/meter_events", { body: event }],
    [summaries, {}],
  ] as const) {
    const refused = await answerOf(path, { ...request, key: LOCAL_KEYS.live });
    expect(refused.status).toBe(503);
    expect(JSON.stringify(refused.body)).toContain("EVENTS_0 to EVENTS_8");
  }
  // Test mode has its own.
  const tested = { ...event, event_name: (await createdMeter()).event_name };
  expect((await answerOf("/v2/billing/meter_events", { body: tested })).status).toBe(200);
});

it("a cold isolate reads the settings at the nearest replica, and writes only when nothing is recorded", async () => {
  /** The first words of the statements that a cold isolate prepares until it agrees. */
  const untilAgreed = async (): Promise<(string | undefined)[]> => {
    vi.resetModules();
    const { knownDeployment } = await import("../../../src/catalog/deployment.ts");
    const prepare = vi.spyOn(env.DB, "prepare").mockClear();
    // The second time it asks no more.
    for (const _ of [1, 2])
      expect(await knownDeployment(env, { waitUntil: () => {} })).toMatchObject({ jurisdiction: "" });
    return prepare.mock.calls.map(([sql]) => sql.trim().split(" ")[0]);
  };
  const nearest = vi.spyOn(env.DB, "withSession");
  // In the background it asks the primary, once more for each call.
  expect(await untilAgreed()).toEqual(["SELECT", "SELECT", "SELECT"]);
  expect(nearest).toHaveBeenCalledWith("first-unconstrained");
  await env.DB.prepare("DELETE FROM deployment").run();
  expect(await untilAgreed()).toEqual(["SELECT", "SELECT", "INSERT", ...Array(3).fill("SELECT")]);
});

it("keeps locks and logs within the JURISDICTION", () => {
  const within = vi.fn(() => ({ getByName: (name: string) => `${name}, within` }));
  const bindings = { EVENT_LOG: { jurisdiction: within }, CUSTOMER_METER: { jurisdiction: within } };
  const european = { ...env, ...bindings, JURISDICTION: "eu" } as unknown as Env;
  expect([eventLog(european, "live-2"), customerMeter(european, "mtr", "cus")]).toEqual([
    "live-2, within",
    "mtr:cus, within",
  ]);
  expect(within.mock.calls).toEqual([["eu"], ["eu"]]);
});

it("a D1 without jsonb_each stores and counts the same with json_each, and the isolate says so once", async () => {
  const db = env.TEST_EVENTS;
  const prepare = db.prepare.bind(db);
  // As SQLite says it of a function that it has not.
  vi.spyOn(db, "prepare").mockImplementation((sql) => prepare(sql.replaceAll("jsonb_each(", "absent_jsonb_each(")));
  const warnings = vi.spyOn(console, "warn").mockImplementation(() => {});
  const meter = "mtr_test_json_each";
  const quarter = NOON / QUARTER_HOUR_MS;
  for (const event of [aLogEntry({ meter, payload: { region: "eu" } }), aLogEntry({ meter })]) {
    const line = { kind: "events", slice: sliceOf(NOON), from: Math.floor(quarter), to: Math.floor(quarter) } as const;
    await applyEntries(db, [{ ...line, entries: writeEvent(event) }], NOON);
  }
  const sums = prepare("SELECT count, sum_low FROM sums JOIN series ON series.id = series WHERE meter = ?1").bind(
    meter,
  );
  expect((await sums.all()).results).toEqual([{ count: 2, sum_low: 50 }]);
  expect((await storedIn(db, meter)).map(({ payload }) => payload)).toEqual(['{"region":"eu"}', null]);
  expect(warnings.mock.calls.flat()).toEqual([expect.stringContaining("D1 has no jsonb_each")]);
});
