import { env } from "cloudflare:workers";
import fc from "fast-check";
import { describe, expect, inject, it } from "vitest";
import { applyGroups as apply } from "../../../src/aggregate/apply.ts";
import { aggregationOf, type Meter } from "../../../src/domain/meter.ts";
import { DAY_MS, HOUR_MS, MINUTE_MS, type TimeRange } from "../../../src/domain/window.ts";
import type { Group, LogEntry } from "../../../src/log/groups.ts";
import { readSummaries } from "../../../src/query/summaries.ts";
import { aLogEntry, aMeter, NOON, unique } from "../../support/builders.ts";
import { fold } from "../../support/fold.ts";

const applyGroups = (db: D1Database, groups: readonly Group[]) => apply(db, groups, NOON);

let groupId = 0;

const aGroup = (events: readonly LogEntry[]): Group => ({
  shard: 0,
  id: ++groupId,
  kind: "events",
  entries: events.map((event) => JSON.stringify(event)).join(","),
});

/** The cancellation of an event, a moment after NOON. */
const aCancellation = (event: LogEntry): Group => ({
  shard: 0,
  id: ++groupId,
  kind: "cancellations",
  entries: JSON.stringify({ ...event, cancelled: NOON + 1 }),
});

const readAll = (meter: Meter, customer: string, range: TimeRange, windowLength: number) =>
  readSummaries(env.DB, { meter, customer, range, windowLength, order: "newest_first", limit: 1_000 });

const sumOf = async (meter: Meter, customer: string): Promise<bigint | undefined> => {
  const range = { start: 0, end: 4_000_000_000_000 - (4_000_000_000_000 % DAY_MS) };
  return (await readAll(meter, customer, range, range.end))[0]?.value;
};

describe("applying groups", () => {
  it("counts an event once, however often its group comes: later, in one transaction, or by two consumers", async () => {
    const meter = aMeter();
    const group = aGroup([aLogEntry({ meter: meter.id }), aLogEntry({ meter: meter.id })]);
    await applyGroups(env.DB, [group, group, { ...group }]);
    await Promise.all([1, 2, 3].map(() => applyGroups(env.DB, [group])));
    const [other, raced] = [aGroup([aLogEntry({ meter: meter.id })]), aGroup([aLogEntry({ meter: meter.id })])];
    await applyGroups(env.DB, [other, group]);
    await Promise.all([1, 2, 3].map(() => applyGroups(env.DB, [raced])));
    expect(await sumOf(meter, "cus_1")).toBe(100n);
  });

  it("counts events again that have the same identifier but are others, as after 24 hours", async () => {
    const meter = aMeter();
    const event = aLogEntry({ meter: meter.id });
    await applyGroups(env.DB, [aGroup([event]), aGroup([{ ...event, id: "another" }])]);
    expect(await sumOf(meter, "cus_1")).toBe(50n);
  });

  it("changes neither events nor summaries when the transaction fails", async () => {
    const meter = aMeter();
    const broken = { ...aLogEntry({ meter: meter.id }), identifier: undefined };
    const group = { shard: 0, id: ++groupId, kind: "events" as const, entries: JSON.stringify(broken) };
    await expect(applyGroups(env.DB, [aGroup([aLogEntry({ meter: meter.id })]), group])).rejects.toThrow("NOT NULL");
    expect(await sumOf(meter, "cus_1")).toBeUndefined();
    expect(await env.DB.prepare("SELECT COUNT(*) AS n FROM events WHERE meter = ?").bind(meter.id).first("n")).toBe(0);
  });

  it("takes more events than fit one statement", async () => {
    const meter = aMeter();
    const note = "x".repeat(400);
    const groups = Array.from({ length: 20 }, () =>
      aGroup(Array.from({ length: 200 }, () => aLogEntry({ meter: meter.id, value: 1, dimensions: { note } }))),
    );
    await applyGroups(env.DB, groups);
    expect(await sumOf(meter, "cus_1")).toBe(4_000n);
  });

  it("stores everything that was reported", async () => {
    const meter = aMeter();
    const event = aLogEntry({ meter: meter.id, customer: "cüs 1 '\"", dimensions: { model: "😀", region: "" } });
    await applyGroups(env.DB, [aGroup([event])]);
    const { dimensions, ...row } =
      (await env.DB.prepare("SELECT * FROM events WHERE meter = ?").bind(meter.id).first()) ?? {};
    expect(row).toEqual({
      meter: meter.id,
      customer: event.customer,
      timestamp: event.timestamp,
      id: event.id,
      identifier: event.identifier,
      value: 25,
      received: event.received,
      cancelled: null,
    });
    expect(JSON.parse(String(dimensions))).toEqual(event.dimensions);
  });

  it("writes one row an event and one for each summary it touches", async () => {
    const meter = aMeter();
    const events = Array.from({ length: 100 }, (_, i) => aLogEntry({ meter: meter.id, customer: `cus_${i % 10}` }));
    const batch = env.DB.batch.bind(env.DB);
    let rows = 0;
    const counting = Object.assign(Object.create(env.DB), {
      prepare: env.DB.prepare.bind(env.DB),
      batch: async (statements: D1PreparedStatement[]) => {
        const results = await batch(statements);
        rows += results.reduce((sum, { meta }) => sum + meta.rows_written, 0);
        return results;
      },
    });
    await applyGroups(counting, [aGroup(events)]);
    expect(rows).toBe(110);
    await applyGroups(counting, [aGroup(events)]);
    expect(rows).toBe(110);
  });
});

describe("cancellations", () => {
  it("take an event out once, whichever of the two comes first, however often", async () => {
    const orders = [
      [0, 1],
      [1, 0],
      [0, 1, 1, 0],
      [1, 1, 0, 0, 1],
    ];
    for (const order of orders) {
      const meter = aMeter();
      const [kept, lost] = [aLogEntry({ meter: meter.id, value: 1 }), aLogEntry({ meter: meter.id, value: 2 })];
      const groups = [aGroup([kept, lost]), aCancellation(lost)];
      for (const index of order) await applyGroups(env.DB, groups.slice(index, index + 1));
      expect(await sumOf(meter, "cus_1")).toBe(1n);
    }
  });

  it("may stand in one transaction with their event", async () => {
    const meter = aMeter();
    const [kept, lost] = [aLogEntry({ meter: meter.id, value: 1 }), aLogEntry({ meter: meter.id, value: 2 })];
    const cancellation = aCancellation(lost);
    await applyGroups(env.DB, [cancellation, aGroup([kept]), aGroup([lost]), cancellation]);
    expect(await sumOf(meter, "cus_1")).toBe(1n);
  });

  it("leave no summary where nothing is left", async () => {
    const meter = aMeter();
    const lost = aLogEntry({ meter: meter.id });
    await applyGroups(env.DB, [aGroup([lost]), aCancellation(lost)]);
    expect(await sumOf(meter, "cus_1")).toBeUndefined();
    const minute = { start: NOON - (NOON % MINUTE_MS), end: NOON - (NOON % MINUTE_MS) + MINUTE_MS };
    expect(await readAll(meter, "cus_1", minute, MINUTE_MS)).toEqual([]);
  });

  it("let a windowed meter fall back to the event before", async () => {
    const meter = aMeter({ eventTimeWindow: "day" });
    const day = NOON - (NOON % DAY_MS);
    const at = (hour: number, value: number) =>
      aLogEntry({
        meter: meter.id,
        aggregation: "last_received_of_day",
        timestamp: day + hour * HOUR_MS,
        received: NOON + hour,
        value,
      });
    const [early, late] = [at(10, 5), at(14, 7)];
    await applyGroups(env.DB, [aGroup([early, late])]);
    const morning = { start: day, end: day + 12 * HOUR_MS };
    expect(await sumOf(meter, "cus_1")).toBe(7n);
    expect(await readAll(meter, "cus_1", morning, 12 * HOUR_MS)).toEqual([]);
    await applyGroups(env.DB, [aCancellation(late)]);
    expect(await sumOf(meter, "cus_1")).toBe(5n);
    expect(await readAll(meter, "cus_1", morning, 12 * HOUR_MS)).toEqual([{ ...morning, value: 5n }]);
    await applyGroups(env.DB, [aCancellation(early)]);
    expect(await sumOf(meter, "cus_1")).toBeUndefined();
  });
});

describe("sums", () => {
  it("stay exact past 2^53 and 2^63", async () => {
    const meter = aMeter();
    const events = Array.from({ length: 10_000 }, () => aLogEntry({ meter: meter.id, value: 999_999_999_999_999 }));
    await applyGroups(env.DB, [aGroup(events.slice(0, 5_000)), aGroup(events.slice(5_000))]);
    const exact = 9_999_999_999_999_990_000n;
    expect(exact > 2n ** 63n).toBe(true);
    expect(await sumOf(meter, "cus_1")).toBe(exact);
    // The same at ragged edges, where the events themselves are added.
    const range = { start: NOON - (NOON % MINUTE_MS), end: NOON - (NOON % MINUTE_MS) + MINUTE_MS };
    expect(await readAll(meter, "cus_1", range, MINUTE_MS)).toEqual([{ ...range, value: exact }]);
  });

  it("of two customers and two meters never meet", async () => {
    const [one, two] = [aMeter(), aMeter()];
    const events = [
      aLogEntry({ meter: one.id, value: 1 }),
      aLogEntry({ meter: two.id, value: 2 }),
      aLogEntry({ meter: one.id, value: 4, customer: "cus_2" }),
    ];
    await applyGroups(env.DB, [aGroup(events)]);
    expect(await sumOf(one, "cus_1")).toBe(1n);
    expect(await sumOf(two, "cus_1")).toBe(2n);
    expect(await sumOf(one, "cus_2")).toBe(4n);
  });
});

describe("summaries", () => {
  const START = Date.UTC(2026, 4, 1);
  const time = fc.oneof(
    fc.integer({ min: 0, max: 3 * DAY_MS - 1 }),
    // Where windows begin and end.
    fc
      .tuple(fc.integer({ min: 0, max: 71 }), fc.constantFrom(0, 1, HOUR_MS - 1))
      .map(([hour, offset]) => hour * HOUR_MS + offset),
  );
  const event = fc.record({
    timestamp: time.map((offset) => START + offset),
    received: fc.integer({ min: 0, max: 20 }).map((offset) => START + 3 * DAY_MS + offset),
    value: fc.oneof(
      fc.integer({ min: 1, max: 1_000 }),
      fc.integer({ min: 900_000_000_000_000, max: 999_999_999_999_999 }),
    ),
    customer: fc.constantFrom("cus_1", "cus_2"),
  });
  const minutes = fc
    .tuple(fc.integer({ min: 0, max: 3 * 1_440 }), fc.integer({ min: 1, max: 3 * 1_440 }))
    .map(([from, length]) => ({
      start: START + from * MINUTE_MS,
      end: START + (from + length) * MINUTE_MS,
    }));

  for (const formula of ["sum", "count", "last"] as const) {
    for (const eventTimeWindow of [null, "hour", "day"] as const) {
      it(`of ${formula} over ${eventTimeWindow ?? "raw events"} say what adding up one by one says, in any order of arrival`, async () => {
        await fc.assert(
          fc.asyncProperty(
            fc.array(event, { minLength: 1, maxLength: 40 }),
            fc.infiniteStream(fc.nat()),
            minutes,
            fc.integer({ min: 1, max: 5 }),
            fc.infiniteStream(fc.nat({ max: 3 })),
            async (drawn, order, ragged, groupSize, chance) => {
              const meter = aMeter({ formula, eventTimeWindow });
              const id = `${meter.id}_${unique("run")}`;
              const events = drawn.map((fields) =>
                aLogEntry({ ...fields, meter: id, aggregation: aggregationOf(meter) }),
              );
              // A quarter is cancelled; cancellations come anywhere, also before their events.
              const lost = events.filter(() => chance.next().value === 0);
              const inGroups: Group[] = [];
              for (let i = 0; i < events.length; i += groupSize) inGroups.push(aGroup(events.slice(i, i + groupSize)));
              const shuffled = [...inGroups, ...lost.map(aCancellation)]
                .map((group) => ({ group, key: order.next().value ?? 0 }))
                .toSorted((a, b) => a.key - b.key);
              for (const { group } of shuffled) await applyGroups(env.DB, [group]);
              const ours = { ...meter, id };
              const mine = events.filter((event) => event.customer === "cus_1" && !lost.includes(event));
              const whole = { start: START, end: START + 3 * DAY_MS };
              for (const [range, length] of [
                [ragged, ragged.end - ragged.start],
                [whole, whole.end - whole.start],
                [whole, HOUR_MS],
                [whole, DAY_MS],
              ] as const) {
                const read = await readAll(ours, "cus_1", range, length);
                expect(read).toEqual(
                  fold(ours, mine, range, length).map(({ start, value }) => ({ start, end: start + length, value })),
                );
              }
            },
          ),
          { seed: inject("seed"), numRuns: 25 },
        );
      }, 60_000);
    }
  }
});
