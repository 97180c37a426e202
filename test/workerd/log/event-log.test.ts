import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, describe, expect, it, vi } from "vitest";
import { orderOf, placedAt } from "../../../src/domain/identifiers.ts";
import { HOUR_MS } from "../../../src/domain/window.ts";
import type { CancelRequest, EventAppend } from "../../../src/log/entries.ts";
import type { EventLog } from "../../../src/log/event-log.ts";
import { decodeMessage, type Group } from "../../../src/log/groups.ts";
import { unique } from "../../support/builders.ts";
import { aClaim, again, aNewEvent, aShard, eventually, FUTURE } from "../support.ts";

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

/**
 * Takes what the logs send instead of the queue; gives what one shard sent, by message and by group,
 * and how often sending it failed. Other logs of this file go on sending meanwhile.
 */
function catchMessages(
  shard: number,
  failures = 0,
): { messages: Group[][]; groups: () => Group[]; failed: () => number } {
  const messages: Group[][] = [];
  let failed = 0;
  vi.spyOn(env.EVENT_QUEUE, "sendBatch").mockImplementation(async (batch) => {
    for (const { body } of batch) {
      const groups = decodeMessage(String(body)).filter((group) => group.shard === shard);
      if (groups.length === 0) continue;
      if (failed < failures) {
        failed++;
        throw new Error("queue down");
      }
      messages.push(groups);
    }
    return {} as QueueSendBatchResponse;
  });
  return { messages, groups: () => messages.flat(), failed: () => failed };
}

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

describe("uniqueness", () => {
  it("accepts an identifier once", async () => {
    const { log } = aShard();
    const event = aNewEvent();
    expect(await log.append([event])).toMatchObject([{ outcome: "accepted" }]);
    expect(await log.append([again(event)])).toEqual([{ outcome: "duplicate", sameReport: true }]);
    expect(await rowsOf(log, "identifiers")).toBe(1);
  });

  it("accepts an identifier once within one commit", async () => {
    const { log } = aShard();
    const event = aNewEvent();
    const outcomes = await log.append([event, again(event), aNewEvent()]);
    expect(outcomes.map(({ outcome }) => outcome)).toEqual(["accepted", "duplicate", "accepted"]);
  });

  it("accepts an identifier once under any interleaving of callers", async () => {
    const { log } = aShard();
    const event = aNewEvent();
    const outcomes = await Promise.all(Array.from({ length: 20 }, () => log.append([again(event)])));
    expect(outcomes.flat().filter(({ outcome }) => outcome === "accepted")).toHaveLength(1);
  });

  it("keeps the modes apart", async () => {
    const { log } = aShard();
    const event = aNewEvent({ key: "test:same" });
    expect(await log.append([event, { ...again(event), key: "live:same" }])).toMatchObject([
      { outcome: "accepted" },
      { outcome: "accepted" },
    ]);
  });

  it("frees an identifier after 24 hours, and not before, across partitions", async () => {
    vi.useFakeTimers({ toFake: ["Date"], now: FUTURE });
    const { shard, log } = aShard();
    catchMessages(shard);
    const event = aNewEvent();
    const start = Date.now();
    await log.append([event]);
    vi.setSystemTime(start + 24 * HOUR_MS - 1);
    expect(await log.append([again(event)])).toEqual([{ outcome: "duplicate", sameReport: true }]);
    vi.setSystemTime(start + 24 * HOUR_MS);
    expect(await log.append([again(event)])).toMatchObject([{ outcome: "accepted" }]);
    expect(await log.append([again(event)])).toEqual([{ outcome: "duplicate", sameReport: true }]);
  });
});

describe("retries", () => {
  it("answers the same Idempotency-Key and body with the first answer", async () => {
    vi.useFakeTimers({ toFake: ["Date"], now: FUTURE });
    const { log } = aShard();
    const event = aNewEvent({ keyDigest: "key" });
    const [first] = await log.append([event]);
    vi.setSystemTime(Date.now() + HOUR_MS);
    expect(await log.append([again(event)])).toEqual([first]);
    expect(await rowsOf(log, "groups")).toBe(1);
  });

  it("refuses another request under the key of an Idempotency-Key, whatever came first", async () => {
    for (const first of [aNewEvent({ claims: true }), aClaim()]) {
      const { log } = aShard();
      await log.append([first]);
      for (const other of [aNewEvent({ claims: true }), aClaim()]) {
        expect(await log.append([{ ...other, key: first.key }])).toEqual([{ outcome: "key_reused" }]);
      }
      expect(await rowsOf(log, "identifiers")).toBe(1);
    }
  });

  it("lets the same request claim an Idempotency-Key again", async () => {
    const { log } = aShard();
    const claim = aClaim();
    const [first] = await log.append([claim]);
    expect(await log.append([claim])).toEqual([first]);
  });

  it("does not take a claim for an event", async () => {
    const { log } = aShard();
    const claim = aClaim();
    await log.append([claim]);
    expect(await log.retrieve(claim.key)).toBeUndefined();
    const { key } = claim;
    const request = { key, id: "a", meters: ["mtr_test_1"], keyDigest: undefined, requestDigest: "r" };
    expect(await log.cancel(request)).toEqual({ outcome: "unknown" });
    expect(await rowsOf(log, "groups")).toBe(0);
  });

  it("calls another report of the same identifier a duplicate, also under the same Idempotency-Key", async () => {
    const { log } = aShard();
    const event = aNewEvent({ keyDigest: "key" });
    await log.append([event]);
    expect(await log.append([{ ...again(event), reportDigest: "another" }])).toEqual([
      { outcome: "duplicate", sameReport: false },
    ]);
  });

  it("calls the same identifier under another key, or under none, a duplicate", async () => {
    const { log } = aShard();
    const event = aNewEvent({ keyDigest: "key" });
    await log.append([event]);
    expect(await log.append([{ ...again(event), keyDigest: "other" }])).toEqual([
      { outcome: "duplicate", sameReport: true },
    ]);
    expect(await log.append([{ ...again(event), keyDigest: undefined }])).toEqual([
      { outcome: "duplicate", sameReport: true },
    ]);
  });

  it("recognises the platform's own repeat of a call by the token of the event's id", async () => {
    const { log } = aShard();
    const event = aNewEvent();
    const [first] = await log.append([event]);
    const raised = { ...event, id: placedAt(orderOf(event.id) + 5, event.id) };
    for (const repeat of [event, raised]) expect(await log.append([repeat])).toEqual([first]);
    expect(await rowsOf(log, "groups")).toBe(1);
  });

  it("recalls an accepted event without appending", async () => {
    const { log } = aShard();
    const event = aNewEvent({ keyDigest: "key" });
    expect(await log.recall([event])).toEqual([undefined]);
    const [first] = await log.append([event]);
    expect(await log.recall([again(event), aNewEvent()])).toEqual([first, undefined]);
    expect(await rowsOf(log, "identifiers")).toBe(1);
  });
});

describe("cancelling", () => {
  const aCancellation = (event: EventAppend, changes: Partial<CancelRequest> = {}): CancelRequest => ({
    key: event.key,
    id: unique("adjustment"),
    meters: [event.event.meter],
    keyDigest: undefined,
    requestDigest: "request",
    ...changes,
  });

  it("happens once, and leaves the identifier taken", async () => {
    const { log } = aShard();
    const event = aNewEvent();
    await log.append([event]);
    expect(await log.cancel(aCancellation(event))).toMatchObject({ outcome: "cancelled" });
    expect(await log.cancel(aCancellation(event))).toEqual({ outcome: "already_cancelled" });
    expect(await log.append([again(event)])).toMatchObject([{ outcome: "duplicate" }]);
    expect(await rowsOf(log, "groups")).toBe(2);
  });

  it("answers the same Idempotency-Key with the first answer, and the platform's repeat too", async () => {
    const { log } = aShard();
    const event = aNewEvent();
    await log.append([event]);
    const request = aCancellation(event, { keyDigest: "key" });
    const first = await log.cancel(request);
    expect(await log.cancel(request)).toEqual(first);
    expect(await log.cancel({ ...request, id: "another" })).toEqual(first);
    const other = { ...request, id: "another", requestDigest: "another" };
    expect(await log.cancel(other)).toEqual({ outcome: "key_reused" });
    expect(await rowsOf(log, "groups")).toBe(2);
  });

  it("is known again by its Idempotency-Key when the identifier is another event's by now", async () => {
    vi.useFakeTimers({ toFake: ["Date"], now: FUTURE });
    const { shard, log } = aShard();
    catchMessages(shard);
    const event = aNewEvent();
    await log.append([event]);
    vi.setSystemTime(FUTURE + 23 * HOUR_MS);
    const request = aCancellation(event, { keyDigest: "key" });
    const first = await log.cancel(request);
    vi.setSystemTime(FUTURE + 24 * HOUR_MS);
    const next = again(event);
    expect(await log.append([next])).toMatchObject([{ outcome: "accepted", id: next.id }]);
    expect(await log.cancel({ ...request, id: "a retry" })).toEqual(first);
    expect(await log.retrieve(event.key)).toMatchObject({ event: { id: next.id }, cancelled: undefined });
  });

  it("is known again by its Idempotency-Key when its event's partition is gone", async () => {
    vi.useFakeTimers({ toFake: ["Date"], now: FUTURE });
    const { shard, log } = aShard();
    const { groups } = catchMessages(shard);
    const event = aNewEvent();
    await log.append([event]);
    vi.setSystemTime(FUTURE + 23 * HOUR_MS);
    const request = aCancellation(event, { keyDigest: "key" });
    const first = await log.cancel(request);
    await eventually(() => expect(new Set(groups().map(({ kind }) => kind)).size).toBe(2));
    await log.confirm(groups().map(({ id }) => id));
    vi.setSystemTime(FUTURE + 40 * HOUR_MS);
    await log.nudge();
    expect(await log.retrieve(event.key)).toBeUndefined();
    expect(await log.cancel({ ...request, id: "a retry" })).toEqual(first);
  });

  it("refuses what it never had, another meter's event, and one received 24 hours ago", async () => {
    vi.useFakeTimers({ toFake: ["Date"], now: FUTURE });
    const { shard, log } = aShard();
    catchMessages(shard);
    const event = aNewEvent();
    expect(await log.cancel(aCancellation(event))).toEqual({ outcome: "unknown" });
    await log.append([event]);
    expect(await log.cancel(aCancellation(event, { meters: ["mtr_other"] }))).toEqual({ outcome: "other_meter" });
    vi.setSystemTime(FUTURE + 24 * HOUR_MS);
    expect(await log.cancel(aCancellation(event))).toEqual({ outcome: "too_old" });
    expect(await rowsOf(log, "groups")).toBe(1);
  });

  it("finds an event in a commit of several groups", async () => {
    const { shard, log } = aShard();
    catchMessages(shard);
    const wide = { note: "x".repeat(500) };
    const events = Array.from({ length: 400 }, () => {
      const event = aNewEvent();
      return { ...event, event: { ...event.event, dimensions: wide } };
    });
    await log.append(events);
    expect(await rowsOf(log, "groups")).toBeGreaterThan(1);
    for (const event of [events[0], events[200], events[399]]) {
      if (event !== undefined) expect(await log.cancel(aCancellation(event))).toMatchObject({ outcome: "cancelled" });
    }
  });

  it("is undone whole when its transaction fails", async () => {
    const { log } = aShard();
    const event = aNewEvent();
    await log.append([event]);
    await runInDurableObject(log, (instance, { storage }) => {
      const exec = storage.sql.exec.bind(storage.sql);
      vi.spyOn(storage.sql, "exec").mockImplementation(((query: string, ...bindings: never[]) => {
        if (query.includes("INSERT INTO groups")) throw new Error("disk full");
        return exec(query, ...bindings);
      }) as typeof exec);
      expect(() => instance.cancel(aCancellation(event))).toThrow("disk full");
    });
    vi.restoreAllMocks();
    expect(await log.cancel(aCancellation(event))).toMatchObject({ outcome: "cancelled" });
  });

  it("survives an eviction right after it", async () => {
    const { shard, log } = aShard();
    const { groups } = catchMessages(shard);
    const event = aNewEvent();
    await log.append([event]);
    await log.cancel(aCancellation(event));
    await evictDurableObject(log);
    await log.nudge();
    await eventually(() => expect(groups().map(({ kind }) => kind)).toContain("cancellations"));
  });
});

describe("commits", () => {
  it("puts what arrives together into one group", async () => {
    const { shard, log } = aShard();
    const { groups } = catchMessages(shard);
    await Promise.all(Array.from({ length: 50 }, () => log.append([aNewEvent()])));
    // The first commits at once, alone or with a few; all others wait for it and share the next.
    expect(await rowsOf(log, "groups")).toBeLessThanOrEqual(5);
    await eventually(() => expect(groups().flatMap(({ entries }) => JSON.parse(`[${entries}]`))).toHaveLength(50));
  });

  it("cuts a large commit into groups that each fit a message, with growing ids", async () => {
    const { shard, log } = aShard();
    const { messages, groups } = catchMessages(shard);
    const wide = { note: "é".repeat(500) };
    const events = Array.from({ length: 300 }, () => {
      const event = aNewEvent();
      return { ...event, event: { ...event.event, dimensions: wide } };
    });
    await log.append(events);
    await eventually(() => expect(groups().flatMap(({ entries }) => JSON.parse(`[${entries}]`))).toHaveLength(300));
    expect(messages.length).toBeGreaterThan(1);
    const ids = groups().map(({ id }) => id);
    expect(ids).toEqual([...new Set(ids)].toSorted((a, b) => a - b));
  });

  it("leaves nothing behind of a commit that fails, and goes on", async () => {
    const { log } = aShard();
    const event = aNewEvent();
    await runInDurableObject(log, async (instance, { storage }) => {
      vi.spyOn(storage, "setAlarm").mockImplementationOnce(() => {
        throw new Error("disk full");
      });
      await expect(instance.append([event])).rejects.toThrow("disk full");
    });
    expect(await log.recall([event])).toEqual([undefined]);
    expect(await log.append([event])).toMatchObject([{ outcome: "accepted" }]);
    expect(await rowsOf(log, "groups")).toBe(1);
  });

  it("arms the alarm with the append, so that a crash right after it loses nothing", async () => {
    const { log } = aShard();
    await log.append([aNewEvent()]);
    expect(await runInDurableObject(log, (_, { storage }) => storage.getAlarm())).not.toBeNull();
  });

  it("answers 'full' past the high-water mark, but still knows what it accepted", async () => {
    const { log } = aShard();
    const event = aNewEvent({ keyDigest: "key" });
    const [first] = await log.append([event]);
    await runInDurableObject(log, async (instance, { storage }) => {
      vi.spyOn(storage.sql, "databaseSize", "get").mockReturnValue(9_000_000_000);
      expect(await instance.append([aNewEvent()])).toEqual([{ outcome: "full" }]);
      expect(await instance.append([again(event)])).toEqual([first]);
    });
  });

  it("never lets the time of receipt go back", async () => {
    vi.useFakeTimers({ toFake: ["Date"], now: FUTURE });
    const { log } = aShard();
    const [before] = await log.append([aNewEvent()]);
    vi.setSystemTime(Date.now() - HOUR_MS);
    const [after] = await log.append([aNewEvent()]);
    const received = (outcome: typeof before) => (outcome?.outcome === "accepted" ? outcome.received : Number.NaN);
    expect(received(after)).toBeGreaterThanOrEqual(received(before));
  });
});

describe("delivery", () => {
  it("sends a group until it is confirmed, and then no more", async () => {
    vi.useFakeTimers({ toFake: ["Date"], now: FUTURE });
    const { shard, log } = aShard();
    const { groups } = catchMessages(shard);
    await log.append([aNewEvent()]);
    await eventually(() => expect(groups()).toHaveLength(1));
    vi.setSystemTime(Date.now() + 20_000);
    await runDurableObjectAlarm(log);
    expect(groups()).toHaveLength(2);
    expect(groups()[1]).toEqual(groups()[0]);
    await log.confirm([groups()[0]?.id ?? 0]);
    vi.setSystemTime(Date.now() + HOUR_MS);
    await log.nudge();
    await runDurableObjectAlarm(log);
    expect(groups()).toHaveLength(2);
    expect(await runInDurableObject(log, (_, { storage }) => storage.getAlarm())).toBeNull();
  });

  it("sends again what was unconfirmed when it was evicted, and nothing that was confirmed", async () => {
    const { shard, log } = aShard();
    const { groups } = catchMessages(shard);
    await log.append([aNewEvent()]);
    await eventually(() => expect(groups()).toHaveLength(1));
    await log.confirm([groups()[0]?.id ?? 0]);
    const late = aNewEvent();
    await log.append([late]);
    await eventually(() => expect(groups()).toHaveLength(2));
    await evictDurableObject(log);
    await log.nudge();
    expect(groups()).toHaveLength(3);
    expect(groups()[2]).toEqual(groups()[1]);
    expect(groups()[2]?.entries).toContain(late.identifier);
  });

  it("is woken by the alarm alone after a restart", async () => {
    const { shard, log } = aShard();
    const { groups } = catchMessages(shard);
    await log.append([aNewEvent()]);
    await evictDurableObject(log);
    await runDurableObjectAlarm(log);
    await eventually(() => expect(groups().length).toBeGreaterThanOrEqual(1));
  });

  it("goes on after the queue failed", async () => {
    vi.useFakeTimers({ toFake: ["Date"], now: FUTURE });
    const { shard, log } = aShard();
    const { groups, failed } = catchMessages(shard, 1);
    await log.append([aNewEvent()]);
    await eventually(() => expect(failed()).toBe(1));
    expect(groups()).toHaveLength(0);
    vi.setSystemTime(Date.now() + 20_000);
    await runDurableObjectAlarm(log);
    expect(groups()).toHaveLength(1);
  });

  it("ignores confirmations that come late, twice, or for groups it never had", async () => {
    const { shard, log } = aShard();
    const { groups } = catchMessages(shard);
    await log.append([aNewEvent()]);
    await eventually(() => expect(groups()).toHaveLength(1));
    const id = groups()[0]?.id ?? 0;
    await log.confirm([id, id, 17]);
    await log.confirm([id]);
    expect(await rowsOf(log, "confirmed")).toBe(1);
  });

  it("drops a partition when its identifiers have expired, but never one with unconfirmed groups", async () => {
    vi.useFakeTimers({ toFake: ["Date"], now: FUTURE });
    const { shard, log } = aShard();
    const { groups } = catchMessages(shard);
    await log.append([aNewEvent()]);
    await eventually(() => expect(groups()).toHaveLength(1));
    vi.setSystemTime(Date.now() + 48 * HOUR_MS);
    await log.nudge();
    expect(await rowsOf(log, "groups")).toBe(1);
    await log.confirm([groups()[0]?.id ?? 0]);
    await log.nudge();
    expect(await rowsOf(log, "groups")).toBe(0);
    expect(await log.append([aNewEvent()])).toMatchObject([{ outcome: "accepted" }]);
  });

  it("drops an expired partition and keeps sending the unconfirmed groups of the others", async () => {
    vi.useFakeTimers({ toFake: ["Date"], now: FUTURE });
    const { shard, log } = aShard();
    const { groups } = catchMessages(shard);
    // Two unconfirmed groups in an old partition, and a newer partition that is confirmed and expires.
    await log.append([aNewEvent()]);
    await log.append([aNewEvent()]);
    vi.setSystemTime(Date.now() + 12 * HOUR_MS);
    await log.append([aNewEvent()]);
    await eventually(() => expect(groups()).toHaveLength(3));
    const [first, second, third] = groups().map(({ id }) => id);
    await log.confirm([third ?? 0]);
    vi.setSystemTime(Date.now() + 48 * HOUR_MS);
    await log.nudge();
    expect(
      groups()
        .slice(3)
        .map(({ id }) => id),
    ).toEqual([first, second]);
    // The two that are unconfirmed are all that is left.
    expect(await rowsOf(log, "groups")).toBe(2);
  });

  it("drops an expired partition although a confirmation has just looked at a backlog", async () => {
    vi.useFakeTimers({ toFake: ["Date"], now: FUTURE });
    const { shard, log } = aShard();
    const { groups } = catchMessages(shard);
    await log.append([aNewEvent()]);
    await eventually(() => expect(groups()).toHaveLength(1));
    vi.setSystemTime(Date.now() + 48 * HOUR_MS);
    await runInDurableObject(log, async (instance) => {
      await instance.append([aNewEvent()]);
      await instance.append([aNewEvent()]);
      instance.confirm([groups()[0]?.id ?? 0]);
      await instance.nudge();
    });
    expect(await rowsOf(log, "groups")).toBe(2);
  });

  it("is never further away than the first delay, so that what a confirmation makes due is not late", async () => {
    vi.useFakeTimers({ toFake: ["Date"], now: FUTURE });
    const { shard, log } = aShard();
    const { groups } = catchMessages(shard);
    await log.append([aNewEvent()]);
    await eventually(() => expect(groups()).toHaveLength(1));
    for (let hour = 1; hour <= 10; hour++) {
      vi.setSystemTime(Date.now() + HOUR_MS);
      await runDurableObjectAlarm(log);
    }
    const alarm = await runInDurableObject(log, (_, { storage }) => storage.getAlarm());
    expect((alarm ?? Number.POSITIVE_INFINITY) - Date.now()).toBeLessThanOrEqual(10_000);
  });

  it("writes two rows an event and one a confirmation, however many partitions there are", async () => {
    const { shard, log } = aShard();
    const { groups } = catchMessages(shard);
    const rowsWritten = await runInDurableObject(log, async (instance, { storage }) => {
      await instance.append([aNewEvent()]);
      let rows = 0;
      const exec = storage.sql.exec.bind(storage.sql);
      vi.spyOn(storage.sql, "exec").mockImplementation(((query: string, ...bindings: never[]) => {
        const cursor = exec(query, ...bindings);
        rows += cursor.rowsWritten;
        return cursor;
      }) as typeof exec);
      await instance.append(Array.from({ length: 100 }, () => aNewEvent()));
      await eventually(() => expect(groups()).toHaveLength(2));
      instance.confirm(groups().map(({ id }) => id));
      return rows;
    });
    // 100 identifiers, 1 group, 2 confirmations.
    expect(rowsWritten).toBe(103);
  });
});
