import { env } from "cloudflare:workers";
import { describe, expect, it, vi } from "vitest";
import { auditSums } from "../../../src/audit/audit-sums.ts";
import { Budget } from "../../../src/audit/budget.ts";
import { BEGINNING, type Key } from "../../../src/audit/portions.ts";
import { listAudits } from "../../../src/audit/progress.ts";
import { auditPortion } from "../../../src/audit/sums-portion.ts";
import { eventsDatabases } from "../../../src/catalog/databases.ts";
import type { Meter, NewMeter } from "../../../src/domain/meter.ts";
import { DAY_MS, HOUR_MS, MINUTE_MS, sliceOf } from "../../../src/domain/window.ts";
import type { EventAppend } from "../../../src/log/entries.ts";
import { aContext, aShard, emptyEvents, FUTURE } from "../support.ts";
import {
  aStoredMeter,
  damage,
  forgetLines,
  gone,
  holdQueueAndClock,
  keptOf,
  linesOf,
  logged,
  set,
  settle,
  someEvents,
  TWO_DATABASES,
  tenEvents,
} from "./audit-support.ts";

holdQueueAndClock();

const db = env.TEST_EVENTS;

/** A walk through all of test mode's sums, in portions of about so many events. */
async function walk(lessFrom = 0, rows = Number.POSITIVE_INFINITY) {
  const sum = { checked: 0, repaired: 0, suspect: 0, portions: 0 };
  for (let from: Key | undefined = BEGINNING; from !== undefined; ) {
    const found = await auditPortion(env, db, from, { database: "TEST_EVENTS", lessFrom }, new Budget(rows));
    expect(found.failed).toBe(false);
    for (const key of ["checked", "repaired", "suspect"] as const) sum[key] += found[key];
    sum.portions++;
    from = found.next;
  }
  return sum;
}

/** A meter with ten events in each of two slices, all of one quarter hour. */
async function inTwoSlices(changes: Partial<NewMeter> = {}): Promise<Meter> {
  vi.setSystemTime(FUTURE);
  const meter = await aStoredMeter(changes);
  const shard = await tenEvents(meter);
  vi.setSystemTime(FUTURE + 12 * HOUR_MS);
  await tenEvents(meter, shard);
  return meter;
}

const TOO_MANY = [
  "INSERT INTO sums SELECT series, quarter_hour - 9, 1, 0, 1 FROM sums WHERE series IN SERIES",
  `INSERT INTO survivors (series, window_start, rank, timestamp, id, value)
  SELECT series, window_start - 864000000, 5, 5, 'evt', 1 FROM survivors WHERE series IN SERIES`,
] as const;

type Damage = [what: string, string, Partial<NewMeter>?];

const LAST = { formula: "last" } as const;

/** The same events as far apart (ms), back from the second slice's beginning. */
const spread = (events: readonly EventAppend[], apart: number): EventAppend[] =>
  events.map((each, i) => ({ ...each, event: { ...each.event, timestamp: FUTURE + 12 * HOUR_MS - i * apart } }));

describe("comparing sums and survivors with their events", () => {
  it.each<Damage>([
    ["a sum", set("sums", "sum_low = sum_low + 1")],
    ["a sum by its high limb", set("sums", "sum_high = 3")],
    ["a count that is too small", set("sums", "count = 1")],
    ["a count that is too great", set("sums", "count = 99")],
    ["a sum that is gone", gone("sums")],
    ["a sum of nothing", TOO_MANY[0]],
    ["a survivor's value", set("survivors", "value = 1"), LAST],
    ["a survivor that is gone", gone("survivors"), { eventTimeWindow: "hour" }],
    ["another survivor", set("survivors", "id = 'x', rank = 9e12"), LAST],
    ["a survivor that is not the greatest", set("survivors", "rank = 1, value = 1"), { formula: "max" }],
    ["another survivor of the least", set("survivors", "id = 'x', rank = rank + 24, value = 1"), { formula: "min" }],
    ["a survivor of nothing", TOO_MANY[1], { eventTimeWindow: "day" }],
    ["a window that stayed vacated", set("survivors", "rank = -1, id = '', value = 0, vacated = 1"), LAST],
  ])("repairs %s", async (_, query, changes) => {
    const meter = await inTwoSlices(changes);
    const kept = await keptOf(meter);
    expect((await walk()).repaired).toBe(0);
    await damage(db, meter, query);
    expect(await keptOf(meter)).not.toEqual(kept);
    expect(await walk()).toMatchObject({ repaired: 1, suspect: 0 });
    expect(await keptOf(meter)).toEqual(kept);
    expect(logged("warning")).toEqual(["sums differed from their events, and were made again"]);
  });

  it.each<Damage>([
    ["a sum", set("sums", "count = 99")],
    ["a sum of nothing", TOO_MANY[0]],
    ["a survivor", set("survivors", "id = 'x', rank = 9e12"), LAST],
    ["a survivor of nothing", TOO_MANY[1], { eventTimeWindow: "day" }],
  ])(
    "leaves %s that says more than its events, from before the log's reach, unless told",
    async (_, query, changes) => {
      const meter = await inTwoSlices(changes);
      const kept = await keptOf(meter);
      await damage(db, meter, query);
      const damaged = await keptOf(meter);
      expect(await walk(FUTURE + DAY_MS)).toMatchObject({ repaired: 0, suspect: 1 });
      expect(await keptOf(meter)).toEqual(damaged);
      expect(logged("warning")).toEqual(["sums say more than their events, and were left as they are"]);
      expect(await walk(0)).toMatchObject({ repaired: 1, suspect: 0 });
      expect(await keptOf(meter)).toEqual(kept);
    },
  );

  it("has every window once, however small its portions are", async () => {
    const meters = [await inTwoSlices(), await inTwoSlices({ formula: "last" })];
    for (const meter of meters) {
      const { shard, log } = aShard();
      await log.append(
        spread(
          someEvents(meter, shard, 24, (place) => `cus_${place % 3}`),
          HOUR_MS,
        ),
        aContext(),
      );
      await settle(log);
    }
    const kept = await Promise.all(meters.map(keptOf));
    const whole = await walk();
    for (const meter of meters) await damage(db, meter, set("sums", "count = 0"), set("survivors", "value = 0"));
    for (const rows of [1, 100, 800]) {
      const { checked, repaired, portions } = await walk(0, rows);
      expect(checked).toBe(whole.checked);
      expect(repaired).toBe(rows === 1 ? 50 : 0);
      expect(portions).toBeGreaterThan(whole.portions);
    }
    expect(await Promise.all(meters.map(keptOf))).toEqual(kept);
  });

  it.each([
    ["sum", 24],
    ["last", 36],
  ] as const)("loses nothing that is stored during a repair (%s)", async (formula, hours) => {
    const meter = await inTwoSlices({ formula });
    const { shard, log } = aShard();
    vi.setSystemTime(FUTURE + hours * HOUR_MS);
    await log.append(someEvents(meter, shard), aContext());
    await damage(db, meter, set("sums", "count = 1"), set("survivors", "value = 1"));
    const batch = db.batch.bind(db);
    let isStored = false;
    vi.spyOn(db, "batch").mockImplementation(async (statements) => {
      const isRepair = statements.some((each) => /DELETE FROM sums|INSERT INTO survivors/.test(textOf(each)));
      if (isRepair && !isStored) {
        isStored = true;
        // Into a slice of its own, which the repair has not seen.
        await settle(log);
      }
      return batch(statements);
    });
    expect(await walk()).toMatchObject({ repaired: 1 });
    vi.mocked(db.batch).mockRestore();
    expect(isStored).toBe(true);
    expect(await walk()).toMatchObject({ repaired: 0 });
    const [{ events, sums, survivors }] = (await keptOf(meter)) as [Record<"events" | "sums" | "survivors", object[]>];
    expect(events).toHaveLength(30);
    expect(sums).toEqual(formula === "last" ? [] : [expect.objectContaining({ count: 30, sum_low: 750 })]);
    expect(survivors).toHaveLength(formula === "last" ? 1 : 0);
  });

  it("leaves what archived slices may have part of, and compares what came later", async () => {
    const meter = await inTwoSlices();
    const { shard, log } = aShard();
    await log.append(spread(someEvents(meter, shard), 0), aContext());
    await settle(log);
    const kept = await keptOf(meter);
    const slice = sliceOf(FUTURE);
    await damage(db, meter, `ALTER TABLE events_${slice} RENAME TO kept`);
    await damage(db, meter, `UPDATE slices SET state = 'archived' WHERE slice = ${slice}`);
    await damage(db, meter, "UPDATE sums SET count = 1 WHERE count = 10 AND series IN SERIES");
    expect(await walk()).toMatchObject({ repaired: 1, suspect: 0 });
    await damage(db, meter, `ALTER TABLE kept RENAME TO events_${slice}`);
    await damage(db, meter, `UPDATE slices SET state = 'open' WHERE slice = ${slice}`);
    expect(await keptOf(meter)).toEqual(kept);
  });

  it("reads no more rows once 1,000 slices are archived", async () => {
    await inTwoSlices();
    const spent = async (archived: number) => {
      const wanted = JSON.stringify(Array.from({ length: archived }, (_, i) => 12 * i));
      await db
        .prepare("INSERT OR IGNORE INTO slices (slice, state) SELECT value, 'archived' FROM json_each(?)")
        .bind(wanted)
        .run();
      const budget = new Budget(0);
      await auditPortion(env, db, BEGINNING, { database: "TEST_EVENTS", lessFrom: 0 }, budget);
      return -budget.rows;
    };
    const before = await spent(1);
    expect(before).toBeGreaterThan(0);
    expect(await spent(1_000)).toBe(before);
    await db.exec("DELETE FROM slices WHERE state = 'archived'");
  });
});

/** A statement's SQL, as the local D1 keeps it. */
const textOf = (statement: D1PreparedStatement): string => String(Reflect.get(statement, "statement"));

describe("a minute's audit of a mode's sums", () => {
  const withRows = (rows: number) => ({ ...env, AUDIT_ROWS_A_MINUTE: String(rows) });

  const recordOf = async (database: string) =>
    (await listAudits(env.DB)).find(({ name }) => name === `sums ${database}`) ?? { checked: 0, repaired: 0 };

  it("walks through each database once a day, as far as its budget goes each minute", async () => {
    const meter = await aStoredMeter({ livemode: true });
    const { shard, log } = aShard({ livemode: true });
    await log.append(
      someEvents(meter, shard, 40, (place) => `cus_${place}`),
      aContext({ placement: TWO_DATABASES }),
    );
    await settle(log);
    const kept = await keptOf(meter);
    for (const each of eventsDatabases(env, true)) await damage(each.db, meter, set("sums", "sum_low = 1"));
    const checked = async () => (await recordOf("EVENTS_0")).checked + (await recordOf("EVENTS_1")).checked;
    const steps: number[] = [];
    let now = FUTURE + 2 * DAY_MS;
    for (; (await checked()) < 40; now += MINUTE_MS) {
      await auditSums(withRows(40), true, now);
      steps.push(await checked());
    }
    expect(steps.length).toBeGreaterThan(1);
    expect(await keptOf(meter)).toEqual(kept);
    expect((await recordOf("EVENTS_0")).repaired + (await recordOf("EVENTS_1")).repaired).toBe(40);
    await auditSums(env, true, now);
    await auditSums(env, true, FUTURE + 3 * DAY_MS - MINUTE_MS);
    expect(await checked()).toBe(40);
    await auditSums(env, true, FUTURE + 3 * DAY_MS + MINUTE_MS);
    expect(await checked()).toBe(80);
    await auditSums(withRows(0), true, FUTURE + 9 * DAY_MS);
    expect(await checked()).toBe(80);
  });
});

describe("one customer's part of a database", () => {
  const WARNING = "one customer fills much of a database by one meter";
  const HIGH_WATER = 8_000_000_000;
  const REGIONS = ["", '{"region":"eu"}', '{"region":"us"}'] as const;

  /** Events of a meter over nine hours, in three series of each customer; one customer has every other event. */
  async function store(meter: Meter, count = 120): Promise<void> {
    const { shard, log } = aShard();
    const events = someEvents(meter, shard, count, (place) => (place % 2 === 0 ? "cus_large" : `cus_${place % 20}`));
    const placed = spread(events, (9 * HOUR_MS) / count).map((each, place) => ({
      ...each,
      event: { ...each.event, dimensions: REGIONS[place % 3] ?? "" },
    }));
    await log.append(placed, aContext());
    await settle(log);
  }

  const prepare = db.prepare.bind(db);

  /** Test mode's database says that it has so many bytes. */
  function hasBytes(bytes: number): void {
    const answer = { run: async () => ({ meta: { size_after: bytes } }) } as unknown as D1PreparedStatement;
    vi.spyOn(db, "prepare").mockImplementation((sql) => (sql === "SELECT 1" ? answer : prepare(sql)));
  }

  let walks = 0;

  /** Walks through test mode's database once, in so many rows a minute; gives the minutes and what was saved meanwhile. */
  async function audit(rows: number) {
    const saved: string[] = [];
    const begin = FUTURE + (10 + 2 * walks++) * DAY_MS;
    for (let now = begin; ; now += MINUTE_MS) {
      await auditSums({ ...env, AUDIT_ROWS_A_MINUTE: String(rows) }, false, now);
      const position = "SELECT position FROM audits WHERE name = 'sums TEST_EVENTS'";
      saved.push((await env.DB.prepare(position).first<string>("position")) ?? "");
      if (!("next" in JSON.parse(saved.at(-1) ?? ""))) return { minutes: saved.length, saved };
    }
  }

  it.each(["sum", "last"] as const)(
    "is warned of when it is above a quarter, over series and portions (%s)",
    async (formula) => {
      await emptyEvents(db);
      const meter = await aStoredMeter({ formula });
      await store(meter);
      for (const rows of [500_000, 300]) {
        hasBytes(0.5 * HIGH_WATER);
        await audit(rows);
        expect(logged("warning")).toEqual([]);
        hasBytes(0.53 * HIGH_WATER);
        const { minutes, saved } = await audit(rows);
        expect(minutes > 1).toBe(rows < 500_000);
        expect(linesOf(WARNING)).toEqual([
          {
            level: "warning",
            message: WARNING,
            database: "TEST_EVENTS",
            meter: meter.id,
            series: expect.any(Number),
            percent: 26,
          },
        ]);
        const customer = db.prepare("SELECT customer FROM series WHERE id = ?").bind(linesOf(WARNING)[0]?.series);
        expect(await customer.first("customer")).toBe("cus_large");
        expect(`${saved}${JSON.stringify(linesOf(WARNING))}`).not.toContain("cus_");
        forgetLines();
      }
      expect(logged("error")).toEqual([]);
    },
  );

  it("is that of each meter by itself", async () => {
    await emptyEvents(db);
    const meters = [await aStoredMeter(), await aStoredMeter({ formula: "last" }), await aStoredMeter()];
    for (const meter of meters) await store(meter);
    hasBytes(HIGH_WATER);
    await audit(700);
    expect(logged("warning")).toEqual([]);
    hasBytes(1.6 * HIGH_WATER);
    await audit(700);
    expect(
      linesOf(WARNING)
        .map(({ meter, percent }) => [meter, percent])
        .sort(),
    ).toEqual(meters.map(({ id }) => [id, 26]).sort());
  });

  it.each([
    ["sum", 1, [214, 414]],
    ["sum", 5, [258, 458]],
    ["last", 1, [214, 414]],
    ["last", 5, [258, 458]],
  ] as const)("costs no row that a walk does not read (%s, of %i customers)", async (formula, customers, expected) => {
    await emptyEvents(db);
    const meter = await aStoredMeter({ formula });
    const { shard, log } = aShard();
    const read: number[] = [];
    for (const count of [100, 100]) {
      await log.append(
        someEvents(meter, shard, count, (place) => `cus_${place % customers}`),
        aContext(),
      );
      await settle(log);
      const batch = vi.spyOn(db, "batch");
      await audit(500_000);
      const results = (await Promise.all(batch.mock.results.map(({ value }) => value))) as D1Result[][];
      read.push(results.flat().reduce((sum, { meta }) => sum + meta.rows_read, 0));
      batch.mockRestore();
    }
    expect(read).toEqual(expected);
  });
});
