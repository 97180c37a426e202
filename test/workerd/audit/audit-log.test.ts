import { evictDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { describe, expect, it, vi } from "vitest";
import { auditLog } from "../../../src/audit/audit-log.ts";
import { DAY_MS } from "../../../src/domain/window.ts";
import { eventLog } from "../../../src/log/shards.ts";
import { aNewEvent, FUTURE } from "../support.ts";
import {
  addToHour,
  aStoredMeter,
  cancel,
  holdQueueAndClock,
  lose,
  sent,
  settle,
  sql,
  tenEvents,
  totalOf,
} from "./audit-support.ts";

holdQueueAndClock();

/** Audits all of a shard. */
async function auditShard(shard: number): Promise<{ checked: number; missing: number; altered: number }> {
  const sum = { checked: 0, missing: 0, altered: 0 };
  for (let after = 0; ; ) {
    const page = await auditLog(env, shard, after, FUTURE + DAY_MS);
    if (page.last === undefined) return sum;
    after = page.last;
    for (const key of ["checked", "missing", "altered"] as const) sum[key] += page[key];
  }
}

describe("comparing the log with D1", () => {
  it("finds nothing where nothing is wrong", async () => {
    const { shard } = await tenEvents(await aStoredMeter());
    expect(await auditShard(shard)).toEqual({ checked: 10, missing: 0, altered: 0 });
    expect(sent).toEqual([]);
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
    sent.length = 0;
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
    await cancel(log, event, meter);
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
    await cancel(log, event, meter);
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
