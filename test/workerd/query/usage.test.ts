// Usage by windows of zones, by dimensions and over all customers, against a naive fold: over one and over four
// databases, live and archived.
import { env } from "cloudflare:workers";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, inject, it, vi } from "vitest";
import { applyEntries } from "../../../src/aggregate/apply.ts";
import { eventsDatabase, eventsDatabases } from "../../../src/catalog/databases.ts";
import { insertMeter } from "../../../src/catalog/meters.ts";
import { type Calendar, SPANS, windowsOf } from "../../../src/domain/calendar.ts";
import { LIMITS } from "../../../src/domain/limits.ts";
import { aggregationOf, type Meter } from "../../../src/domain/meter.ts";
import { databasesOf, type Placement } from "../../../src/domain/placement.ts";
import { DAY_MS, HOUR_MS, MINUTE_MS, type Run, SECOND_MS, type TimeRange } from "../../../src/domain/window.ts";
import type { LogEntry } from "../../../src/log/codec.ts";
import { type AllCustomersQuery, listCustomers, readUsageOfAll } from "../../../src/query/all-customers.ts";
import { type MeterUsageRow, readMeterUsage } from "../../../src/query/meter-usage.ts";
import { readUsageOf } from "../../../src/query/summaries.ts";
import type { UsagePage, UsageQuery, UsageRow } from "../../../src/query/usage.ts";
import { aLogEntry, aMeter, resultOf, unique } from "../../support/builders.ts";
import { looked } from "../../support/clock.ts";
import { foldWindows } from "../../support/fold.ts";
import { eventLines, toEntries } from "../../support/shares.ts";
import { archive, cancel, empty, statesOf, store } from "../archive/support.ts";
import { answerOf, recordPlacement } from "../support.ts";

/** The clocks of Santiago, Lord Howe and Chatham change within the days that follow. */
const START = Date.UTC(2041, 8, 1, 3);
const DAYS = 42;
/** Few, next to those changes: the archive moves each half of a day by itself. */
const DAYS_OF_EVENTS = [6, 27, 34];

const CUSTOMERS = ["Cus 2", "cus_1", "cus_\u{1f600}", "cus_\uff5e"];

afterEach(() => vi.useRealTimers());

async function aKnownMeter(changes: Parameters<typeof aMeter>[0]): Promise<Meter> {
  const meter = aMeter({ livemode: true, eventName: unique("usage"), ...changes });
  await insertMeter(env.DB, meter).run();
  return meter;
}

const order = { windows: "oldest_first", groups: "ascending" } as const;

/** Rows without what they do not tell. */
const told = (rows: readonly UsageRow[]) =>
  rows.map(({ start, end, customer, group, value }) => ({ start, end, customer, group, value }));

const bytes = (text: string): string => Buffer.from(text).toString("hex");

type Asked = Pick<UsageQuery, "filters" | "keys" | "byCustomer">;

/** What rows of usage should say: each customer and combination by itself, the way the rules read. */
function expected(meter: Meter, events: readonly LogEntry[], bounds: readonly number[], asked: Asked): UsageRow[] {
  const dimensionOf = (event: LogEntry, key: string): string | undefined => JSON.parse(event.dimensions)[key];
  const wanted = events.filter((event) =>
    asked.filters.every(({ key, values }) => values.includes(dimensionOf(event, key) ?? "none")),
  );
  const groupOf = (event: LogEntry) => JSON.stringify(asked.keys.map((key) => dimensionOf(event, key)));
  const rows = new Map<string, UsageRow>();
  for (const own of Map.groupBy(wanted, (event) => `${event.customer} ${groupOf(event)}`).values()) {
    const [first] = own;
    if (first === undefined) continue;
    for (const window of foldWindows(meter, own, bounds)) {
      const place = { customer: asked.byCustomer ? first.customer : "", group: groupOf(first) };
      const key = JSON.stringify([window.start, place]);
      rows.set(key, { ...window, ...place, value: together(meter, rows.get(key)?.value, window.value) });
    }
  }
  return [...rows.values()].sort((a, b) => a.start - b.start || (bytes(a.group) < bytes(b.group) ? -1 : 1));
}

/** The values of two customers or combinations as one. */
function together({ formula }: Meter, one: bigint | undefined, other: bigint): bigint {
  if (one === undefined) return other;
  if (formula === "max") return one > other ? one : other;
  if (formula === "min") return one < other ? one : other;
  return one + other;
}

const METERS = [
  { formula: "sum", eventTimeWindow: null },
  { formula: "count", eventTimeWindow: null },
  { formula: "last", eventTimeWindow: null },
  { formula: "max", eventTimeWindow: null },
  { formula: "min", eventTimeWindow: null },
  { formula: "min", eventTimeWindow: "day" },
  { formula: "sum", eventTimeWindow: "hour" },
  { formula: "last", eventTimeWindow: "day" },
] as const;

const ZONES = [
  "UTC",
  "America/Santiago",
  "Australia/Lord_Howe",
  "Pacific/Chatham",
  "Asia/Kathmandu",
  "America/Phoenix",
];

const drawnEvent = fc.record({
  meter: fc.nat({ max: METERS.length - 1 }),
  offset: fc
    .tuple(
      fc.constantFrom(...DAYS_OF_EVENTS),
      // Also next to where days of zones begin, and many at once.
      fc.oneof(
        fc.integer({ min: 0, max: DAY_MS - 1 }),
        fc.constantFrom(0, 1, 3, 7, 10.5, 11, 21.25).map((hour) => hour * HOUR_MS),
      ),
      fc.constantFrom(-1, 0, 1),
    )
    .map(([day, time, by]) => day * DAY_MS + time + by),
  // Late events among them.
  delay: fc.constantFrom(0, 0, 13 * HOUR_MS, 30 * DAY_MS),
  customer: fc.constantFrom(...CUSTOMERS),
  model: fc.constantFrom("small", "large", "", 'é"\\', "\u{1f600}"),
  region: fc.constantFrom("eu", "us"),
  value: fc.oneof(fc.integer({ min: 1, max: 9 }), fc.constant(999_999_999_999_999)),
  isCancelled: fc.nat({ max: 5 }).map((chance) => chance === 0),
  place: fc.nat({ max: 3 }),
});

const second = fc.integer({ min: 0, max: (DAYS * DAY_MS) / SECOND_MS });

const drawnQuestion = fc.record({
  meter: fc.nat({ max: METERS.length - 1 }),
  bounds: fc.tuple(second, second).filter(([a, b]) => a !== b),
  isAligned: fc.boolean(),
  calendar: fc.option(
    fc.record({
      span: fc.constantFrom(...SPANS),
      zone: fc.constantFrom(...ZONES),
      anchor: fc.option(fc.integer({ min: START / SECOND_MS - 90 * 86_400, max: START / SECOND_MS })),
    }),
  ),
  keys: fc.constantFrom([], ["model"], ["region", "model"]),
  filters: fc.constantFrom(
    [],
    [{ key: "region", values: ["eu"] }],
    [
      { key: "region", values: ["us", "eu"] },
      { key: "model", values: ["small", "", "none of them"] },
    ],
  ),
  customer: fc.constantFrom(...CUSTOMERS),
  limit: fc.constantFrom(10, 60),
});

describe.each([
  [1, [{ databases: 1, since: 0 }]],
  [
    4,
    [
      { databases: 1, since: 0 },
      { databases: 4, since: 1 },
    ],
  ],
] as const)("usage over %i databases", (count, placement: Placement) => {
  beforeEach(async () => {
    await recordPlacement(placement);
    await Promise.all(eventsDatabases(env, true).map(({ db }) => empty(db)));
    vi.useFakeTimers({ toFake: ["Date"], now: START });
    return () => recordPlacement([{ databases: 1, since: 0 }]);
  });

  /** What is asked, and the bounds of its windows. */
  function question({
    bounds: [a, b],
    isAligned,
    calendar,
    ...rest
  }: typeof drawnQuestion extends fc.Arbitrary<infer T> ? T : never) {
    const to = (seconds: number): number => START + (isAligned ? Math.floor(seconds / 900) * 900 : seconds) * SECOND_MS;
    const [start, end] = [to(Math.min(a, b)), to(Math.max(a, b)) + (isAligned ? 900 * SECOND_MS : 0)];
    const range: TimeRange = { start, end };
    if (calendar === null) return { ...rest, runs: [{ ...range, length: end - start }], windows: [start, end] };
    const { span, zone, anchor } = calendar;
    // The clock that the fold looks at is looked at every quarter of an hour.
    const asked: Calendar = {
      ...{ span, zone },
      ...(span === "month" && anchor !== null && { anchor: Math.floor(anchor / 900) * 900 * SECOND_MS }),
    };
    const runs = resultOf(windowsOf(range, asked));
    const floor = { start: start - (start % 900_000), end };
    const windows = looked(floor, asked).filter((time) => time > start && time < end);
    return { ...rest, runs, windows: [start, ...windows, end] };
  }

  type Question = ReturnType<typeof question> & { readonly of: Meter };

  /** Page by page to the end. */
  async function allPages<T>(limit: number, read: (last: T | undefined) => Promise<T[]>): Promise<T[]> {
    const rows: T[] = [];
    for (;;) {
      const page = await read(rows.at(-1));
      rows.push(...page);
      if (page.length < limit) return rows;
    }
  }

  const ofCustomer = ({ of: meter, runs, keys, filters, limit, customer }: Question, direction: UsagePage["order"]) =>
    allPages<UsageRow>(limit, async (after) => {
      const start = direction.windows === "oldest_first" ? (after?.start ?? 0) : 0;
      const end = direction.windows === "newest_first" ? (after?.end ?? Infinity) : Infinity;
      const rest = runsBetween(runs, start, end);
      const query = { meter, customer, runs: rest, keys, filters, order: direction, after, limit };
      return resultOf(await readUsageOf(env, query));
    });

  const runsBetween = (runs: readonly Run[], start: number, end: number): Run[] =>
    runs
      .map((run) => ({ ...run, start: Math.max(run.start, start), end: Math.min(run.end, end) }))
      .filter((run) => run.start < run.end);

  const ofAll = (
    { of: meter, runs, keys, filters, limit }: Question,
    changes: Partial<AllCustomersQuery>,
  ): Promise<UsageRow[]> =>
    allPages<UsageRow>(limit, async (after) => {
      const query = { meter, runs, keys, filters, byCustomer: false, order: "name", after, limit, ...changes } as const;
      return resultOf(await readUsageOfAll(env, query));
    });

  it("says what a fold says, live, when some slices are archived, and when all are", async () => {
    const property = fc.asyncProperty(
      fc.array(drawnEvent, { minLength: 140, maxLength: 140 }),
      fc.array(drawnQuestion, { minLength: 6, maxLength: 6 }),
      async (drawn, questions) => {
        const meters = await Promise.all(
          METERS.map((each) => aKnownMeter({ ...each, dimensionKeys: ["region", "model"] })),
        );
        const meterAt = (index: number): Meter => meters[index] ?? (meters[0] as Meter);
        const reported = drawn.map(({ offset, delay, model, region, isCancelled, place, ...fields }) => {
          const meter = meterAt(fields.meter);
          const places = databasesOf(meter.id, fields.customer, placement);
          const timestamp = START + offset;
          const entry = aLogEntry({
            ...{ meter: meter.id, aggregation: aggregationOf(meter), customer: fields.customer, value: fields.value },
            ...{ timestamp, received: timestamp + delay, dimensions: JSON.stringify({ model, region }) },
          });
          return { isCancelled, place: places[place % places.length] ?? 0, entry };
        });
        for (const [place, own] of Map.groupBy(reported, (each) => each.place)) {
          const db = eventsDatabase(env, true, place);
          await store(
            db,
            own.map(({ entry }) => entry),
          );
          await cancel(
            db,
            own.filter(({ isCancelled }) => isCancelled).map(({ entry }) => entry),
          );
        }
        const asked: Question[] = questions.map((each) => ({ ...question(each), of: meterAt(each.meter) }));
        const read = async () => {
          const found = [];
          for (const each of asked) {
            const isOne = each.windows.length === 2;
            found.push({
              own: told(await ofCustomer(each, order)),
              back: told(await ofCustomer(each, { windows: "newest_first", groups: "descending" })),
              total: told(await ofAll(each, {})),
              byCustomer: told(await ofAll(each, { byCustomer: true, keys: [] })),
              ranked: isOne ? told(await ofAll(each, { byCustomer: true, keys: [], order: "value" })) : [],
              rankedKeys: isOne ? told(await ofAll(each, { order: "value" })) : [],
            });
          }
          return found;
        };
        const live = await read();
        for (const [i, { of: meter, windows, ...each }] of asked.entries()) {
          const counted = reported
            .filter(({ isCancelled, entry }) => !isCancelled && entry.meter === meter.id)
            .map(({ entry }) => entry);
          const said = live[i];
          const own = expected(
            meter,
            counted.filter(({ customer }) => customer === each.customer),
            windows,
            { ...each, byCustomer: false },
          );
          expect(said?.own).toEqual(own);
          expect(said?.back).toEqual(own.toReversed());
          const total = expected(meter, counted, windows, { ...each, byCustomer: false });
          expect(said?.total).toEqual(total);
          const byCustomer = expected(meter, counted, windows, { ...each, keys: [], byCustomer: true });
          byCustomer.sort((a, b) =>
            a.customer === b.customer ? a.start - b.start : bytes(a.customer) < bytes(b.customer) ? -1 : 1,
          );
          expect(said?.byCustomer).toEqual(byCustomer);
          if (windows.length > 2) continue;
          const largest = (rows: readonly UsageRow[]) => rows.toSorted((a, b) => Number(b.value - a.value));
          expect(said?.ranked).toEqual(largest(byCustomer));
          expect(said?.rankedKeys).toEqual(largest(total));
        }
        for (const now of [START + 50 * DAY_MS, START + 120 * DAY_MS]) {
          vi.setSystemTime(now);
          const names = eventsDatabases(env, true).slice(0, count);
          for (const { name } of names) await archive(name);
          const states = (await Promise.all(names.map(({ db }) => statesOf(db)))).flat();
          expect(states.some(({ state }) => state === "archived")).toBe(true);
          expect(await read()).toEqual(live);
        }
      },
    );
    await fc.assert(property, { seed: inject("seed"), numRuns: 1, endOnFailure: true });
  }, 120_000);

  it("adds meters up, or tells them apart, in pages that lead both ways", async () => {
    const [one, other] = [await aKnownMeter({}), await aKnownMeter({ formula: "count", dimensionKeys: ["model"] })];
    const at = (hour: number) => START + hour * HOUR_MS;
    for (const [place, { db }] of eventsDatabases(env, true).slice(0, count).entries()) {
      await store(db, [
        ...[0, 1, 3].map((hour) => aLogEntry({ meter: one.id, timestamp: at(hour), value: 10 + place })),
        ...[1, 1, 2].map((hour, i) =>
          aLogEntry({ meter: other.id, timestamp: at(hour), dimensions: JSON.stringify({ model: `${i}` }) }),
        ),
      ]);
    }
    const places = [one, other].map((meter) => databasesOf(meter.id, "cus_1", placement));
    const sum = (places[0] ?? []).reduce((total, place) => total + 10n + BigInt(place), 0n);
    const each = BigInt(places[1]?.length ?? 0);
    const runs = [{ start: at(0), end: at(4), length: HOUR_MS }];
    const meters = [
      { meter: one, filters: [], keys: [] },
      { meter: other, filters: [], keys: ["model"] },
    ];
    const ask = async (limit: number, changes: object = {}) =>
      resultOf(await readMeterUsage(env, { customer: "cus_1", runs, meters, together: false, limit, ...changes }));
    const rows = await ask(100);
    const said = (found: readonly MeterUsageRow[]) =>
      found.map(({ start, place, group, value }) => [(start - START) / HOUR_MS, place, group, value]);
    expect(said(rows)).toEqual([
      [0, 0, "[]", sum],
      [1, 0, "[]", sum],
      [1, 1, '["0"]', each],
      [1, 1, '["1"]', each],
      [2, 1, '["2"]', each],
      [3, 0, "[]", sum],
    ]);
    for (const [i, row] of rows.entries()) {
      expect(await ask(2, { beyond: { row, backwards: false } })).toEqual(rows.slice(i + 1, i + 3));
      const before = rows.slice(0, i).toReversed().slice(0, 2);
      expect(await ask(2, { beyond: { row, backwards: true } })).toEqual(before);
    }
    // A window may begin when time does.
    const always = [{ start: 0, end: at(4), length: at(4) }];
    const all = await ask(100, { runs: always });
    expect(all).toHaveLength(4);
    for (const [i, row] of all.entries()) {
      const before = all.slice(0, i).toReversed();
      expect(await ask(100, { runs: always, beyond: { row, backwards: true } })).toEqual(before);
    }
    const together = meters.map(({ meter }) => ({ meter, filters: [], keys: [] }));
    expect(said(await ask(100, { meters: together, together: true }))).toEqual([
      [0, 0, "[]", sum],
      [1, 0, "[]", sum + 2n * each],
      [2, 0, "[]", each],
      [3, 0, "[]", sum],
    ]);
  });

  it("lists customers by prefix and meter, with the quarter hour of their last event", async () => {
    const [one, other] = [await aKnownMeter({}), await aKnownMeter({ formula: "last" })];
    const at = (customer: string, meter: Meter, minutes: number) =>
      aLogEntry({
        customer,
        meter: meter.id,
        aggregation: aggregationOf(meter),
        timestamp: START + minutes * MINUTE_MS,
      });
    const entries = [
      ...[at("a_1", one, 16), at("a_1", other, 46), at("a_2", other, 14), at("b", one, 0), at("a_3", one, 31)],
      at("a_3", one, 1),
    ];
    const lost = [entries[4], entries[3]].flatMap((entry) => entry ?? []);
    for (const entry of entries) {
      const place = databasesOf(entry.meter, entry.customer, placement).at(-1) ?? 0;
      await store(eventsDatabase(env, true, place), [entry]);
      if (lost.includes(entry)) await cancel(eventsDatabase(env, true, place), [entry]);
    }
    const list = async (prefix: string, meter?: Meter, after = "", limit = 10) =>
      resultOf(await listCustomers(env, true, { prefix, meter, after, limit })).map(({ id, lastEvent }) => [
        id,
        lastEvent === undefined ? undefined : (lastEvent - START) / MINUTE_MS,
      ]);
    expect(await list("")).toEqual([
      ["a_1", 45],
      ["a_2", 0],
      ["a_3", 0],
      ["b", undefined],
    ]);
    expect(await list("a_", one)).toEqual([
      ["a_1", 15],
      ["a_3", 0],
    ]);
    expect(await list("", undefined, "a_1", 2)).toEqual([
      ["a_2", 0],
      ["a_3", 0],
    ]);
    expect(await list("a_3", undefined, "a_1")).toEqual([["a_3", 0]]);
    expect(await list("c")).toEqual([]);
  });
});

it("pages and filters take the longest values that a payload can have", async () => {
  const keys = Array.from({ length: LIMITS.dimensionKeys }, (_, i) => `key_${i}`);
  const meter = await aKnownMeter({ livemode: false, dimensionKeys: keys });
  // A quote takes two bytes of JSON.
  const long = '"'.repeat(LIMITS.payloadBytes / 2 / keys.length - 10);
  const entries = ["a", "b"].map((last) =>
    aLogEntry({
      meter: meter.id,
      timestamp: START,
      dimensions: JSON.stringify(Object.fromEntries(keys.map((key) => [key, long + last]))),
    }),
  );
  await applyEntries(env.TEST_EVENTS, toEntries("events", eventLines(entries)), START);
  const page = async (more: object) => {
    const query = new URLSearchParams({
      ...{ customer: "cus_1", starts_at: String(START / SECOND_MS), ends_at: String(START / SECOND_MS + 900) },
      ...{ "meters[0][meter]": meter.id, limit: "1" },
      ...Object.fromEntries(keys.map((key, i) => [`meters[0][dimension_group_by_keys][${i}]`, key])),
      ...more,
    });
    const { status, body } = await answerOf(`/v1/billing/analytics/meter_usage?${query}`);
    expect(status).toBe(200);
    return (body.rows as { data: { id: string; dimensions: Record<string, string> }[] }).data;
  };
  const [first] = await page({});
  expect(first?.dimensions.key_0).toBe(`${long}a`);
  const [second] = await page({ starting_after: first?.id });
  expect(second?.dimensions.key_0).toBe(`${long}b`);
  // As long as a payload's value can be, in characters of two units.
  const value = "\u{1f600}".repeat(LIMITS.payloadValueLength);
  expect(await page({ "meters[0][dimension_filters][key_0]": value })).toEqual([]);
});

it("hours of many customers are added up in few statements", async () => {
  const meter = await aKnownMeter({ livemode: false });
  const entries = Array.from({ length: 300 }, (_, i) =>
    aLogEntry({ meter: meter.id, customer: `cus_${i}`, timestamp: START, value: 1 }),
  );
  await applyEntries(env.TEST_EVENTS, toEntries("events", eventLines(entries)), START);
  const prepare = vi.spyOn(env.TEST_EVENTS, "prepare");
  const query = {
    meter,
    filters: [],
    keys: [],
    byCustomer: false,
    order: "name",
    after: undefined,
    limit: 10,
  } as const;
  const runs = [{ start: START, end: START + 30 * DAY_MS, length: HOUR_MS }];
  expect(resultOf(await readUsageOfAll(env, { ...query, runs }))).toMatchObject([{ start: START, value: 300n }]);
  // Who they are, and what they used.
  expect(prepare).toHaveBeenCalledTimes(2);
  prepare.mockRestore();
});

it.each([1, 100, 6_000])("%i combinations of dimensions add up to the total", async (combinations) => {
  const meter = aMeter({ dimensionKeys: ["model"] });
  const now = Date.UTC(2041, 0, 1);
  const entries = Array.from({ length: combinations }, (_, i) =>
    aLogEntry({
      meter: meter.id,
      value: 1,
      timestamp: now,
      received: now,
      dimensions: JSON.stringify({ model: `${i}` }),
    }),
  );
  for (let i = 0; i < entries.length; i += 2_000) {
    await applyEntries(env.TEST_EVENTS, toEntries("events", eventLines(entries.slice(i, i + 2_000))), now);
  }
  const runs = [{ start: now, end: now + DAY_MS, length: DAY_MS }];
  const query = { meter, customer: "cus_1", runs, filters: [], order, limit: 10_000 };
  expect(resultOf(await readUsageOf(env, { ...query, keys: [] }))).toMatchObject([{ value: BigInt(combinations) }]);
  const rows = resultOf(await readUsageOf(env, { ...query, keys: ["model"] }));
  const past = Math.max(0, combinations - LIMITS.dimensionCombinations);
  expect(rows).toHaveLength(combinations - past + Math.min(1, past));
  expect(rows.find(({ group }) => group === "[null]")?.value).toBe(past === 0 ? undefined : BigInt(past));
  expect(rows.filter(({ value }) => value === 1n)).toHaveLength(combinations - past);
});
