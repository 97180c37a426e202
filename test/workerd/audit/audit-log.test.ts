import { evictDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { describe, expect, it, vi } from "vitest";
import { auditLog } from "../../../src/audit/audit-log.ts";
import { Budget } from "../../../src/audit/budget.ts";
import { auditPage } from "../../../src/audit/log-page.ts";
import { listAudits } from "../../../src/audit/progress.ts";
import { eventsDatabases } from "../../../src/catalog/databases.ts";
import type { NewMeter } from "../../../src/domain/meter.ts";
import { DAY_MS, HOUR_MS, MINUTE_MS, sliceOf } from "../../../src/domain/window.ts";
import type { Env } from "../../../src/env.ts";
import { eventLog } from "../../../src/log/shards.ts";
import { D1, HostileD1 } from "../hostile-d1.ts";
import { aContext, aNewEvent, aShard, FUTURE } from "../support.ts";
import {
  aStoredMeter,
  cancel,
  damage,
  gone,
  holdQueueAndClock,
  keptOf,
  logged,
  sent,
  set,
  settle,
  someEvents,
  TWO_DATABASES,
  tenEvents,
} from "./audit-support.ts";

holdQueueAndClock();

/** Audits all of a shard. */
async function auditShard(shard: string): Promise<{ checked: number; missing: number; altered: number }> {
  const sum = { checked: 0, missing: 0, altered: 0 };
  for (let after = 0; ; ) {
    const page = await auditPage(env, shard, after, FUTURE + 2 * DAY_MS, Budget.unlimited());
    if (page.last === undefined) return sum;
    after = page.last;
    for (const key of ["checked", "missing", "altered"] as const) sum[key] += page[key];
  }
}

const SECOND = "id = (SELECT id FROM EVENTS WHERE series IN SERIES ORDER BY id LIMIT 1 OFFSET 1)";
const LOST = `${gone("EVENTS")} AND ${SECOND}`;
const alter = (change: string): string => `${set("EVENTS", change)} AND ${SECOND}`;
const add = (count: number, low: number, high = 0): string =>
  set("sums", `count = count + ${count}, sum_high = sum_high + ${high}, sum_low = sum_low + ${low}`);

/** The survivor of a meter of one customer, replaced by its second event with another rank and value. */
const takenBySecond = (change: string): string =>
  `${set("survivors", `${change}, id = (SELECT id FROM EVENTS WHERE ${SECOND})`)}
  AND EXISTS (SELECT 1 FROM EVENTS WHERE series IN SERIES)`;

type Damage = [what: string, missing: number, altered: number, string[], Partial<NewMeter>?];

describe("comparing the log with a database", () => {
  it.each<Damage>([
    ["nothing where nothing is wrong", 0, 0, []],
    ["an event that is gone, and sends it again", 1, 0, [LOST, add(-1, -25)]],
    ["a cancellation that is not marked", 1, 0, [set("EVENTS", "cancelled = NULL"), add(1, 25)]],
    ["a cancelled event that is gone", 2, 0, [`${gone("EVENTS")} AND cancelled IS NOT NULL`]],
    ["a day's events that are gone", 11, 0, [gone("EVENTS"), gone("survivors")], { eventTimeWindow: "day" }],
    ["a value, with its sum", 0, 1, [alter("value = 1000000000025"), add(0, 0, 1_000)]],
    [
      "a value, with its survivor",
      0,
      10,
      [set("EVENTS", "value = 7"), set("survivors", "value = 7")],
      { formula: "last" },
    ],
    [
      "a value that made its event the greatest",
      0,
      1,
      [
        alter("value = 1000"),
        takenBySecond("rank = 1000, value = 1000"),
        `${set("survivors", "base_rank = rank, base_timestamp = timestamp, base_id = id, base_value = value")}`,
      ],
      { formula: "max" },
    ],
    [
      "a value that made its event the least",
      0,
      1,
      [alter("value = 1"), takenBySecond("rank = rank + 24, value = 1")],
      { formula: "min" },
    ],
    [
      "a value that kept its event from being the greatest",
      0,
      1,
      [
        `${set("EVENTS", "value = 7")} AND id IN (SELECT id FROM survivors WHERE series IN SERIES)`,
        takenBySecond("timestamp = timestamp"),
      ],
      { formula: "max" },
    ],
    ["a payload", 0, 1, [alter(`payload = '{"a":"b"}'`)]],
    ["an identifier", 0, 1, [alter("identifier = x'00'")]],
    ["a receipt", 0, 1, [alter("delay = delay + 1")]],
    ["an API key", 0, 1, [alter("api_key = 9")]],
  ])("finds %s", async (_, missing, altered, queries, changes = {}) => {
    const meter = await aStoredMeter(changes);
    const { shard, log, events } = await tenEvents(meter);
    await cancel(log, events[0], meter);
    await settle(log);
    const kept = await keptOf(meter);
    await damage(env.TEST_EVENTS, meter, ...queries);
    expect(await auditShard(shard)).toEqual({ checked: 11, missing, altered });
    await settle(log);
    expect(await keptOf(meter)).toEqual(kept);
    expect(await auditShard(shard)).toEqual({ checked: 11, missing: 0, altered: 0 });
    expect(logged("warning")).toHaveLength(queries.length === 0 ? 0 : 1);
  });

  it.each<[string, number, number, string[], number]>([
    ["nothing", 0, 0, [], 0],
    ["an event that is gone", 1, 0, [LOST, add(-1, -25)], 2],
    ["a value", 0, 1, [alter("value = 26"), add(0, 1)], 2],
  ])("corrects %s of a slice that is checked, and opens it again", async (_, missing, altered, queries, warnings) => {
    const meter = await aStoredMeter();
    const { shard, log } = await tenEvents(meter);
    const kept = await keptOf(meter);
    const slice = sliceOf(FUTURE);
    await damage(env.TEST_EVENTS, meter, `UPDATE slices SET state = 'checked' WHERE slice = ${slice}`, ...queries);
    expect(await auditShard(shard)).toEqual({ checked: 10, missing, altered });
    await settle(log);
    expect(await keptOf(meter)).toEqual(kept);
    expect(logged("warning")).toHaveLength(warnings);
    const state = await env.TEST_EVENTS.prepare("SELECT state FROM slices WHERE slice = ?").bind(slice).first("state");
    expect(state).toBe(warnings === 0 ? "checked" : "open");
    await damage(env.TEST_EVENTS, meter, `UPDATE slices SET state = 'open' WHERE slice = ${slice}`);
  });

  it("finds what is gone of two slices, and of a slice without its table; an archived one is complete", async () => {
    const meter = await aStoredMeter();
    const { shard, log } = await tenEvents(meter);
    vi.setSystemTime(FUTURE + 12 * HOUR_MS);
    await tenEvents(meter, { shard, log });
    const kept = await keptOf(meter);
    await damage(env.TEST_EVENTS, meter, LOST, add(-2, -50));
    expect(await auditShard(shard)).toEqual({ checked: 20, missing: 2, altered: 0 });
    await settle(log);
    expect(await keptOf(meter)).toEqual(kept);
    const [first, second] = [sliceOf(FUTURE), sliceOf(FUTURE + 12 * HOUR_MS)];
    const archive = `UPDATE slices SET state = 'archived' WHERE slice = ${first}`;
    await damage(env.TEST_EVENTS, meter, `DROP TABLE events_${first}`, archive);
    expect(await auditShard(shard)).toEqual({ checked: 20, missing: 0, altered: 0 });
    const spent = async () => {
      const budget = new Budget(1_000_000);
      await auditPage(env, shard, 0, FUTURE + 2 * DAY_MS, budget);
      return 1_000_000 - budget.rows;
    };
    const rows = await spent();
    const older = Array.from({ length: 1_000 }, (_, i) => `(${12 * i}, 'archived')`);
    await damage(env.TEST_EVENTS, meter, `INSERT INTO slices (slice, state) VALUES ${older.join(", ")}`);
    expect(await spent()).toBe(rows);
    await damage(env.TEST_EVENTS, meter, "DELETE FROM slices WHERE slice < 12000");
    await damage(env.TEST_EVENTS, meter, `DROP TABLE events_${second}`, `DELETE FROM slices WHERE slice = ${second}`);
    expect(await auditShard(shard)).toEqual({ checked: 20, missing: 10, altered: 0 });
    await settle(log);
    expect(await auditShard(shard)).toEqual({ checked: 20, missing: 0, altered: 0 });
    await damage(env.TEST_EVENTS, meter, `DELETE FROM slices WHERE slice = ${first}`);
  });

  it("finds what is gone of two databases and of error reports, and takes dead letters for accounted for", async () => {
    const meter = await aStoredMeter({ livemode: true });
    const { shard, log } = aShard({ livemode: true });
    const events = someEvents(meter, shard, 40, (place) => `cus_${place}`);
    const poisoned = events.map((event, i) => (i % 5 === 0 ? { ...event, identifier: null as never } : event));
    const rejection = { livemode: true, meter: meter.id, code: "no_meter", message: "" };
    const { key, id, identifier, reportDigest } = aNewEvent();
    await log.append(
      [...poisoned, { kind: "rejection", claims: false, key, id, identifier, reportDigest, rejection }],
      aContext({ placement: TWO_DATABASES }),
    );
    await settle(log);
    expect(await auditShard(shard)).toEqual({ checked: 41, missing: 0, altered: 0 });
    const kept = await keptOf(meter);
    for (const { db } of eventsDatabases(env, true).slice(0, 2)) {
      const ofLost = `(SELECT series FROM EVENTS WHERE ${SECOND})`;
      await damage(db, meter, `DELETE FROM sums WHERE series IN ${ofLost}`, LOST);
    }
    await damage(env.EVENTS_0, meter, "DELETE FROM error_reports");
    expect(await auditShard(shard)).toEqual({ checked: 41, missing: 3, altered: 0 });
    await settle(log);
    expect(await keptOf(meter)).toEqual(kept);
    expect(await auditShard(shard)).toEqual({ checked: 41, missing: 0, altered: 0 });
  });

  it("sends again also what was found just before the log was restarted", async () => {
    const meter = await aStoredMeter();
    const { shard, log } = await tenEvents(meter);
    await tenEvents(meter, { shard, log });
    const kept = await keptOf(meter);
    await damage(env.TEST_EVENTS, meter, LOST, add(-1, -25));
    expect(await auditShard(shard)).toMatchObject({ missing: 1 });
    await evictDurableObject(log);
    sent.length = 0;
    await settle(eventLog(env, shard));
    expect(await keptOf(meter)).toEqual(kept);
  });
});

describe("a minute's audit of a mode's log", () => {
  const one: Env = { ...env, EVENT_LOG_SHARDS: "1" };
  const first = { shard: "live-0", log: eventLog(one, "live-0") };
  const withRows = (rows: number): Env => ({ ...one, AUDIT_ROWS_A_MINUTE: String(rows) });

  /** What the audit of the first shard has counted ever. */
  const counted = async () => {
    const record = (await listAudits(env.DB)).find(({ name }) => name === "log live-0");
    return { checked: record?.checked ?? 0, repaired: record?.repaired ?? 0, skipped: record?.skipped ?? 0 };
  };

  const meterOfGroups = async (groups: number) => {
    const meter = await aStoredMeter({ livemode: true });
    for (let i = 0; i < groups; i++) await tenEvents(meter, first);
    return meter;
  };

  it("goes on where the last one's budget ended, compares each group once, and stops at one that waits", async () => {
    const meter = await meterOfGroups(3);
    const kept = await keptOf(meter);
    await damage(env.EVENTS_0, meter, LOST, add(-1, -25));
    vi.setSystemTime(FUTURE + MINUTE_MS);
    await first.log.append(someEvents(meter, first.shard), aContext());
    const now = FUTURE + 5 * MINUTE_MS;
    const checked: number[] = [];
    for (let minute = 0; minute < 5; minute++) {
      await auditLog(withRows(10), true, now + minute * MINUTE_MS);
      checked.push((await counted()).checked);
      if (minute === 0) await settle(first.log);
      if (minute === 0) expect(await keptOf(meter)).not.toEqual(kept);
    }
    expect(checked).toEqual([10, 20, 30, 40, 40]);
    expect(await counted()).toEqual({ checked: 40, repaired: 1, skipped: 0 });
    await auditLog(withRows(0), true, now);
  });

  it("goes past a group that waits for six hours, and counts it as left out", async () => {
    const meter = await meterOfGroups(0);
    const before = await counted();
    vi.setSystemTime(FUTURE + HOUR_MS);
    await first.log.append(someEvents(meter, first.shard), aContext());
    vi.setSystemTime(FUTURE + 2 * HOUR_MS);
    await first.log.append(someEvents(meter, first.shard), aContext());
    await auditLog(one, true, FUTURE + 6 * HOUR_MS);
    expect(await counted()).toEqual(before);
    await auditLog(one, true, FUTURE + 7 * HOUR_MS + 3 * MINUTE_MS);
    expect(await counted()).toEqual({ ...before, skipped: before.skipped + 1 });
    expect(logged("error")).toEqual(["groups were left out of the audit"]);
    await settle(first.log);
    await auditLog(one, true, FUTURE + 7 * HOUR_MS + 4 * MINUTE_MS);
    expect(await counted()).toEqual({ ...before, checked: before.checked + 10, skipped: before.skipped + 1 });
  });

  it("leaves out what it has not compared for six hours, and goes on with what is new", async () => {
    const meter = await meterOfGroups(0);
    vi.setSystemTime(FUTURE + 12 * HOUR_MS);
    const before = await counted();
    for (const _ of [1, 2, 3]) await tenEvents(meter, first);
    const now = FUTURE + 13 * HOUR_MS;
    const d1 = new HostileD1([env.EVENTS_0]);
    d1.fate = D1.isAway;
    await auditLog(one, true, now);
    d1.fate = D1.works;
    await auditLog(withRows(10), true, now + HOUR_MS);
    await auditLog(withRows(10), true, now + 7 * HOUR_MS);
    expect(logged("error")).toEqual(["a shard was not audited", "groups were left out of the audit"]);
    expect(await counted()).toEqual({ ...before, checked: before.checked + 10, skipped: before.skipped + 2 });
    vi.setSystemTime(FUTURE + 21 * HOUR_MS);
    await tenEvents(meter, first);
    await auditLog(withRows(10), true, FUTURE + 22 * HOUR_MS);
    expect((await counted()).checked).toBe(before.checked + 20);
  });

  it("begins with another shard each minute, so that a run that ends early leaves none out for good", async () => {
    const getByName = vi.spyOn(env.EVENT_LOG, "getByName");
    const firsts: unknown[] = [];
    for (const minute of [0, 1, 2, 3]) {
      getByName.mockClear();
      await auditLog(env, true, FUTURE + minute * MINUTE_MS);
      firsts.push(getByName.mock.calls[0]?.[0]);
      expect(new Set(getByName.mock.calls.map(([name]) => name)).size).toBe(4);
    }
    expect(firsts.sort()).toEqual(["live-0", "live-1", "live-2", "live-3"]);
  });
});
