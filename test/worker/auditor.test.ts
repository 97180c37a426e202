import { evictDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { LOCAL_KEYS } from "../../scripts/local-keys.ts";
import { consume } from "../../src/aggregation/consumer.ts";
import { readSummaries } from "../../src/aggregation/summaries.ts";
import { auditLog } from "../../src/auditing/audit-log.ts";
import { auditSummaries } from "../../src/auditing/audit-summaries.ts";
import { BEGINNING, END, type Place } from "../../src/auditing/days.ts";
import { auditSome, logReach } from "../../src/auditing/scheduled.ts";
import type { EventLog } from "../../src/durable-objects/event-log.ts";
import type { NewEvent } from "../../src/durable-objects/log-entries.ts";
import { eventLog } from "../../src/durable-objects/stubs.ts";
import { aggregationOf, type Meter } from "../../src/metering/meters.ts";
import { DAY_MS, floorTo, HOUR_MS, MINUTE_MS } from "../../src/metering/windows.ts";
import { insertMeter } from "../../src/storage/meters.ts";
import { aMeter, unique } from "../support/builders.ts";
import { aBatch, aNewEvent, answerOf, aShard, FUTURE } from "./support.ts";

/** What the logs have sent and nobody took yet. */
let messages: string[] = [];

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["Date"], now: FUTURE });
  messages = [];
  vi.spyOn(env.EVENT_QUEUE, "sendBatch").mockImplementation(async (batch) => {
    messages.push(...[...batch].map(({ body }) => String(body)));
    return {} as QueueSendBatchResponse;
  });
  vi.spyOn(console, "warn").mockImplementation(() => {});
});

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

/** A stored meter of its own. */
async function aStoredMeter(changes: Parameters<typeof aMeter>[0] = {}): Promise<Meter> {
  const meter = aMeter({ eventName: unique("tokens"), ...changes });
  await insertMeter(env.DB, meter).run();
  return meter;
}

/** Delivers whatever a log has to send, until D1 has confirmed all of it. */
async function settle(log: DurableObjectStub<EventLog>): Promise<void> {
  await vi.waitFor(
    async () => {
      await log.nudge();
      await consume(aBatch(messages.splice(0)), env);
      expect((await log.status()).entries).toBe(0);
    },
    { timeout: 10_000, interval: 5 },
  );
}

/** Ten events of 25 in a shard's log and in D1, one a minute; and the shard. */
async function tenEvents(meter: Meter, { shard, log } = aShard()) {
  const events = Array.from({ length: 10 }, (_, i) => {
    const event = aNewEvent({ shard, meter: meter.id, timestamp: FUTURE - i * MINUTE_MS, identifier: unique("event") });
    return { ...event, event: { ...event.event, aggregation: aggregationOf(meter) } };
  });
  await log.append(events);
  await settle(log);
  return { shard, log, events };
}

const totalOf = async (meter: Meter): Promise<bigint | undefined> => {
  const range = { start: 0, end: FUTURE + 10 * DAY_MS - ((FUTURE + 10 * DAY_MS) % DAY_MS) };
  const query = { meter, customer: "cus_1", range, windowLength: range.end, order: "newest_first", limit: 10 } as const;
  return (await readSummaries(env.DB, query))[0]?.value;
};

const sql = (query: string, ...values: unknown[]) =>
  env.DB.prepare(query)
    .bind(...values)
    .run();

/** Deletes an event from D1 without a trace: its hour says so too. */
async function lose(meter: Meter, event: NewEvent | undefined): Promise<void> {
  await sql("DELETE FROM events WHERE meter = ? AND identifier = ?", meter.id, event?.identifier);
  await addToHour(meter, event, -1);
}

const addToHour = (meter: Meter, event: NewEvent | undefined, count: 1 | -1) =>
  sql(
    "UPDATE hourly_summaries SET count = count + ?1, sum_low = sum_low + 25 * ?1 WHERE meter = ?2 AND hour = ?3",
    count,
    meter.id,
    floorTo(event?.event.timestamp ?? 0, HOUR_MS),
  );

/** Audits all of a shard. */
async function auditShard(shard: number): Promise<{ checked: number; missing: number; altered: number }> {
  const sum = { checked: 0, missing: 0, altered: 0 };
  for (let after = 0; ; ) {
    const page = await auditLog(env, shard, after, FUTURE + DAY_MS);
    if (page.incomplete.length > 0) await eventLog(env, shard).sendAgain(page.incomplete);
    if (page.last === undefined) return sum;
    after = page.last;
    for (const key of ["checked", "missing", "altered"] as const) sum[key] += page[key];
  }
}

/** Recomputes every summary there is, `rows` at a time. */
async function auditAllSummaries(
  rows: number,
  lessFrom: number = logReach(FUTURE),
): Promise<{ days: number; repaired: number; suspect: number }> {
  const sum = { days: 0, repaired: 0, suspect: 0 };
  for (let place: Place = BEGINNING; place !== END; ) {
    const { days, repaired, suspect, failed, next } = await auditSummaries(env, place, { rows, lessFrom });
    expect(failed).toBe(0);
    sum.days += days;
    sum.repaired += repaired;
    sum.suspect += suspect;
    place = next;
  }
  return sum;
}

describe("comparing the log with D1", () => {
  it("finds nothing where nothing is wrong", async () => {
    const { shard } = await tenEvents(await aStoredMeter());
    expect(await auditShard(shard)).toEqual({ checked: 10, missing: 0, altered: 0 });
    expect(messages).toEqual([]);
  });

  it("finds events that were deleted from D1, and has the log send them again", async () => {
    const meter = await aStoredMeter();
    const { shard, log, events } = await tenEvents(meter);
    await lose(meter, events[0]);
    await lose(meter, events[7]);
    expect(await auditShard(shard)).toEqual({ checked: 10, missing: 2, altered: 0 });
    await settle(log);
    expect(await totalOf(meter)).toBe(250n);
    expect(await auditShard(shard)).toEqual({ checked: 10, missing: 0, altered: 0 });
  });

  it("sends again also what was found just before the log was restarted", async () => {
    const meter = await aStoredMeter();
    const { shard, log, events } = await tenEvents(meter);
    await tenEvents(meter, { shard, log });
    await lose(meter, events[0]);
    expect(await auditShard(shard)).toMatchObject({ missing: 1 });
    await evictDurableObject(log);
    messages = [];
    await settle(eventLog(env, shard));
    expect(await totalOf(meter)).toBe(500n);
  });

  it("puts events right that D1 has otherwise than they were logged, and their summaries with them", async () => {
    const meter = await aStoredMeter();
    const { shard, events } = await tenEvents(meter);
    await sql("UPDATE events SET value = 1000 WHERE meter = ? AND identifier = ?", meter.id, events[2]?.identifier);
    await sql("UPDATE hourly_summaries SET sum_low = 1225 WHERE meter = ?", meter.id);
    expect(await auditShard(shard)).toEqual({ checked: 10, missing: 0, altered: 1 });
    expect(await totalOf(meter)).toBe(250n);
    expect(await auditShard(shard)).toMatchObject({ altered: 0 });
  });

  it("finds a cancellation that D1 has not, and it takes effect once", async () => {
    const meter = await aStoredMeter();
    const { shard, log, events } = await tenEvents(meter);
    const [event] = events;
    await log.cancel({
      key: event?.key ?? "",
      id: unique("adjustment"),
      meters: [meter.id],
      keyDigest: "",
      requestDigest: "",
    });
    await settle(log);
    expect(await totalOf(meter)).toBe(225n);
    await sql("UPDATE events SET cancelled = NULL WHERE meter = ?", meter.id);
    await addToHour(meter, event, 1);
    expect(await auditShard(shard)).toMatchObject({ missing: 1 });
    await settle(log);
    expect(await totalOf(meter)).toBe(225n);
  });

  it("brings back a cancelled event as cancelled", async () => {
    const meter = await aStoredMeter();
    const { shard, log, events } = await tenEvents(meter);
    const [event] = events;
    await log.cancel({
      key: event?.key ?? "",
      id: unique("adjustment"),
      meters: [meter.id],
      keyDigest: "",
      requestDigest: "",
    });
    await settle(log);
    await sql("DELETE FROM events WHERE meter = ? AND identifier = ?", meter.id, event?.identifier);
    await auditShard(shard);
    await settle(log);
    await auditShard(shard);
    await settle(log);
    expect(await totalOf(meter)).toBe(225n);
  });

  it("takes a dead letter for accounted for", async () => {
    vi.spyOn(console, "error").mockImplementation(() => {});
    const meter = await aStoredMeter();
    const { shard, log } = await tenEvents(meter);
    await log.append([{ ...aNewEvent({ shard, meter: meter.id }), identifier: null as never }]);
    await settle(log);
    expect(await auditShard(shard)).toEqual({ checked: 11, missing: 0, altered: 0 });
  });
});

describe("recomputing summaries", () => {
  it("repairs hours that are wrong, missing, or say something of nothing, and leaves the others", async () => {
    const meter = await aStoredMeter();
    await tenEvents(meter);
    const { log, shard } = aShard();
    await log.append([aNewEvent({ shard, meter: meter.id, customer: "cus_2", timestamp: FUTURE - 5 * DAY_MS })]);
    await settle(log);
    await auditAllSummaries(1_000);
    await sql("UPDATE hourly_summaries SET sum_low = sum_low + 1 WHERE meter = ? AND customer = 'cus_1'", meter.id);
    await sql("DELETE FROM hourly_summaries WHERE meter = ? AND customer = 'cus_2'", meter.id);
    await sql("INSERT INTO hourly_summaries VALUES (?, 'cus_3', ?, 1, 0, 7)", meter.id, FUTURE - (FUTURE % HOUR_MS));
    const wrongHours = new Set([FUTURE, FUTURE - 9 * MINUTE_MS].map((time) => Math.floor(time / HOUR_MS))).size;
    expect(await auditAllSummaries(1_000)).toMatchObject({ repaired: wrongHours + 2 });
    expect(await totalOf(meter)).toBe(250n);
    expect(await auditAllSummaries(1_000)).toMatchObject({ repaired: 0 });
  });

  it.each([
    { formula: "last", eventTimeWindow: null },
    { formula: "sum", eventTimeWindow: "hour" },
    { formula: "sum", eventTimeWindow: "day" },
  ] as const)("repairs the survivors of $formula, $eventTimeWindow", async (kind) => {
    const meter = await aStoredMeter(kind);
    await tenEvents(meter);
    const truth = await totalOf(meter);
    expect(await auditAllSummaries(1_000)).toMatchObject({ repaired: 0 });
    for (const damage of [
      "UPDATE window_survivors SET value = 7, id = 'another' WHERE meter = ?",
      "DELETE FROM window_survivors WHERE meter = ?",
      "INSERT INTO window_survivors SELECT meter, 'cus_9', window_start, rank, timestamp, received, id, value FROM window_survivors WHERE meter = ?",
    ]) {
      await sql(damage, meter.id);
      expect((await auditAllSummaries(1_000)).repaired).toBeGreaterThan(0);
      expect(await totalOf(meter)).toBe(truth);
      expect(await auditAllSummaries(1_000)).toMatchObject({ repaired: 0 });
    }
  });

  it("comes past every day once, however few rows it reads at a time", async () => {
    const meter = await aStoredMeter();
    const { log, shard } = aShard();
    const customers = ["a", "b", "é", "\u{1f600}", "\uffee"];
    await log.append(
      customers.flatMap((customer) =>
        [0, 1, 1, 3].map((days) =>
          aNewEvent({
            shard,
            meter: meter.id,
            customer,
            timestamp: FUTURE - days * DAY_MS,
            identifier: unique("event"),
          }),
        ),
      ),
    );
    await settle(log);
    const whole = await auditAllSummaries(100_000);
    for (const rows of [1, 2, 3, 7]) expect(await auditAllSummaries(rows)).toEqual({ ...whole, repaired: 0 });
    await sql("UPDATE hourly_summaries SET count = 0 WHERE meter = ?", meter.id);
    expect(await auditAllSummaries(2)).toEqual({ ...whole, repaired: customers.length * 3 });
  });

  it("recomputes a day of more events than it reads at a time", async () => {
    const meters = await Promise.all([
      aStoredMeter(),
      aStoredMeter({ formula: "last" }),
      aStoredMeter({ eventTimeWindow: "day" }),
    ]);
    for (const meter of meters) await tenEvents(meter);
    const truth = await Promise.all(meters.map(totalOf));
    for (const meter of meters) {
      await sql("UPDATE hourly_summaries SET sum_low = 7 WHERE meter = ?", meter.id);
      await sql("DELETE FROM window_survivors WHERE meter = ?", meter.id);
    }
    expect((await auditAllSummaries(3)).repaired).toBeGreaterThanOrEqual(3);
    expect(await Promise.all(meters.map(totalOf))).toEqual(truth);
  });

  it("goes on after a day that D1 cannot recompute", async () => {
    vi.spyOn(console, "error").mockImplementation(() => {});
    await tenEvents(await aStoredMeter());
    const batch = env.DB.batch.bind(env.DB);
    vi.spyOn(env.DB, "batch").mockImplementation((statements) => {
      // The first of three asks for the days; the others recompute them.
      if (statements.length > 3) throw new Error("D1_ERROR: query took too long");
      return batch(statements);
    });
    const audit = await auditSummaries(env, BEGINNING, { rows: 100_000, lessFrom: 0 });
    expect(audit.failed).toBeGreaterThan(0);
    expect(audit.next).toBe(END);
  });

  it("leaves what says more than its events where the log cannot tell which is wrong, unless told to trust them", async () => {
    const meter = await aStoredMeter();
    const survivors = await aStoredMeter({ formula: "last" });
    const { log, shard } = aShard();
    const old = FUTURE - 20 * DAY_MS;
    await log.append([
      aNewEvent({ shard, meter: meter.id, timestamp: old }),
      aNewEvent({ shard, meter: meter.id, timestamp: old + HOUR_MS }),
      aNewEvent({ shard, meter: meter.id, timestamp: old + HOUR_MS }),
    ]);
    const last = aNewEvent({ shard, meter: survivors.id, timestamp: old });
    await log.append([{ ...last, event: { ...last.event, aggregation: "latest_of_hour" } }]);
    await settle(log);
    const truth = [await totalOf(meter), await totalOf(survivors)];
    // Of one hour every event is lost, of the other one of two; and the one that survived.
    await sql("DELETE FROM events WHERE meter = ? AND timestamp = ?", meter.id, old);
    await sql("DELETE FROM events WHERE meter = ?1 AND id = (SELECT MIN(id) FROM events WHERE meter = ?1)", meter.id);
    await sql("DELETE FROM events WHERE meter = ?", survivors.id);
    expect(await auditAllSummaries(1_000)).toMatchObject({ repaired: 0, suspect: 3 });
    expect([await totalOf(meter), await totalOf(survivors)]).toEqual(truth);
    expect(await auditAllSummaries(1_000, 0)).toMatchObject({ repaired: 3, suspect: 0 });
    expect([await totalOf(meter), await totalOf(survivors)]).toEqual([25n, undefined]);
  });
});

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
    expect(steps.reduce((sum, step) => sum + step.waiting, 0)).toBeGreaterThanOrEqual(1);
    await settle(log);
    await settle(waiting);
  });

  it("comes past customers with the longest names", async () => {
    const meter = await aStoredMeter();
    const { log, shard } = aShard();
    await log.append([
      aNewEvent({ shard, meter: meter.id, customer: "\u0001".repeat(500) }),
      aNewEvent({ shard, meter: meter.id, customer: "漢".repeat(500) }),
    ]);
    await settle(log);
    const place = { meter: meter.id, customer: "\u0001".repeat(500), time: FUTURE };
    const position = { received: { start: 0, end: FUTURE }, at: place };
    const cursor = Buffer.from(JSON.stringify(position)).toString("base64url");
    expect((await post("/v1/edgemeter/audit", `cursor=${cursor}`)).status).toBe(200);
  });
});

type Step = {
  missing: number;
  waiting: number;
  accepted: Record<string, number>;
  stored: Record<string, number>;
  next: string | null;
};

const post = (path: string, form = "", key: string = LOCAL_KEYS.live) => answerOf(path, { form, key });

/** All steps of an audit over HTTP. */
async function fullAudit(): Promise<Step[]> {
  const steps: Step[] = [];
  for (let cursor = ""; ; ) {
    const { status, body } = await post("/v1/edgemeter/audit", String(new URLSearchParams({ cursor })));
    expect(status).toBe(200);
    const step = body as unknown as Step;
    steps.push(step);
    if (step.next === null) return steps;
    cursor = step.next;
  }
}

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
    vi.setSystemTime(FUTURE + HOUR_MS);
    await tenEvents(meter, { shard: 2, log });
    await log.cancel({
      key: events[0]?.key ?? "",
      id: unique("adjustment"),
      meters: [meter.id],
      keyDigest: "",
      requestDigest: "",
    });
    await settle(log);
    const truth = await totalOf(meter);
    for (const table of ["events", "hourly_summaries"]) await sql(`DELETE FROM ${table} WHERE meter = ?`, meter.id);
    vi.setSystemTime(FUTURE + 23 * HOUR_MS);
    const { status, body } = await post("/v1/edgemeter/resend");
    expect(status).toBe(200);
    expect(body.groups).toBeGreaterThanOrEqual(3);
    await settle(log);
    expect(await totalOf(meter)).toBe(truth);
    // And since a time only what came after it.
    const since = Math.floor((FUTURE + HOUR_MS / 2) / 1_000);
    expect((await post("/v1/edgemeter/resend", `since=${since}`)).body.groups).toBe(2);
    await settle(log);
    expect(await totalOf(meter)).toBe(truth);
  });

  it("need a live key where they concern both modes", async () => {
    for (const path of ["/v1/edgemeter/audit", "/v1/edgemeter/resend"]) {
      const { status, body } = await post(path, "", LOCAL_KEYS.test);
      expect(status).toBe(403);
      expect(body.error).toMatchObject({ type: "invalid_request_error", message: expect.stringMatching(/live key/) });
    }
  });
});
