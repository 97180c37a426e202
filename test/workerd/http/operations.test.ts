import { env } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { parkStatement } from "../../../src/aggregate/dead-letters.ts";
import { MINUTE_MS } from "../../../src/domain/window.ts";
import { createApp } from "../../../src/http/app.ts";
import { eventLog } from "../../../src/log/shards.ts";
import { aNewEvent, answerOf, call, FUTURE } from "../support.ts";

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["Date"], now: FUTURE });
});

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

type Shard = Record<"shard" | "entries_waiting" | "oldest_wait_seconds" | "groups_in_flight" | "groups_resent", number>;

async function shardStatus(shard: number): Promise<Shard | undefined> {
  const { status, body } = await answerOf("/v1/edgemeter/pipeline");
  expect(status).toBe(200);
  return (body.shards as Shard[]).find((one) => one.shard === shard);
}

describe("the pipeline", () => {
  it("shows what waits, for how long, and how often it was sent", async () => {
    vi.spyOn(env.EVENT_QUEUE, "sendBatch").mockResolvedValue({} as QueueSendBatchResponse);
    const log = eventLog(env, 1);
    expect(await shardStatus(1)).toMatchObject({ entries_waiting: 0, oldest_wait_seconds: null, groups_in_flight: 0 });
    await log.append([aNewEvent({ shard: 1 }), aNewEvent({ shard: 1 })]);
    vi.setSystemTime(FUTURE + 5_000);
    await log.append([aNewEvent({ shard: 1 })]);
    await log.nudge();
    expect(await shardStatus(1)).toMatchObject({
      entries_waiting: 3,
      oldest_wait_seconds: 5,
      groups_in_flight: 2,
      groups_resent: 0,
    });
    vi.setSystemTime(FUTURE + MINUTE_MS);
    await log.nudge();
    expect(await shardStatus(1)).toMatchObject({ oldest_wait_seconds: 60, groups_in_flight: 2, groups_resent: 2 });

    // A group's id begins with when it was received.
    await log.confirm([FUTURE * 1_000]);
    const { body } = await answerOf("/v1/edgemeter/pipeline");
    expect(body.aggregator).toEqual({ last_success: (FUTURE + MINUTE_MS) / 1_000 });
    expect(await shardStatus(1)).toMatchObject({ entries_waiting: 1, oldest_wait_seconds: 55, groups_in_flight: 1 });
  });

  it("counts the dead letters of each mode", async () => {
    const letter = { id: "", kind: "events", reason: "refused", parked: 0 } as const;
    const park = (id: string, livemode: boolean) =>
      parkStatement(env.DB, { ...letter, id, entry: JSON.stringify({ livemode }) }).run();
    const { body: none } = await answerOf("/v1/edgemeter/pipeline");
    expect(none.dead_letters).toEqual({ live: 0, test: 0 });
    await park("dl_1", true);
    await park("dl_2", false);
    await park("dl_3", false);
    const { body } = await answerOf("/v1/edgemeter/pipeline");
    expect(body.dead_letters).toEqual({ live: 1, test: 2 });
  });

  it("can be seen while D1 is down, by a key that is known", async () => {
    vi.spyOn(console, "error").mockImplementation(() => {});
    expect((await call("/v1/edgemeter/pipeline")).status).toBe(200);
    vi.spyOn(env.DB, "prepare").mockImplementation(() => {
      throw new Error("D1_ERROR: Network connection lost.");
    });
    const { status, body } = await answerOf("/v1/edgemeter/pipeline");
    expect(status).toBe(200);
    expect(body).toMatchObject({ dead_letters: null, audits: null });
  });

  it("says of a shard that does not answer that it is not reachable, and shows the others", async () => {
    const errors = vi.spyOn(console, "error").mockImplementation(() => {});
    const getByName = env.EVENT_LOG.getByName.bind(env.EVENT_LOG);
    vi.spyOn(env.EVENT_LOG, "getByName").mockImplementation((name, options) =>
      name === "shard-2"
        ? ({ status: () => Promise.reject(new Error("overloaded")) } as never)
        : getByName(name, options),
    );
    const { body } = await answerOf("/v1/edgemeter/pipeline");
    expect((body.shards as { reachable: boolean }[]).map(({ reachable }) => reachable)).toEqual([
      true,
      true,
      false,
      true,
    ]);
    expect(errors.mock.calls.flat().join()).toMatch(/"shard":2/);
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
    expect(await (await createApp().request("/health", {}, bindings)).json()).toEqual(body);
  });
});
