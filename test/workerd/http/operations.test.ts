import { createExecutionContext } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { LOCAL_KEYS } from "../../../scripts/local-keys.ts";
import { parkStatement } from "../../../src/aggregate/dead-letters.ts";
import { eventsDatabase } from "../../../src/catalog/databases.ts";
import { noteSizes, type Size } from "../../../src/catalog/sizes.ts";
import { MINUTE_MS } from "../../../src/domain/window.ts";
import { createApp } from "../../../src/http/app.ts";
import { eventLog } from "../../../src/log/shards.ts";
import { D1, HostileD1 } from "../hostile-d1.ts";
import { aContext, aNewEvent, answerOf, call, FUTURE } from "../support.ts";

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["Date"], now: FUTURE });
});

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

type Shard = Record<"entries_waiting" | "oldest_wait_seconds" | "groups_in_flight" | "groups_resent", number> & {
  shard: string;
  reachable: boolean;
  days_left: number | null;
};

type Database = Record<
  "bytes" | "days_left" | "oldest_wait_seconds" | "live_slices" | "dead_letters",
  number | null
> & {
  database: string;
  reachable: boolean;
};

type Pipeline = {
  shards: Shard[];
  databases: Database[];
  aggregator: { last_success: number | null };
  audits: { name: string }[] | null;
  estimated_cost: Record<string, number> | null;
};

async function pipeline(key: string = LOCAL_KEYS.live): Promise<Pipeline> {
  const { status, body } = await answerOf("/v1/edgemeter/pipeline", { key });
  expect(status).toBe(200);
  return body as Pipeline;
}

const shardStatus = async (shard: string) => (await pipeline()).shards.find((one) => one.shard === shard);
const databaseStatus = async (name: string) => (await pipeline()).databases.find(({ database }) => database === name);

const LIVE = { shard: "live-1", meter: "mtr_1" };

describe("the pipeline", () => {
  it("shows what waits, for how long, for which database, and how often it was sent", async () => {
    vi.spyOn(env.EVENT_QUEUE, "sendBatch").mockResolvedValue({} as QueueSendBatchResponse);
    const log = eventLog(env, "live-1");
    const idle = { entries_waiting: 0, oldest_wait_seconds: null, groups_in_flight: 0 };
    expect(await shardStatus("live-1")).toMatchObject(idle);
    await log.append([aNewEvent(LIVE), aNewEvent(LIVE)], aContext());
    vi.setSystemTime(FUTURE + 5_000);
    await log.append([aNewEvent(LIVE)], aContext());
    await log.nudge(aContext());
    const sent = { entries_waiting: 3, oldest_wait_seconds: 5, groups_in_flight: 2, groups_resent: 0 };
    expect(await shardStatus("live-1")).toMatchObject(sent);
    expect(await databaseStatus("EVENTS_0")).toMatchObject({ oldest_wait_seconds: 5 });
    expect(await databaseStatus("TEST_EVENTS")).toMatchObject({ oldest_wait_seconds: null });
    vi.setSystemTime(FUTURE + MINUTE_MS);
    await log.nudge(aContext());
    const again = { oldest_wait_seconds: 60, groups_in_flight: 2, groups_resent: 2 };
    expect(await shardStatus("live-1")).toMatchObject(again);

    // A group's id begins with when it was received.
    await log.confirm([{ group: FUTURE * 1_000, database: 0 }]);
    expect((await pipeline()).aggregator).toEqual({ last_success: (FUTURE + MINUTE_MS) / 1_000 });
    const left = { entries_waiting: 1, oldest_wait_seconds: 55, groups_in_flight: 1 };
    expect(await shardStatus("live-1")).toMatchObject(left);
  });

  it("counts the dead letters of each database", async () => {
    const letter = { kind: "events", slice: 0, entry: "", reason: "refused", parked: 0 } as const;
    const park = (db: D1Database, id: string) => parkStatement(db, { ...letter, id }).run();
    expect(await databaseStatus("EVENTS_1")).toMatchObject({ dead_letters: 0 });
    await park(eventsDatabase(env, true, 1), "dl_1");
    await park(env.TEST_EVENTS, "dl_2");
    await park(env.TEST_EVENTS, "dl_3");
    expect(await databaseStatus("EVENTS_1")).toMatchObject({ dead_letters: 1 });
    expect(await databaseStatus("TEST_EVENTS")).toMatchObject({ dead_letters: 2 });
  });

  it("shows test mode alone to a test key", async () => {
    const { shards, databases } = await pipeline(LOCAL_KEYS.test);
    expect([shards, databases].map((list) => list.length)).toEqual([1, 1]);
    expect([shards[0]?.shard, databases[0]?.database]).toEqual(["test-0", "TEST_EVENTS"]);
  });

  it("can be seen while D1 is down, by a key that is known", async () => {
    vi.spyOn(console, "error").mockImplementation(() => {});
    await pipeline();
    new HostileD1().fate = D1.isAway;
    const { databases, audits } = await pipeline();
    expect(audits).toBeNull();
    expect(databases.map(({ reachable, bytes }) => ({ reachable, bytes }))).toEqual(
      Array(5).fill({ reachable: false, bytes: null }),
    );
  });

  it("says of a shard that does not answer that it is not reachable, and shows the others", async () => {
    const errors = vi.spyOn(console, "error").mockImplementation(() => {});
    const getByName = env.EVENT_LOG.getByName.bind(env.EVENT_LOG);
    vi.spyOn(env.EVENT_LOG, "getByName").mockImplementation((name, options) =>
      name === "live-2"
        ? ({ status: () => Promise.reject(new Error("overloaded")) } as never)
        : getByName(name, options),
    );
    const { shards } = await pipeline();
    expect(shards.filter(({ reachable }) => !reachable).map(({ shard }) => shard)).toEqual(["live-2"]);
    expect(errors.mock.calls.flat().join()).toMatch(/"part":"live-2"/);
  });

  it("says how long databases and logs last at their pace, and about what a month costs", async () => {
    expect(await pipeline()).toMatchObject({ estimated_cost: null });
    const hour = FUTURE / 3_600_000;
    const { bytes } = (await databaseStatus("EVENTS_0")) ?? {};
    const grown = (bytes ?? 0) - 1_000;
    const aSize = (name: string, ago: number, size: number): Size => ({
      name,
      hour: hour - ago,
      bytes: size,
      entries: 0,
    });
    await noteSizes(env.DB, hour, [aSize("EVENTS_0", 24, grown), aSize("live-3", 1, 0), aSize("TEST_EVENTS", 24, 1e9)]);
    await eventLog(env, "live-3").append(
      Array.from({ length: 50 }, () => aNewEvent(LIVE)),
      aContext(),
    );
    const found = await pipeline();
    const { bytes: log = 0 } = await eventLog(env, "live-3").status();
    const days = (left: number, perDay: number) => Math.round((left / perDay) * 10) / 10;
    expect(found.databases[0]?.days_left).toBe(days(8e9 - (bytes ?? 0), 1_000));
    expect(found.databases.at(-1)?.days_left).toBeNull();
    expect(found.shards[3]?.days_left).toBe(days(8e9 - log, log * 24));
    // 50 in an hour.
    expect(found.estimated_cost).toMatchObject({ events_per_day: 1_200 });
  });
});

describe("health", () => {
  it("is answered without a key and without a look at D1", async () => {
    const prepare = vi.spyOn(env.DB, "prepare");
    const response = await call("/health", { headers: { authorization: "" } });
    expect(response.status).toBe(200);
    expect(prepare).not.toHaveBeenCalled();
  });

  it.each([
    ["names the version that npm run deploy gave it", "v1", { status: "ok", version: "v1" }],
    ["names no version where it was given none", undefined, { status: "ok" }],
  ])("%s", async (_, version, body) => {
    const bindings = { ...env, ...(version === undefined ? {} : { DEPLOYED_VERSION: version }) };
    expect(
      await (
        await createApp().fetch(new Request("http://edgemeter.test/health"), bindings, createExecutionContext())
      ).json(),
    ).toEqual(body);
  });
});
