import { evictDurableObject, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { describe, expect, it, vi } from "vitest";
import { LOCAL_KEYS } from "../../../scripts/local-keys.ts";
import { auditSome } from "../../../src/audit/audit-some.ts";
import { auditStep, type Cursor, writeCursor } from "../../../src/audit/full-audit.ts";
import { DAY_MS, HOUR_MS, MINUTE_MS } from "../../../src/domain/window.ts";
import type { EventLog } from "../../../src/log/event-log.ts";
import { allShards, eventLog } from "../../../src/log/shards.ts";
import { aNewEvent, answerOf, aShard, FUTURE } from "../support.ts";
import { aStoredMeter, cancel, holdQueueAndClock, lose, settle, sql, tenEvents, totalOf } from "./audit-support.ts";

holdQueueAndClock();

type Step = {
  missing: number;
  entries_waiting: number;
  accepted: Record<string, number>;
  stored: Record<string, number>;
  next: string | null;
};

const post = (path: string, form = "", key: string = LOCAL_KEYS.live) => answerOf(path, { form, key });

/** Delivers what all logs have to send. */
async function settleAll(): Promise<void> {
  for (const shard of allShards(env)) await settle(eventLog(env, shard));
}

/** All steps of an audit over HTTP. */
async function fullAudit(): Promise<Step[]> {
  const steps: Step[] = [];
  for (let form = ""; ; ) {
    const { status, body } = await post("/v1/edgemeter/audit", form);
    expect(status).toBe(200);
    const step = body as unknown as Step;
    steps.push(step);
    if (step.next === null) return steps;
    form = String(new URLSearchParams({ cursor: step.next }));
  }
}

describe("the scheduled audit", () => {
  it("repairs without help, a little each minute, and remembers how far it came", async () => {
    const meter = await aStoredMeter();
    const { log, events } = await tenEvents(meter, { shard: 0, log: eventLog(env, 0) });
    await auditSome(env, FUTURE + 5 * MINUTE_MS);
    await sql("UPDATE hourly_summaries SET count = 1, sum_low = 1 WHERE meter = ?", meter.id);
    await sql("DELETE FROM events WHERE meter = ? AND identifier = ?", meter.id, events[4]?.identifier);
    const more = await tenEvents(meter, { shard: 0, log });
    await sql("DELETE FROM events WHERE meter = ? AND identifier = ?", meter.id, more.events[5]?.identifier);
    // What was audited is not compared again: that event is `npm run audit`'s to find.
    vi.setSystemTime(FUTURE + 2 * DAY_MS);
    for (const _ of [1, 2, 3]) await auditSome(env, Date.now());
    await settle(log);
    expect(await env.DB.prepare("SELECT COUNT(*) AS n FROM events WHERE meter = ?").bind(meter.id).first("n")).toBe(19);
    for (const _ of [1, 2, 3]) await auditSome(env, Date.now());
    expect(await totalOf(meter)).toBe(475n);
    const { body } = await answerOf("/v1/edgemeter/pipeline");
    expect(body.audits).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ name: "log-0", checked: 20, repaired: 1 }),
        expect.objectContaining({ name: "summaries" }),
      ]),
    );
    expect((await fullAudit()).reduce((sum, { missing }) => sum + missing, 0)).toBe(1);
    await settle(log);
    expect(await totalOf(meter)).toBe(500n);
  });

  it("begins with another shard each minute, so that a run that ends early leaves out none for ever", async () => {
    const getByName = vi.spyOn(env.EVENT_LOG, "getByName");
    const firsts: unknown[] = [];
    for (const minute of [0, 1, 2, 3]) {
      getByName.mockClear();
      await auditSome(env, FUTURE + minute * MINUTE_MS);
      firsts.push(getByName.mock.calls[0]?.[0]);
      expect(new Set(getByName.mock.calls.map(([name]) => name)).size).toBe(4);
    }
    expect(firsts.sort()).toEqual(["shard-0", "shard-1", "shard-2", "shard-3"]);
  });
});

describe("a full audit of the log", () => {
  it("compares the other shards also while one waits, and says how much waits", async () => {
    const meter = await aStoredMeter();
    vi.setSystemTime(FUTURE + 40 * MINUTE_MS);
    const { log, events } = await tenEvents(meter, { shard: 3, log: eventLog(env, 3) });
    const waiting = eventLog(env, 0);
    await waiting.append([aNewEvent({ shard: 0, meter: meter.id })]);
    await lose(meter, events[1]);
    vi.setSystemTime(FUTURE + 50 * MINUTE_MS);
    const steps = await fullAudit();
    expect(steps.reduce((sum, { missing }) => sum + missing, 0)).toBe(1);
    expect(steps.reduce((sum, step) => sum + step.entries_waiting, 0)).toBeGreaterThanOrEqual(1);
    await settle(log);
    await settle(waiting);
  });

  it("comes past customers with the longest names", async () => {
    const meter = await aStoredMeter();
    const { log, shard } = aShard();
    const customers = ["\u0001".repeat(500), "漢".repeat(500)];
    await log.append(customers.map((customer) => aNewEvent({ shard, meter: meter.id, customer })));
    await settle(log);
    let cursor: Cursor = { received: { start: 0, end: FUTURE }, at: { meter: meter.id, customer: "", time: 0 } };
    for (const customer of customers) {
      // So few rows that the step ends at this customer.
      const { next } = await auditStep(env, cursor, { now: FUTURE, trustEvents: false, rows: 1 });
      if (next === undefined) throw new Error("the audit ended before its last customer");
      expect(next.at).toMatchObject({ meter: meter.id, customer });
      const form = String(new URLSearchParams({ cursor: writeCursor(next) }));
      expect((await post("/v1/edgemeter/audit", form)).status).toBe(200);
      cursor = next;
    }
  });
});

describe("the operator's calls", () => {
  it("audit everything in steps, and count both sides the same", async () => {
    const meter = await aStoredMeter();
    // A minute of its own, since other tests leave their events in D1.
    const minute = FUTURE + 30 * MINUTE_MS;
    vi.setSystemTime(minute);
    const { log } = await tenEvents(meter, { shard: 1, log: eventLog(env, 1) });
    vi.setSystemTime(minute + 5 * MINUTE_MS);
    const count = (steps: Step[], side: "accepted" | "stored") =>
      steps.reduce((sum, step) => sum + (step[side][String(minute)] ?? 0), 0);
    const sound = await fullAudit();
    // Another test may have left something to send again, which keeps later minutes from being counted.
    await settle(eventLog(env, 0));
    expect(count(sound, "accepted")).toBe(10);
    expect(count(sound, "stored")).toBe(10);
    // An event too many.
    await sql(
      "INSERT INTO events SELECT meter, customer, timestamp, id || 'x', identifier, value, received, dimensions, NULL FROM events WHERE meter = ? LIMIT 1",
      meter.id,
    );
    const doubled = await fullAudit();
    expect(count(doubled, "accepted")).toBe(10);
    expect(count(doubled, "stored")).toBe(11);
    await sql("DELETE FROM events WHERE meter = ?", meter.id);
    expect((await fullAudit()).reduce((sum, { missing }) => sum + missing, 0)).toBeGreaterThanOrEqual(10);
    await settle(log);
    await fullAudit();
    expect(await totalOf(meter)).toBe(250n);
  });

  it("refuse a cursor that is none", async () => {
    const received = { start: 0, end: FUTURE };
    const ofNoShard = JSON.stringify({ received, at: { shard: 123_456, after: 0 } });
    for (const cursor of [
      "x",
      "e30",
      Buffer.from(ofNoShard).toString("base64url"),
      Buffer.from('{"received":{},"at":{}}').toString("base64url"),
    ]) {
      expect(await post("/v1/edgemeter/audit", `cursor=${cursor}`)).toMatchObject({
        status: 400,
        body: { error: { param: "cursor" } },
      });
    }
  });

  it("send everything again that the logs remember, after D1 was put back to an earlier point", async () => {
    const meter = await aStoredMeter();
    const { log, events } = await tenEvents(meter, { shard: 2, log: eventLog(env, 2) });
    // A time of its own, since other tests leave their events in the logs.
    vi.setSystemTime(FUTURE + 5 * HOUR_MS);
    await tenEvents(meter, { shard: 2, log });
    await cancel(log, events[0], meter);
    await settle(log);
    const truth = await totalOf(meter);
    for (const table of ["events", "hourly_summaries"]) await sql(`DELETE FROM ${table} WHERE meter = ?`, meter.id);
    vi.setSystemTime(FUTURE + 23 * HOUR_MS);
    const { status, body } = await post("/v1/edgemeter/resend");
    expect(status).toBe(200);
    expect(body).toMatchObject({ status: "started", groups: expect.any(Number) });
    expect(body.groups).toBeGreaterThanOrEqual(3);
    await settleAll();
    expect(await totalOf(meter)).toBe(truth);
    // And since a time only what came after it.
    const since = Math.floor((FUTURE + 4 * HOUR_MS) / 1_000);
    expect((await post("/v1/edgemeter/resend", `since=${since}`)).body.groups).toBe(2);
    await settleAll();
    expect(await totalOf(meter)).toBe(truth);
  });

  it("send again once, however often they are called meanwhile, and new events arrive beside it", async () => {
    const meter = await aStoredMeter();
    await settleAll();
    const { log } = await tenEvents(meter, { shard: 2, log: eventLog(env, 2) });
    const first = await post("/v1/edgemeter/resend");
    expect(first.body).toMatchObject({ status: "started" });
    const groups = async () => (await log.status()).inFlight;
    await log.nudge();
    const sentOnce = await groups();
    for (let i = 0; i < 5; i++) {
      vi.setSystemTime(Date.now() + 500);
      // Also after the log has been restarted.
      if (i === 3) await evictDurableObject(log);
      const again = await post("/v1/edgemeter/resend", `since=${Math.floor(FUTURE / 1_000) - i}`);
      expect(again.body).toMatchObject({ status: "under_way", groups: 0, since: first.body.since });
      await log.append([aNewEvent({ shard: 2, meter: meter.id, timestamp: FUTURE })]);
      await log.nudge();
      // Nothing of the old was begun anew, and the new is on its way.
      expect(await groups()).toBe(sentOnce + i + 1);
    }
    await settleAll();
    expect(await totalOf(meter)).toBe(375n);
    expect((await post("/v1/edgemeter/resend")).body).toMatchObject({ status: "started" });
    await settleAll();
  });

  it("send again more than fits on its way at once, in turn with what is new", async () => {
    const meter = await aStoredMeter();
    const { shard, log } = aShard();
    vi.spyOn(scheduler, "wait").mockResolvedValue();
    const groups = 1_200;
    await runInDurableObject(log, async (instance: EventLog) => {
      for (let i = 0; i < groups; i++) {
        await instance.append([aNewEvent({ shard, meter: meter.id, timestamp: FUTURE })]);
      }
    });
    await settle(log);
    for (const table of ["events", "hourly_summaries"]) await sql(`DELETE FROM ${table} WHERE meter = ?`, meter.id);
    expect(await log.sendAllSince(FUTURE - HOUR_MS)).toBe(groups);
    for (let i = 1; i <= 5; i++) {
      // The queue takes everything and delivers nothing yet.
      await log.nudge();
      expect((await log.status()).inFlight).toBe(499 + i);
      expect(await log.sendAllSince(0)).toBeUndefined();
      await log.append([aNewEvent({ shard, meter: meter.id, timestamp: FUTURE })]);
    }
    await settle(log);
    expect(await totalOf(meter)).toBe(25n * BigInt(groups + 5));
    expect(await log.resendUnderWay()).toBeUndefined();
  });

  it("need a live key where they concern both modes", async () => {
    for (const path of ["/v1/edgemeter/audit", "/v1/edgemeter/resend"]) {
      const { status, body } = await post(path, "", LOCAL_KEYS.test);
      expect(status).toBe(403);
      expect(body.error).toMatchObject({ type: "invalid_request_error", message: expect.stringMatching(/live key/) });
    }
  });
});
