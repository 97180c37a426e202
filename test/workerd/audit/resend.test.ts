import { evictDurableObject, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { describe, expect, it, vi } from "vitest";
import { LOCAL_KEYS } from "../../../scripts/local-keys.ts";
import { HOUR_MS } from "../../../src/domain/window.ts";
import type { EventLog } from "../../../src/log/event-log.ts";
import { allShards, eventLog } from "../../../src/log/shards.ts";
import { aContext, answerOf, aShard, FUTURE } from "../support.ts";
import {
  aStoredMeter,
  cancel,
  damage,
  gone,
  holdQueueAndClock,
  keptOf,
  settle,
  someEvents,
  tenEvents,
} from "./audit-support.ts";

holdQueueAndClock();

const post = (form: Record<string, string> = {}, key: string = LOCAL_KEYS.live) =>
  answerOf("/v1/edgemeter/resend", { form, key });

/** Delivers what all logs have to send. */
async function settleAll(): Promise<void> {
  for (const shard of await allShards(env)) await settle(eventLog(env, shard));
}

const ALL = [gone("EVENTS"), gone("sums")];

const aLiveShard = (shard: string) => ({ shard, log: eventLog(env, shard) });

describe("an operator's resend", () => {
  it("brings back everything that the logs remember, after a database was put back to an earlier point", async () => {
    const meter = await aStoredMeter({ livemode: true });
    const { shard, log, events } = await tenEvents(meter, aLiveShard("live-2"));
    vi.setSystemTime(FUTURE + 5 * HOUR_MS);
    await tenEvents(meter, { shard, log });
    await cancel(log, events[0], meter);
    await settle(log);
    const kept = await keptOf(meter);
    await damage(env.EVENTS_0, meter, ...ALL);
    vi.setSystemTime(FUTURE + 23 * HOUR_MS);
    expect(await post()).toMatchObject({ status: 200, body: { status: "started", groups: 3 } });
    await settleAll();
    expect(await keptOf(meter)).toEqual(kept);
    // And since a time only what came after it.
    const since = String(Math.floor((FUTURE + 4 * HOUR_MS) / 1_000));
    expect((await post({ since })).body.groups).toBe(2);
    await settleAll();
    expect(await keptOf(meter)).toEqual(kept);
  });

  it("happens once, however often it is called meanwhile, and new events arrive beside it", async () => {
    const meter = await aStoredMeter({ livemode: true });
    const { shard, log } = await tenEvents(meter, aLiveShard("live-2"));
    const first = await post();
    expect(first.body).toMatchObject({ status: "started" });
    const inFlight = async () => (await log.status()).inFlight;
    await log.nudge(aContext());
    const sentOnce = await inFlight();
    for (let i = 0; i < 5; i++) {
      vi.setSystemTime(Date.now() + 500);
      // Also after the log has been restarted.
      if (i === 3) await evictDurableObject(log);
      const again = await post({ since: String(Math.floor(FUTURE / 1_000) - i) });
      expect(again.body).toMatchObject({ groups: 0 });
      expect(Math.floor(((await log.resendUnderWay()) ?? 0) / 1_000)).toBe(first.body.since);
      await log.append(someEvents(meter, shard, 1), aContext());
      await log.nudge(aContext());
      // Nothing of the old was begun anew, and the new is on its way.
      expect(await inFlight()).toBe(sentOnce + i + 1);
    }
    await settleAll();
    expect((await post()).body).toMatchObject({ status: "started" });
    await settleAll();
    expect(await keptOf(meter)).toMatchObject([{ sums: [{ count: 15 }] }, {}, {}, {}]);
  });

  it("sends more than fits on its way at once, in turn with what is new", async () => {
    const meter = await aStoredMeter();
    const { shard, log } = aShard();
    vi.spyOn(scheduler, "wait").mockResolvedValue();
    const groups = 1_200;
    await runInDurableObject(log, async (instance: EventLog) => {
      for (let i = 0; i < groups; i++) await instance.append(someEvents(meter, shard, 1), aContext());
    });
    await settle(log);
    await damage(env.TEST_EVENTS, meter, ...ALL);
    expect(await log.sendAllSince(FUTURE - HOUR_MS)).toBe(groups);
    for (let i = 1; i <= 5; i++) {
      // The queue takes everything and delivers nothing yet.
      await log.nudge(aContext());
      expect((await log.status()).inFlight).toBe(499 + i);
      expect(await log.sendAllSince(0)).toBeUndefined();
      await log.append(someEvents(meter, shard, 1), aContext());
    }
    await settle(log);
    expect(await keptOf(meter)).toMatchObject([{ sums: [{ count: groups + 5 }] }]);
    expect(await log.resendUnderWay()).toBeUndefined();
  });

  it("needs a live key", async () => {
    expect(await post({}, LOCAL_KEYS.test)).toMatchObject({ status: 403 });
  });
});
