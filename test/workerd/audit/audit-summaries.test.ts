import { env } from "cloudflare:workers";
import { describe, expect, it, vi } from "vitest";
import { auditSummaries } from "../../../src/audit/audit-summaries.ts";
import { BEGINNING, END, type Position } from "../../../src/audit/days.ts";
import { logReach } from "../../../src/audit/full-audit.ts";
import { DAY_MS, HOUR_MS, MINUTE_MS } from "../../../src/domain/window.ts";
import { unique } from "../../support/builders.ts";
import { aNewEvent, aShard, FUTURE } from "../support.ts";
import { aStoredMeter, holdQueueAndClock, settle, sql, tenEvents, totalOf } from "./audit-support.ts";

holdQueueAndClock();

/** Recomputes every summary there is, `rows` at a time. */
async function auditAllSummaries(
  rows: number,
  lessFrom: number = logReach(FUTURE),
): Promise<{ days: number; repaired: number; suspect: number }> {
  const sum = { days: 0, repaired: 0, suspect: 0 };
  for (let position: Position = BEGINNING; position !== END; ) {
    const { days, repaired, suspect, failed, next } = await auditSummaries(env, position, { rows, lessFrom });
    expect(failed).toBe(0);
    sum.days += days;
    sum.repaired += repaired;
    sum.suspect += suspect;
    position = next;
  }
  return sum;
}

/** Has D1 fail some of the transactions that recompute summaries, by their number from 1; gives how many were tried. */
function failRecomputing(fails: (attempt: number) => boolean): () => number {
  const batch = env.DB.batch.bind(env.DB);
  let attempts = 0;
  vi.spyOn(env.DB, "batch").mockImplementation((statements) => {
    // Three statements ask for the days; more recompute them.
    if (statements.length > 3 && fails(++attempts)) throw new Error("D1_ERROR: query took too long");
    return batch(statements);
  });
  return () => attempts;
}

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
      "INSERT INTO window_survivors SELECT meter, 'cus_9', window_start, rank, timestamp, id, value FROM window_survivors WHERE meter = ?",
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

  it("goes on after days that D1 cannot recompute, and says how many they are", async () => {
    vi.spyOn(console, "error").mockImplementation(() => {});
    await tenEvents(await aStoredMeter());
    const { days } = await auditSummaries(env, BEGINNING, { rows: 100_000, lessFrom: 0 });
    failRecomputing(() => true);
    const audit = await auditSummaries(env, BEGINNING, { rows: 100_000, lessFrom: 0 });
    expect(audit).toMatchObject({ days: 0, failed: days, next: END });
  });

  it.each([1, 2, 24])("counts a big day once as failed, when D1 cannot recompute %i of its hours", async (hours) => {
    vi.spyOn(console, "error").mockImplementation(() => {});
    const meter = await aStoredMeter();
    await tenEvents(meter);
    const from = { meter: meter.id, customer: "", time: 0 };
    expect(await auditSummaries(env, from, { rows: 3, lessFrom: 0 })).toMatchObject({ days: 1, failed: 0 });
    const tried = failRecomputing((attempt) => attempt <= hours);
    expect(await auditSummaries(env, from, { rows: 3, lessFrom: 0 })).toMatchObject({ days: 0, failed: 1 });
    // A failure keeps none of the other hours from being recomputed.
    expect(tried()).toBe(24);
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
