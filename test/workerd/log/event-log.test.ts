import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, describe, expect, it, vi } from "vitest";
import { databaseOf, ONE_DATABASE, type Placement } from "../../../src/domain/placement.ts";
import { HOUR_MS, MINUTE_MS } from "../../../src/domain/window.ts";
import { readEvents } from "../../../src/log/codec.ts";
import { type CancelRequest, CLOCKS_MS, type EventAppend, type ShareName } from "../../../src/log/entries.ts";
import { EventLog } from "../../../src/log/event-log.ts";
import { linesOf, type Share } from "../../../src/log/groups.ts";
import { decodeMessage } from "../../../src/log/message.ts";
import { Sender } from "../../../src/log/sender.ts";
import { shardOfObject } from "../../../src/log/shard-name.ts";
import { unique } from "../../support/builders.ts";
import { aContext, aNewEvent, aShard, eventually, FUTURE } from "../support.ts";

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

/**
 * Takes what the logs send instead of the queues; gives what one shard sent. Other logs of this file go on sending
 * meanwhile.
 */
function catchMessages(shard: string): { shares: () => Share[] } {
  const caught: Share[] = [];
  for (const queue of [env.EVENT_QUEUE, env.TEST_EVENT_QUEUE]) {
    vi.spyOn(queue, "sendBatch").mockImplementation(async (batch) => {
      const shares = [...batch].flatMap(({ body }) => decodeMessage(body));
      caught.push(...shares.filter((share) => share.shard === shard));
      return {} as QueueSendBatchResponse;
    });
  }
  return { shares: () => caught };
}

/** Logs send when an alarm rings or a nudge comes, and not by themselves. */
const keepTimersFromSending = (): unknown => vi.spyOn(Sender.prototype, "sendSoon").mockReturnValue();

/** The shares as the aggregator confirms them. */
const named = (shares: readonly (Share | undefined)[]): ShareName[] =>
  shares.flatMap((share) => (share === undefined ? [] : [{ group: share.group, database: share.database }]));

const eventsOf = (shares: readonly Share[]) => shares.flatMap(linesOf).flatMap(({ entries }) => readEvents(entries));

const rowsOf = (log: DurableObjectStub<EventLog>, table: string): Promise<number> =>
  runInDurableObject(log, (_, { storage }) => {
    const tables = storage.sql
      .exec<{ name: string }>("SELECT name FROM sqlite_master WHERE name GLOB ?", `${table}_*`)
      .toArray();
    return tables.reduce(
      (sum, { name }) => sum + Number(storage.sql.exec(`SELECT COUNT(*) AS n FROM ${name}`).one().n),
      0,
    );
  });

describe("cancelling", () => {
  const aCancellation = (event: EventAppend, changes: Partial<CancelRequest> = {}): CancelRequest => ({
    key: event.key,
    id: unique("adjustment"),
    meters: [event.event.meter],
    apiKey: 1,
    keyDigest: undefined,
    requestDigest: "request",
    ...changes,
  });

  it("is known again by its Idempotency-Key when its event's partition is gone", async () => {
    vi.useFakeTimers({ toFake: ["Date"], now: FUTURE });
    const { shard, log } = aShard();
    const { shares } = catchMessages(shard);
    const event = aNewEvent();
    await log.append([event], aContext());
    vi.setSystemTime(FUTURE + 23 * HOUR_MS);
    const request = aCancellation(event, { keyDigest: "key" });
    const first = await log.cancel(request, aContext());
    await eventually(() => expect(new Set(shares().map(({ kind }) => kind)).size).toBe(2));
    await log.confirm(named(shares()));
    vi.setSystemTime(FUTURE + 40 * HOUR_MS);
    await log.nudge(aContext());
    expect(await log.retrieve(event.key, aContext())).toBeUndefined();
    expect(await log.cancel({ ...request, id: "a retry" }, aContext())).toEqual(first);
  });

  it("finds an event in a commit of several groups", async () => {
    const { shard, log } = aShard();
    catchMessages(shard);
    const wide = { note: "x".repeat(500) };
    const events = Array.from({ length: 400 }, () => {
      const event = aNewEvent();
      return { ...event, event: { ...event.event, payload: wide } };
    });
    await log.append(events, aContext());
    expect(await rowsOf(log, "groups")).toBeGreaterThan(1);
    for (const event of [events[0], events[200], events[399]]) {
      if (event !== undefined)
        expect(await log.cancel(aCancellation(event), aContext())).toMatchObject({ outcome: "cancelled" });
    }
  });

  it("is undone whole when its transaction fails", async () => {
    const { log } = aShard();
    const event = aNewEvent();
    await log.append([event], aContext());
    await runInDurableObject(log, async (instance, { storage }) => {
      const exec = storage.sql.exec.bind(storage.sql);
      vi.spyOn(storage.sql, "exec").mockImplementation(((query: string, ...bindings: never[]) => {
        if (query.includes("INSERT INTO groups")) throw new Error("disk full");
        return exec(query, ...bindings);
      }) as typeof exec);
      await expect(instance.cancel(aCancellation(event), aContext())).rejects.toThrow("disk full");
    });
    vi.restoreAllMocks();
    expect(await log.cancel(aCancellation(event), aContext())).toMatchObject({ outcome: "cancelled" });
  });
});

describe("commits", () => {
  it("puts what arrives together into one group", async () => {
    const { shard, log } = aShard();
    const { shares } = catchMessages(shard);
    await Promise.all(Array.from({ length: 50 }, () => log.append([aNewEvent()], aContext())));
    // The first commits at once, alone or with a few; all others wait for it and share the next.
    expect(await rowsOf(log, "groups")).toBeLessThanOrEqual(5);
    await eventually(() => expect(eventsOf(shares())).toHaveLength(50));
  });

  it("leaves nothing behind of a commit that fails, and starts anew", async () => {
    const { shard, log } = aShard();
    const event = aNewEvent();
    const ended = runInDurableObject(log, async (instance, { storage }) => {
      vi.spyOn(storage, "setAlarm").mockImplementationOnce(() => {
        throw new Error("disk full");
      });
      await instance.append([event], aContext());
    });
    await expect(ended).rejects.toThrow("a commit failed halfway");
    const restarted = env.EVENT_LOG.getByName(shard);
    expect(await restarted.recall([event], aContext())).toEqual([undefined]);
    expect(await restarted.append([event], aContext())).toMatchObject([{ outcome: "accepted" }]);
    expect(await rowsOf(restarted, "groups")).toBe(1);
  });
});

describe("delivery", () => {
  it("sends a group until it is confirmed, and then no more", async () => {
    vi.useFakeTimers({ toFake: ["Date"], now: FUTURE });
    const { shard, log } = aShard();
    const { shares } = catchMessages(shard);
    await log.append([aNewEvent()], aContext());
    await eventually(() => expect(shares()).toHaveLength(1));
    vi.setSystemTime(Date.now() + 20_000);
    await runDurableObjectAlarm(log);
    expect(shares()).toHaveLength(2);
    expect(shares()[1]).toEqual(shares()[0]);
    await log.confirm(named([shares()[0]]));
    vi.setSystemTime(Date.now() + HOUR_MS);
    await log.nudge(aContext());
    await runDurableObjectAlarm(log);
    expect(shares()).toHaveLength(2);
    expect(await runInDurableObject(log, (_, { storage }) => storage.getAlarm())).toBeNull();
  });

  it("sends again what was unconfirmed when it was evicted, and nothing that was confirmed", async () => {
    const { shard, log } = aShard();
    const { shares } = catchMessages(shard);
    await log.append([aNewEvent()], aContext());
    await eventually(() => expect(shares()).toHaveLength(1));
    await log.confirm(named([shares()[0]]));
    const late = aNewEvent();
    await log.append([late], aContext());
    await eventually(() => expect(shares()).toHaveLength(2));
    await evictDurableObject(log);
    await log.nudge(aContext());
    expect(shares()).toHaveLength(3);
    expect(shares()[2]).toEqual(shares()[1]);
    expect(eventsOf(shares().slice(2))).toMatchObject([{ identifier: late.identifier }]);
  });

  it("is woken by the alarm alone after a restart", async () => {
    const { shard, log } = aShard();
    const { shares } = catchMessages(shard);
    keepTimersFromSending();
    await log.append([aNewEvent()], aContext());
    await evictDurableObject(log);
    await runDurableObjectAlarm(log);
    await eventually(() => expect(shares().length).toBeGreaterThanOrEqual(1));
  });

  it("ignores confirmations that come late, twice, or for groups it never had", async () => {
    const { shard, log } = aShard();
    const { shares } = catchMessages(shard);
    await log.append([aNewEvent()], aContext());
    await eventually(() => expect(shares()).toHaveLength(1));
    const [share] = named(shares());
    if (share === undefined) throw new Error("nothing was sent");
    await log.confirm([share, share, { ...share, group: 17 }, { ...share, database: 3 }]);
    await log.confirm([share]);
    expect(await rowsOf(log, "confirmed")).toBe(1);
  });

  it("drops a partition when its identifiers have expired, but never one with unconfirmed groups", async () => {
    vi.useFakeTimers({ toFake: ["Date"], now: FUTURE });
    const { shard, log } = aShard();
    const { shares } = catchMessages(shard);
    await log.append([aNewEvent()], aContext());
    await eventually(() => expect(shares()).toHaveLength(1));
    vi.setSystemTime(Date.now() + 48 * HOUR_MS);
    await log.nudge(aContext());
    expect(await rowsOf(log, "groups")).toBe(1);
    await log.confirm(named([shares()[0]]));
    await log.nudge(aContext());
    expect(await rowsOf(log, "groups")).toBe(0);
    expect(await log.append([aNewEvent()], aContext())).toMatchObject([{ outcome: "accepted" }]);
  });

  it("drops an expired partition and keeps sending the unconfirmed groups of the others", async () => {
    vi.useFakeTimers({ toFake: ["Date"], now: FUTURE });
    const { shard, log } = aShard();
    const { shares } = catchMessages(shard);
    keepTimersFromSending();
    // Two unconfirmed groups in an old partition, and a newer partition that is confirmed and expires.
    await log.append([aNewEvent()], aContext());
    await log.append([aNewEvent()], aContext());
    vi.setSystemTime(Date.now() + 12 * HOUR_MS);
    await log.append([aNewEvent()], aContext());
    await log.nudge(aContext());
    expect(shares()).toHaveLength(3);
    const [first, second, third] = shares().map(({ group }) => group);
    await log.confirm([{ group: third ?? 0, database: 0 }]);
    vi.setSystemTime(Date.now() + 48 * HOUR_MS);
    await log.nudge(aContext());
    expect(
      shares()
        .slice(3)
        .map(({ group }) => group),
    ).toEqual([first, second]);
    // The two that are unconfirmed are all that is left.
    expect(await rowsOf(log, "groups")).toBe(2);
  });

  it("drops an expired partition although a confirmation has just looked at a backlog", async () => {
    vi.useFakeTimers({ toFake: ["Date"], now: FUTURE });
    const { shard, log } = aShard();
    const { shares } = catchMessages(shard);
    await log.append([aNewEvent()], aContext());
    await eventually(() => expect(shares()).toHaveLength(1));
    vi.setSystemTime(Date.now() + 48 * HOUR_MS);
    await runInDurableObject(log, async (instance) => {
      await instance.append([aNewEvent()], aContext());
      await instance.append([aNewEvent()], aContext());
      instance.confirm(named([shares()[0]]));
      await instance.nudge(aContext());
    });
    expect(await rowsOf(log, "groups")).toBe(2);
  });

  it("sets the alarm for when the next group is due, and sooner once a confirmation says that D1 is back", async () => {
    vi.useFakeTimers({ toFake: ["Date"], now: FUTURE });
    const { shard, log } = aShard();
    const { shares } = catchMessages(shard);
    for (const groups of [1, 2]) {
      await log.append([aNewEvent()], aContext());
      await eventually(() => expect(shares()).toHaveLength(groups));
    }
    const wait = async () =>
      ((await runInDurableObject(log, (_, { storage }) => storage.getAlarm())) ?? Number.POSITIVE_INFINITY) -
      Date.now();
    for (let hour = 1; hour <= 10; hour++) {
      vi.setSystemTime(Date.now() + HOUR_MS);
      await runDurableObjectAlarm(log);
    }
    expect(await wait()).toBeGreaterThanOrEqual(10 * MINUTE_MS);
    await log.confirm(named(shares().slice(0, 1)));
    expect(await wait()).toBeLessThanOrEqual(10_000);
  });

  it("lets no alarm ring before its sender has waited for its longest", async () => {
    vi.useFakeTimers({ toFake: ["Date"], now: FUTURE });
    const { shard, log } = aShard();
    catchMessages(shard);
    const alarm = await runInDurableObject(log, async (_, state) => {
      const slow = new EventLog(state, { ...env, SEND_INTERVAL_MS: "1000" });
      // As the platform has calls wait for the constructor, which asks for the alarm.
      await state.blockConcurrencyWhile(async () => {});
      await slow.append([aNewEvent()], aContext());
      return state.storage.getAlarm();
    });
    expect(alarm).toBeGreaterThan(FUTURE + 6_000);
  });

  it("writes one row an event, one a group and one a confirmation", async () => {
    const { shard, log } = aShard();
    const { shares } = catchMessages(shard);
    const rowsWritten = await runInDurableObject(log, async (instance, { storage }) => {
      await instance.append([aNewEvent()], aContext());
      let rows = 0;
      const exec = storage.sql.exec.bind(storage.sql);
      vi.spyOn(storage.sql, "exec").mockImplementation(((query: string, ...bindings: never[]) => {
        const cursor = exec(query, ...bindings);
        rows += cursor.rowsWritten;
        return cursor;
      }) as typeof exec);
      await instance.append(
        Array.from({ length: 100 }, () => aNewEvent()),
        aContext(),
      );
      await eventually(() => expect(shares()).toHaveLength(2));
      instance.confirm(named(shares()));
      return rows;
    });
    // 100 identifiers, 1 group, 2 confirmations.
    expect(rowsWritten).toBe(103);
  });
});

describe("clocks", () => {
  it("of a caller that differ by minutes are refused and logged, and change nothing", async () => {
    const { log } = aShard();
    const errors = vi.spyOn(console, "error").mockImplementation(() => {});
    const event = aNewEvent();
    for (const by of [CLOCKS_MS + MINUTE_MS, -CLOCKS_MS - MINUTE_MS]) {
      const context = aContext({ now: Date.now() + by, shards: [1, 2] });
      await runInDurableObject(log, async (instance) => {
        await expect(instance.append([event], context)).rejects.toThrow("clocks");
        expect(() => instance.handOver(context)).toThrow("clocks");
      });
    }
    expect(errors.mock.calls.flat().join()).toContain("the clocks of a caller and a log differ by minutes");
    expect([await rowsOf(log, "groups"), await rowsOf(log, "holders")]).toEqual([0, 0]);
    // Nothing was learnt of two shards either.
    expect(await log.append([event], aContext({ now: Date.now() + MINUTE_MS }))).toMatchObject([
      { outcome: "accepted" },
    ]);
  });

  it("of a log alone drop nothing: only a call that agrees does", async () => {
    vi.useFakeTimers({ toFake: ["Date"], now: FUTURE });
    vi.spyOn(console, "error").mockImplementation(() => {});
    const { shard, log } = aShard();
    const { shares } = catchMessages(shard);
    await log.append([aNewEvent()], aContext());
    await eventually(() => expect(shares()).toHaveLength(1));
    await log.confirm(named(shares()));
    const kept = async () => [await rowsOf(log, "groups"), await rowsOf(log, "holders")];
    vi.setSystemTime(FUTURE + 168 * HOUR_MS);
    const behind = aContext({ now: FUTURE });
    await runInDurableObject(log, async (instance) => {
      await instance.alarm();
      await expect(instance.nudge(behind)).rejects.toThrow("clocks");
    });
    expect(await kept()).toEqual([1, 1]);
    await log.nudge(aContext());
    expect(await kept()).toEqual([0, 0]);
  });

  it("is known to a shard that an alarm wakes without its name", async () => {
    const { shard, log } = aShard();
    await log.append([aNewEvent()], aContext());
    const named = await runInDurableObject(log, (_, { id, storage }) => {
      const nameless = { id: { ...id, name: undefined } as never, storage };
      const name = shardOfObject(nameless);
      storage.kv.delete("shard");
      expect(() => shardOfObject(nameless)).toThrow("without a shard's name");
      return name;
    });
    expect(named).toBe(shard);
  });
});

describe("with two databases", () => {
  const GROWN: Placement = [
    { databases: 1, since: 0 },
    { databases: 2, since: FUTURE },
  ];
  const METER = "mtr_live";

  /** An event of live mode that belongs into one of two databases, of a customer of its own. */
  function anEventIn(database: number, payload?: Record<string, string>): EventAppend {
    for (;;) {
      const customer = unique("cus");
      if (databaseOf(METER, customer, 2) !== database) continue;
      const event = aNewEvent({ meter: METER, customer });
      return { ...event, event: { ...event.event, payload } };
    }
  }

  /** A live shard at FUTURE whose messages are caught. */
  function aLiveShard() {
    vi.useFakeTimers({ toFake: ["Date"], now: FUTURE });
    const made = aShard({ livemode: true });
    return { ...made, ...catchMessages(made.shard) };
  }

  /** What a shard has sent, once it has sent so many shares. */
  const sent = async (shares: () => Share[], count: number): Promise<Share[]> => {
    await eventually(() => expect(shares()).toHaveLength(count));
    return shares();
  };

  const databasesOf = (shares: readonly Share[]) => shares.map(({ database }) => database);

  it("places events by the longest history that it was told, once that takes effect, also after a restart", async () => {
    const { shard, log, shares } = aLiveShard();
    vi.setSystemTime(FUTURE - 1);
    await log.append([anEventIn(1)], aContext({ placement: GROWN }));
    vi.setSystemTime(FUTURE);
    await log.append([anEventIn(1)], aContext({ placement: ONE_DATABASE }));
    await sent(shares, 2);
    await evictDurableObject(log);
    await env.EVENT_LOG.getByName(shard).append([anEventIn(1)], aContext());
    const all = eventsOf(await sent(shares, 3 + 2));
    expect(all).toHaveLength(5);
    // After the restart the first two are sent once more.
    expect(databasesOf(shares()).toSorted()).toEqual([0, 0, 1, 1, 1]);
  });

  it("sends a cancellation where its event is, also when it has grown and another slice takes events since", async () => {
    const { log, shares } = aLiveShard();
    const event = anEventIn(1);
    await log.append([event], aContext());
    vi.setSystemTime(FUTURE + 20 * HOUR_MS);
    await log.append([anEventIn(1)], aContext({ placement: GROWN }));
    const request = { key: event.key, id: "adj", meters: [METER], keyDigest: undefined, requestDigest: "r" };
    expect(await log.cancel({ ...request, apiKey: 9 }, aContext())).toMatchObject({ outcome: "cancelled" });
    await sent(shares, 3);
    const [first, cancellation] = shares().filter(({ database }) => database === 0);
    const later = shares().find(({ database }) => database === 1);
    expect([first?.kind, cancellation?.kind]).toEqual(["events", "cancellations"]);
    expect(cancellation?.lines).toMatchObject([{ slice: first?.lines[0]?.slice, count: 1 }]);
    expect(later).toMatchObject({ lines: [{ slice: (first?.lines[0]?.slice ?? 0) + 12 }] });
    expect(cancellation && linesOf(cancellation)[0]?.entries).toMatch(new RegExp(`,${FUTURE + 20 * HOUR_MS},9\\]$`));
  });

  it("confirms a group in shares: each database waits for its own, and each event is there with its share", async () => {
    const { log, shares } = aLiveShard();
    const events = [anEventIn(0), anEventIn(1)];
    await log.append(events, aContext({ placement: GROWN }));
    const [share, other] = await sent(shares, 2);
    expect([share?.group, share?.database, other?.database]).toEqual([other?.group, 0, 1]);
    await log.confirm(named([share]));
    expect(await log.status()).toMatchObject({ entries: 2, oldest: FUTURE, oldestOf: { 1: FUTURE }, inFlight: 1 });
    const known = await Promise.all(events.map(({ key }) => log.retrieve(key, aContext())));
    expect(known.map((each) => each && "event" in each && each.aggregated)).toEqual([true, false]);
    expect(known.map((each) => each && "event" in each && each.share)).toEqual(named([share, other]));
    vi.setSystemTime(FUTURE + 20_000);
    await log.nudge(aContext());
    expect(databasesOf(shares())).toEqual([0, 1, 1]);
    await log.confirm(named([other]));
    expect(await log.status()).toMatchObject({ entries: 0, oldestOf: {}, inFlight: 0 });
    expect(await rowsOf(log, "confirmed")).toBe(1);
  });

  it("writes down after a minute what is confirmed in part, so that a restart sends that no more", async () => {
    const { shard, log, shares } = aLiveShard();
    await log.append([anEventIn(0), anEventIn(1)], aContext({ placement: GROWN }));
    const [share, other] = await sent(shares, 2);
    await log.confirm(named([share]));
    vi.setSystemTime(FUTURE + 59_000);
    await log.nudge(aContext());
    expect(await rowsOf(log, "partly_confirmed")).toBe(0);
    vi.setSystemTime(Date.now() + 60_000);
    await log.nudge(aContext());
    expect(await rowsOf(log, "partly_confirmed")).toBe(1);
    const before = shares().length;
    await evictDurableObject(log);
    const restarted = env.EVENT_LOG.getByName(shard);
    await restarted.nudge(aContext());
    expect(databasesOf(shares().slice(before))).toEqual([1]);
    await restarted.confirm(named([other]));
    expect([await rowsOf(restarted, "partly_confirmed"), await rowsOf(restarted, "confirmed")]).toEqual([0, 1]);
    // A late repetition is not taken for the first part of it.
    await restarted.confirm(named([share]));
    vi.setSystemTime(FUTURE + 180_000);
    await restarted.nudge(aContext());
    expect(await rowsOf(restarted, "partly_confirmed")).toBe(0);
  });

  it("delays no database for one that confirms nothing, whose window is full", async () => {
    const { log, shares } = aLiveShard();
    const wide = { note: "x".repeat(100_000) };
    await log.append(
      Array.from({ length: 60 }, () => anEventIn(1, wide)),
      aContext({ placement: GROWN }),
    );
    await eventually(() => expect(shares().length).toBeGreaterThan(30));
    await log.append([anEventIn(0)], aContext());
    await eventually(() => expect(databasesOf(shares())).toContain(0));
    await log.confirm(named(shares().filter(({ database }) => database === 0)));
    const { oldestOf, inFlight } = await log.status();
    expect(oldestOf).toEqual({ 1: FUTURE });
    expect(inFlight).toBeLessThan(60);
    // Each confirmation of the other makes room for one more.
    await log.confirm(named(shares().filter(({ database }) => database === 1)));
    await eventually(() => expect(databasesOf(shares()).filter((database) => database === 1)).toHaveLength(60));
  });

  it("has what was sent twice in vain applied by itself", async () => {
    const { log, shares } = aLiveShard();
    await log.append([anEventIn(0)], aContext());
    await sent(shares, 1);
    for (const minutes of [1, 2]) {
      vi.setSystemTime(FUTURE + minutes * 60_000);
      await log.nudge(aContext());
    }
    expect(shares().map(({ alone }) => alone)).toEqual([false, false, true]);
    expect(env.TEST_EVENT_QUEUE.sendBatch).not.toHaveBeenCalled();
  });

  it("delivers everything after commits that were undone: after its first, and amid confirmations", async () => {
    const { shard, log, shares } = aLiveShard();
    const afterFailure = async (on: DurableObjectStub<EventLog>) => {
      const ended = runInDurableObject(on, async (instance, { storage }) => {
        const exec = storage.sql.exec.bind(storage.sql);
        vi.spyOn(storage.sql, "exec").mockImplementation(((query: string, ...bindings: never[]) => {
          if (query.includes("INTO holders")) throw new Error("disk full");
          return exec(query, ...bindings);
        }) as typeof exec);
        await instance.append([anEventIn(1)], aContext({ placement: GROWN }));
      });
      await expect(ended).rejects.toThrow("a commit failed halfway");
      return env.EVENT_LOG.getByName(shard);
    };
    const second = await afterFailure(log);
    await second.append([anEventIn(0), anEventIn(1)], aContext({ placement: GROWN }));
    const [share, other] = await sent(shares, 2);
    await evictDurableObject(second);
    const third = env.EVENT_LOG.getByName(shard);
    await third.nudge(aContext());
    expect(databasesOf(shares())).toEqual([0, 1, 0, 1]);
    await third.confirm(named([share]));
    const restarted = await afterFailure(third);
    await restarted.confirm(named([other]));
    await restarted.nudge(aContext());
    await restarted.confirm(named(shares().slice(4)));
    expect(await restarted.status()).toMatchObject({ entries: 0, oldestOf: {} });
    expect(await rowsOf(restarted, "confirmed")).toBe(1);
  });
});
