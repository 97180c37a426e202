import { env } from "cloudflare:workers";
import { describe, expect, it, vi } from "vitest";
import { LOCAL_KEYS } from "../../../scripts/local-keys.ts";
import type { Meter } from "../../../src/domain/meter.ts";
import { HOUR_MS, MINUTE_MS } from "../../../src/domain/window.ts";
import { eventLog } from "../../../src/log/shards.ts";
import { aContext, answerOf, FUTURE } from "../support.ts";
import {
  aStoredMeter,
  damage,
  holdQueueAndClock,
  keptOf,
  set,
  settle,
  someEvents,
  tenEvents,
} from "./audit-support.ts";

holdQueueAndClock();

type Step = Record<string, number> & {
  accepted: Record<string, number>;
  stored: Record<string, number>;
  next: string | null;
};

const post = (form: Record<string, string>, key: string = LOCAL_KEYS.live) =>
  answerOf("/v1/edgemeter/audit", { form, key });

/** All steps of an audit over HTTP: what they found together, and what was received in a minute (ms). */
async function fullAudit(minute = 0, form: Record<string, string> = {}) {
  const steps: Step[] = [];
  for (let cursor: string | null | undefined; cursor !== null; cursor = steps.at(-1)?.next) {
    const { status, body } = await post({ ...form, ...(cursor === undefined ? {} : { cursor }) });
    expect(status).toBe(200);
    steps.push(body as unknown as Step);
  }
  const sum = (number: (step: Step) => number | undefined) =>
    steps.reduce((total, step) => total + (number(step) ?? 0), 0);
  const { missing, altered, summaries_repaired, summaries_suspect, entries_waiting } = Object.fromEntries(
    Object.keys(steps[0] ?? {}).map((name) => [name, sum((step) => step[name])]),
  );
  return {
    ...{ missing, altered, summaries_repaired, summaries_suspect, entries_waiting },
    accepted: sum(({ accepted }) => accepted[minute]),
    stored: sum(({ stored }) => stored[minute]),
  };
}

const SOUND = { missing: 0, altered: 0, summaries_repaired: 0, summaries_suspect: 0, entries_waiting: 0 };

/** A meter with ten events in a log of its mode. */
async function aMeterIn(shard: "live-3" | "test-0"): Promise<Meter> {
  const meter = await aStoredMeter({ livemode: shard === "live-3" });
  await tenEvents(meter, { shard, log: eventLog(env, shard) });
  return meter;
}

const LOST = "DELETE FROM EVENTS WHERE series IN SERIES AND id = (SELECT MIN(id) FROM EVENTS WHERE series IN SERIES)";

describe("a full audit", () => {
  it("compares all logs, databases and sums of both modes, and counts both sides the same", async () => {
    const [live, test] = [await aMeterIn("live-3"), await aMeterIn("test-0")];
    vi.setSystemTime(FUTURE + 5 * MINUTE_MS);
    const kept = await Promise.all([keptOf(live), keptOf(test)]);
    expect(await fullAudit(FUTURE)).toEqual({ ...SOUND, accepted: 20, stored: 20 });
    // An event too many, and another one lost.
    await damage(
      env.EVENTS_0,
      live,
      `INSERT INTO EVENTS SELECT series, timestamp, id || 'x', identifier, value, delay, payload, 1, 5, 1
       FROM EVENTS WHERE series IN SERIES LIMIT 1`,
    );
    expect(await fullAudit(FUTURE)).toEqual({ ...SOUND, accepted: 20, stored: 21 });
    await damage(env.EVENTS_0, live, "DELETE FROM EVENTS WHERE cancelled = 5");
    await damage(env.TEST_EVENTS, test, LOST, set("sums", "count = 9, sum_low = 225"));
    expect(await fullAudit(FUTURE)).toEqual({
      ...{ ...SOUND, missing: 1, accepted: 20, stored: 19 },
      // The group that is sent again.
      entries_waiting: 10,
    });
    await settle(eventLog(env, "test-0"));
    await damage(env.EVENTS_0, live, set("sums", "count = 99"));
    expect(await fullAudit()).toMatchObject({ missing: 0, summaries_repaired: 1 });
    expect(await Promise.all([keptOf(live), keptOf(test)])).toEqual(kept);
  });

  it("leaves what is suspect from before the log's reach, unless the events are trusted", async () => {
    const live = await aMeterIn("live-3");
    const kept = await keptOf(live);
    await damage(env.EVENTS_0, live, set("sums", "count = 99"));
    vi.setSystemTime(FUTURE + 25 * HOUR_MS);
    expect(await fullAudit()).toMatchObject({ summaries_suspect: 1, summaries_repaired: 0 });
    expect(await fullAudit(0, { trust_events: "true" })).toMatchObject({ summaries_suspect: 0, summaries_repaired: 1 });
    expect(await keptOf(live)).toEqual(kept);
  });

  it("compares the other shards also while one waits, and says how much waits", async () => {
    const live = await aMeterIn("live-3");
    const waiting = eventLog(env, "live-0");
    vi.setSystemTime(FUTURE + MINUTE_MS);
    await waiting.append(someEvents(live, "live-0", 3), aContext());
    await damage(env.EVENTS_0, live, LOST);
    vi.setSystemTime(FUTURE + 10 * MINUTE_MS);
    expect(await fullAudit()).toMatchObject({ missing: 1, entries_waiting: 10 + 3 });
  });

  it("refuses a cursor that is none, and a test key", async () => {
    const received = { start: 0, end: FUTURE };
    const cursors = [
      { received, at: { shard: "live-123456", after: 0 } },
      { received, at: { database: "EVENTS_9", series: 0, time: 0 } },
      { received: {}, at: {} },
    ].map((cursor) => Buffer.from(JSON.stringify(cursor)).toString("base64url"));
    for (const cursor of ["x", "e30", ...cursors]) {
      expect(await post({ cursor })).toMatchObject({ status: 400, body: { error: { param: "cursor" } } });
    }
    expect(await post({}, LOCAL_KEYS.test)).toMatchObject({
      status: 403,
      body: { error: { message: expect.stringMatching(/live key/) } },
    });
  });
});
