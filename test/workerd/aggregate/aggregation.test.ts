import { env } from "cloudflare:workers";
import fc from "fast-check";
import { afterEach, beforeAll, describe, expect, inject, it, vi } from "vitest";
import { applyEntries } from "../../../src/aggregate/apply.ts";
import { consume } from "../../../src/aggregate/consumer.ts";
import type { Entries } from "../../../src/aggregate/entries.ts";
import { noteSize } from "../../../src/aggregate/fill.ts";
import { eventsDatabase } from "../../../src/catalog/databases.ts";
import { LATE_MS, LIMITS } from "../../../src/domain/limits.ts";
import { aggregationOf, type Meter } from "../../../src/domain/meter.ts";
import { databasesOf, laneOf } from "../../../src/domain/placement.ts";
import { DAY_MS, HOUR_MS, MINUTE_MS, sliceOf, type TimeRange } from "../../../src/domain/window.ts";
import { type LogEntry, writeEvent } from "../../../src/log/codec.ts";
import { bodiesOf, cutIntoGroups } from "../../../src/log/groups.ts";
import { encodeMessage } from "../../../src/log/message.ts";
import { listErrorReports } from "../../../src/query/error-reports.ts";
import type { EventPlace } from "../../../src/query/event-order.ts";
import { aLogEntry, aMeter, NOON, resultOf, unique } from "../../support/builders.ts";
import { fold } from "../../support/fold.ts";
import { cancellationLines, eventLines, rejectionLines, toEntries } from "../../support/shares.ts";
import { readSummaries } from "../../support/summaries.ts";
import { aBatch, aShard, readPage, recordPlacement, storedEvents, storedIn } from "../support.ts";

const db = env.TEST_EVENTS;

const apply = (...entries: readonly (readonly Entries[])[]) => applyEntries(db, entries.flat(), NOON);
const events = (...list: readonly (LogEntry | string)[]) => toEntries("events", eventLines(list));
const cancellations = (...list: readonly LogEntry[]) => toEntries("cancellations", cancellationLines(list));

const readAll = async (meter: Meter, customer: string, range: TimeRange, windowLength: number) =>
  resultOf(await readSummaries(env, { meter, customer, range, windowLength, order: "newest_first", limit: 1_000 }));

const sumOf = async (meter: Meter, customer: string): Promise<bigint | undefined> => {
  const range = { start: 0, end: 4_000_000_000_000 - (4_000_000_000_000 % DAY_MS) };
  return (await readAll(meter, customer, range, range.end))[0]?.value;
};

describe("applying groups", () => {
  it("counts an event once, however often it comes: later, beside others, or by two consumers", async () => {
    const meter = aMeter();
    const some = events(aLogEntry({ meter: meter.id }), aLogEntry({ meter: meter.id }));
    await apply(some);
    await Promise.all([1, 2, 3].map(() => apply(some)));
    const [other, raced] = [events(aLogEntry({ meter: meter.id })), events(aLogEntry({ meter: meter.id }))];
    await apply(other, some);
    await Promise.all([1, 2, 3].map(() => apply(raced)));
    expect(await sumOf(meter, "cus_1")).toBe(100n);
  });

  it("counts events again that have the same identifier but are others, as after 24 hours", async () => {
    const meter = aMeter();
    const event = aLogEntry({ meter: meter.id });
    await apply(events(event));
    await apply(events({ ...event, id: "another" }));
    expect(await sumOf(meter, "cus_1")).toBe(50n);
  });

  it("changes neither events nor summaries when the transaction fails", async () => {
    const meter = aMeter();
    const broken = { ...aLogEntry({ meter: meter.id }), value: null as never };
    await expect(apply(events(aLogEntry({ meter: meter.id }), broken))).rejects.toThrow("NOT NULL");
    expect(await sumOf(meter, "cus_1")).toBeUndefined();
    expect(await storedEvents(meter.id)).toBe(0);
  });

  it("takes more events than fit one statement", async () => {
    const meter = aMeter();
    const payload = { note: "x".repeat(400) };
    await apply(events(...Array.from({ length: 4_000 }, () => aLogEntry({ meter: meter.id, value: 1, payload }))));
    expect(await sumOf(meter, "cus_1")).toBe(4_000n);
  });

  it("stores everything that was reported", async () => {
    const meter = aMeter();
    const dimensions = '{"region":"eu"}';
    const identifiers = [crypto.randomUUID(), crypto.randomUUID().toUpperCase(), "ü 1"];
    const reported = identifiers.map((identifier, i) =>
      aLogEntry({
        ...{ meter: meter.id, identifier, customer: "cüs 1 '\"", dimensions, apiKey: 7 },
        ...(i === 0 ? {} : { payload: { model: "😀", note: "" } }),
      }),
    );
    await apply(events(...reported));
    expect(await storedIn(db, meter.id)).toEqual(
      reported
        .map(({ aggregation: _, apiKey, payload, ...event }) => ({
          ...event,
          payload: payload === undefined ? null : JSON.stringify(payload),
          api_key: apiKey,
          cancelled: null,
          cancelled_by: null,
        }))
        .sort((a, b) => (a.id < b.id ? -1 : 1)),
    );
  });

  it.each([
    ["one row an event", LATE_MS - 1, 110],
    ["two rows a late event", LATE_MS, 210],
  ])("writes %s and one for each sum it touches", async (_, delay, expected) => {
    const meter = aMeter();
    const some = events(
      ...Array.from({ length: 100 }, (__, i) =>
        aLogEntry({ meter: meter.id, customer: `cus_${i % 10}`, received: NOON + delay }),
      ),
    );
    await apply(events(...Array.from({ length: 10 }, (_, i) => aLogEntry({ meter: meter.id, customer: `cus_${i}` }))));
    const batch = db.batch.bind(db);
    let rows = 0;
    const counting = Object.assign(Object.create(db), {
      prepare: db.prepare.bind(db),
      batch: async (statements: D1PreparedStatement[]) => {
        const results = await batch(statements);
        rows += results.reduce((sum, { meta }) => sum + meta.rows_written, 0);
        return results;
      },
    });
    for (const __ of [1, 2]) {
      await applyEntries(counting, some, NOON);
      expect(rows).toBe(expected);
    }
  });
});

describe("a batch", () => {
  afterEach(() => {
    vi.restoreAllMocks();
    vi.useRealTimers();
  });

  /** A message with one event. */
  const aMessage = (event: LogEntry): Uint8Array => {
    const entry = { database: 0, slice: sliceOf(NOON), lane: 0, timestamp: NOON, text: writeEvent(event) };
    return encodeMessage(
      bodiesOf([entry]).map((body) => ({
        ...{ ...body, shard: aShard().shard, group: NOON, kind: "events", alone: false },
      })),
    );
  };

  it("ends, though a log does not respond to its confirmation", async () => {
    const meter = aMeter().id;
    const asked = Promise.withResolvers<void>();
    const confirm = (): Promise<void> => {
      asked.resolve();
      return new Promise(() => {});
    };
    const log = { ...env, EVENT_LOG: { getByName: () => ({ confirm }) } } as unknown as typeof env;
    vi.useFakeTimers({ toFake: ["Date", "setTimeout", "clearTimeout"], now: NOON - HOUR_MS });
    const run = consume(aBatch([aMessage(aLogEntry({ meter }))]), log);
    await asked.promise;
    await vi.advanceTimersByTimeAsync(10_000);
    await run;
    expect(await storedEvents(meter)).toBe(1);
  });

  const hangs = (): Promise<never> => new Promise(() => {});

  it.each([
    [
      "when it is asked whether it is full still",
      3,
      () => {
        noteSize("TEST_EVENTS", Number.MAX_SAFE_INTEGER);
        vi.advanceTimersByTime(10_000);
        return vi.spyOn(db, "prepare").mockReturnValue({ run: hangs } as unknown as D1PreparedStatement);
      },
    ],
    [
      "while a share is taken apart",
      2,
      () => vi.spyOn(db, "batch").mockRejectedValueOnce(new Error("constraint failed")).mockImplementation(hangs),
    ],
  ])("ends, though its database hangs %s", async (_, hoursBefore, strike) => {
    vi.useFakeTimers({ toFake: ["Date", "setTimeout", "clearTimeout"], now: NOON - hoursBefore * HOUR_MS });
    const struck = strike();
    let hasEnded = false;
    const run = consume(aBatch([aMessage(aLogEntry({ meter: aMeter().id }))]), env).finally(() => {
      hasEnded = true;
    });
    const end = () => {
      vi.advanceTimersByTime(10_000);
      return hasEnded;
    };
    await vi.waitUntil(end, { timeout: 20_000 });
    await run;
    expect(struck).toHaveBeenCalled();
    noteSize("TEST_EVENTS", 1);
  });

  it("for a database that hangs is not applied for half a minute, so that it holds up no others again", async () => {
    const meter = aMeter().id;
    const message = aMessage(aLogEntry({ meter }));
    vi.useFakeTimers({ toFake: ["Date", "setTimeout", "clearTimeout"], now: NOON - HOUR_MS });
    const hung = vi.spyOn(db, "batch").mockImplementation(() => new Promise(() => {}));
    const run = consume(aBatch([message]), env);
    await vi.advanceTimersByTimeAsync(30_000);
    await run;
    expect(hung).toHaveBeenCalledOnce();
    hung.mockRestore();
    const asked = vi.spyOn(db, "batch");
    await vi.advanceTimersByTimeAsync(29_999);
    await consume(aBatch([message]), env);
    expect(asked).not.toHaveBeenCalled();
    await vi.advanceTimersByTimeAsync(1);
    await consume(aBatch([message]), env);
    vi.restoreAllMocks();
    vi.useRealTimers();
    expect(await storedEvents(meter)).toBe(1);
  });

  /** Applies events of some customers, each of 1.5 KB; gives how long the database rested (ms) after transactions of `ms`. */
  async function restsOf(count: number, ms: number): Promise<{ transactions: number; rests: unknown[] }> {
    const meter = aMeter().id;
    const entries = Array.from({ length: count }, (_, i) => {
      const event = aLogEntry({ meter, customer: `cus_${i % 100}`, payload: { note: "x".repeat(1_400) } });
      const lane = laneOf(meter, event.customer);
      return { database: 0, slice: sliceOf(NOON), lane, timestamp: NOON, text: writeEvent(event) };
    });
    const { shard } = aShard();
    const shares = cutIntoGroups(entries).flatMap((group, i) =>
      bodiesOf(group).map(
        (body) => ({ ...body, shard, group: NOON * 1_000 + i, kind: "events", alone: false }) as const,
      ),
    );
    await apply(events(aLogEntry({ meter })));
    vi.useFakeTimers({ toFake: ["Date"], now: NOON });
    const wait = vi.spyOn(scheduler, "wait").mockImplementation(async (time) => {
      vi.setSystemTime(Date.now() + time);
    });
    const batch = db.batch.bind(db);
    const transactions = vi.spyOn(db, "batch").mockImplementation(async (statements) => {
      vi.setSystemTime(Date.now() + ms);
      return batch(statements);
    });
    await consume(aBatch([encodeMessage(shares)]), env);
    const [calls, rests] = [transactions.mock.calls.length, wait.mock.calls.map(([time]) => time)];
    vi.restoreAllMocks();
    expect(await storedEvents(meter)).toBe(count + 1);
    return { transactions: calls, rests };
  }

  it("that is large is stored in parts, and the database rests in between, no longer than 200 ms", async () => {
    expect(await restsOf(300, 20)).toEqual({ transactions: 2, rests: [30] });
    expect(await restsOf(600, 400)).toEqual({ transactions: 4, rests: [200, 200, 200] });
  });

  it("that is small is stored at once", async () => {
    expect(await restsOf(100, 20)).toEqual({ transactions: 1, rests: [] });
  });
});

describe("combinations of dimensions past the limit", () => {
  const MOST = LIMITS.dimensionCombinations;
  const of = (model: string): string => JSON.stringify({ model });

  /** A meter on which the customer has some combinations. */
  async function aMeterWith(combinations: number): Promise<Meter> {
    const meter = aMeter({ dimensionKeys: ["model"] });
    const models = Array.from({ length: combinations }, (_, i) => of(`known ${i}`));
    await db
      .prepare("INSERT INTO series (meter, customer, dimensions) SELECT ?1, 'cus_1', value FROM json_each(?2)")
      .bind(meter.id, JSON.stringify(models))
      .run();
    return meter;
  }

  const anEvent = (meter: Meter, model: string, changes: Partial<LogEntry> = {}) =>
    aLogEntry({ meter: meter.id, value: 1, dimensions: of(model), ...changes });

  const heldBy = async (meter: Meter) =>
    (await storedIn(db, meter.id)).map(({ dimensions, payload }) => [dimensions, payload]);

  it("count in the total alone, with their dimensions in the payload, whatever comes again or is cancelled", async () => {
    const meter = await aMeterWith(MOST - 2);
    const all = ["known 1", "new 1", "new 2", "new 1", "new 3", "new 4", "new 2"].map((model, i) =>
      anEvent(meter, model, i === 5 ? { payload: { model: "no", trace: "t" } } : {}),
    );
    const held = [
      ...["known 1", "new 1", "new 2", "new 1"].map((model) => [of(model), null]),
      ["", of("new 3")],
      ["", JSON.stringify({ model: "no", trace: "t" })],
      [of("new 2"), null],
    ];
    for (const _ of [1, 2]) {
      await apply(events(...all));
      expect(await heldBy(meter)).toEqual(held);
      expect(await sumOf(meter, "cus_1")).toBe(7n);
    }
    // Another customer has a limit of its own.
    await apply(events(anEvent(meter, "new 9", { customer: "cus_2" })));
    expect((await heldBy(meter)).at(-1)).toEqual([of("new 9"), null]);
    await apply(cancellations(...all.slice(3, 6)));
    expect(await sumOf(meter, "cus_1")).toBe(4n);
  });

  it("stay so, also when a cancellation comes first", async () => {
    const meter = await aMeterWith(MOST - 1);
    const [kept, lost] = [anEvent(meter, "last one"), anEvent(meter, "too many")];
    await apply(cancellations(lost), events(kept));
    await apply(events(lost, kept));
    expect(await heldBy(meter)).toEqual([
      [of("last one"), null],
      ["", of("too many")],
    ]);
    expect(await sumOf(meter, "cus_1")).toBe(1n);
  });

  it("are looked for in few statements, however many groups the events come in", async () => {
    const meter = await aMeterWith(MOST);
    const models = Array.from({ length: 200 }, (_, i) => (i % 2 === 0 ? "known 1" : `new ${i}`));
    const batch = vi.spyOn(db, "batch");
    await apply(...models.map((model) => events(anEvent(meter, model))));
    const statements = batch.mock.calls.reduce((sum, [ofBatch]) => sum + ofBatch.length, 0);
    batch.mockRestore();
    expect(statements).toBeLessThan(10);
    const reported = db.prepare("SELECT SUM(count) FROM error_reports WHERE meter = ?").bind(meter.id);
    expect(await reported.first("SUM(count)")).toBe(100);
  });

  it("are reported once, in the database that counts them, beside what was refused", async () => {
    const meter = await aMeterWith(MOST);
    const past = Array.from({ length: 12 }, (_, i) =>
      anEvent(meter, `new ${i}`, { received: NOON, identifier: `${i}` }),
    );
    const some = events(anEvent(meter, "known 1"), ...past);
    await apply(some);
    await applyEntries(db, some, NOON + 60_000);
    const rejection = {
      ...{ id: "refused", livemode: false, meter: meter.id, code: "a_code", count: 2, received: NOON },
      ...{ samples: [["It is wrong.", "x"] as const] },
    };
    await applyEntries(env.EVENTS_0, toEntries("rejections", rejectionLines([rejection])), NOON);
    const query = { livemode: false, created: { start: 0, end: NOON + DAY_MS }, before: undefined, meter: meter.id };
    const kinds = { meter: true, noMeter: false };
    const found = await listErrorReports([env.EVENTS_0, db], { ...query, kinds, limit: 5, now: NOON + HOUR_MS });
    expect(found).toMatchObject({
      reports: [
        {
          meter: meter.id,
          errorCount: 14,
          errors: [
            { code: "a_code", errorCount: 2 },
            { code: "meter_event_dimension_count_too_high", errorCount: 12, samples: { length: 10 } },
          ],
        },
      ],
      hasMore: false,
    });
    expect(found.reports[0]?.errors[1]?.samples[0]).toEqual({
      message: expect.stringContaining("cus_1 has more than 5,000"),
      identifier: "0",
    });
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
      const both = [events(kept, lost), cancellations(lost)];
      for (const index of order) await apply(...both.slice(index, index + 1));
      expect(await sumOf(meter, "cus_1")).toBe(1n);
    }
  });

  it("may stand in one transaction with their event", async () => {
    const meter = aMeter();
    const [kept, lost] = [aLogEntry({ meter: meter.id, value: 1 }), aLogEntry({ meter: meter.id, value: 2 })];
    await apply(cancellations(lost), events(kept), events(lost));
    expect(await sumOf(meter, "cus_1")).toBe(1n);
  });

  it("leave no summary where nothing is left", async () => {
    const meter = aMeter();
    const lost = aLogEntry({ meter: meter.id });
    await apply(events(lost), cancellations(lost));
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
    await apply(events(early, late));
    const morning = { start: day, end: day + 12 * HOUR_MS };
    expect(await sumOf(meter, "cus_1")).toBe(7n);
    expect(await readAll(meter, "cus_1", morning, 12 * HOUR_MS)).toEqual([]);
    await apply(cancellations(late));
    expect(await sumOf(meter, "cus_1")).toBe(5n);
    expect(await readAll(meter, "cus_1", morning, 12 * HOUR_MS)).toEqual([{ ...morning, value: 5n }]);
    await apply(cancellations(early));
    expect(await sumOf(meter, "cus_1")).toBeUndefined();
  });
});

describe("sums", () => {
  it("stay exact past 2^53 and 2^63", async () => {
    const meter = aMeter();
    const many = Array.from({ length: 10_000 }, () => aLogEntry({ meter: meter.id, value: 999_999_999_999_999 }));
    await apply(events(...many));
    const exact = 9_999_999_999_999_990_000n;
    expect(exact > 2n ** 63n).toBe(true);
    expect(await sumOf(meter, "cus_1")).toBe(exact);
    // The same at ragged edges, where the events themselves are added.
    const range = { start: NOON - (NOON % MINUTE_MS), end: NOON - (NOON % MINUTE_MS) + MINUTE_MS };
    expect(await readAll(meter, "cus_1", range, MINUTE_MS)).toEqual([{ ...range, value: exact }]);
  });

  it("of two customers and two meters never meet", async () => {
    const [one, two] = [aMeter(), aMeter()];
    await apply(
      events(
        aLogEntry({ meter: one.id, value: 1 }),
        aLogEntry({ meter: two.id, value: 2 }),
        aLogEntry({ meter: one.id, value: 4, customer: "cus_2" }),
      ),
    );
    expect(await sumOf(one, "cus_1")).toBe(1n);
    expect(await sumOf(two, "cus_1")).toBe(2n);
    expect(await sumOf(one, "cus_2")).toBe(4n);
  });
});

describe("summaries of a meter that has had two databases", () => {
  const PLACEMENT = [
    { databases: 1, since: 0 },
    { databases: 4, since: 1 },
  ];

  beforeAll(() => recordPlacement(PLACEMENT));

  /** Where an event is: in one of the databases that its customer's usage may be in. */
  function placeOf({ meter, customer, value }: LogEntry): D1Database {
    const places = databasesOf(meter, customer, PLACEMENT);
    return eventsDatabase(env, true, places[value % places.length] ?? 0);
  }

  const applyTo = (entries: readonly LogEntry[], lines: (entries: readonly LogEntry[]) => readonly Entries[]) =>
    Promise.all(
      [...Map.groupBy(entries, placeOf)].map(([place, ofPlace]) => applyEntries(place, lines(ofPlace), NOON)),
    );

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
    // Of three slices.
    received: fc.integer({ min: 0, max: 20 }).map((offset) => START + 3 * DAY_MS + offset * 2 * HOUR_MS),
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

  const windows = [null, "hour", "day"] as const;
  const kinds = { sum: windows, count: windows, last: windows, max: [null, "day"], min: [null] } as const;
  for (const formula of ["sum", "count", "last", "max", "min"] as const) {
    for (const eventTimeWindow of kinds[formula]) {
      it(`of ${formula} over ${eventTimeWindow ?? "raw events"} say what adding up one by one says, in any order of arrival`, async () => {
        await fc.assert(
          fc.asyncProperty(
            fc.array(event, { minLength: 1, maxLength: 40 }),
            fc.infiniteStream(fc.nat()),
            minutes,
            fc.integer({ min: 1, max: 5 }),
            fc.infiniteStream(fc.nat({ max: 3 })),
            async (drawn, order, ragged, groupSize, chance) => {
              const meter = aMeter({ formula, eventTimeWindow, livemode: true });
              const id = `${meter.id}_${unique("run")}`;
              const reported = drawn.map((fields) =>
                aLogEntry({ ...fields, meter: id, aggregation: aggregationOf(meter) }),
              );
              // A quarter is cancelled; cancellations come anywhere, also before their events.
              const lost = reported.filter(() => chance.next().value === 0);
              const together: LogEntry[][] = [];
              for (let i = 0; i < reported.length; i += groupSize) together.push(reported.slice(i, i + groupSize));
              const shuffled = [
                ...together.map((some) => () => applyTo(some, (list) => events(...list))),
                ...lost.map((event) => () => applyTo([event], (list) => cancellations(...list))),
              ]
                .map((work) => ({ work, key: order.next().value ?? 0 }))
                .toSorted((a, b) => a.key - b.key);
              for (const { work } of shuffled) await work();
              const ours = { ...meter, id };
              const mine = reported.filter((event) => event.customer === "cus_1" && !lost.includes(event));
              const whole = { start: START, end: START + 3 * DAY_MS };
              for (const [range, length] of [
                [ragged, ragged.end - ragged.start],
                [whole, whole.end - whole.start],
                [whole, HOUR_MS],
                [whole, DAY_MS],
              ] as const) {
                const said = fold(ours, mine, range, length);
                const expected = said.map(({ start, value }) => ({ start, end: start + length, value }));
                expect(await readAll(ours, "cus_1", range, length)).toEqual(expected);
                const query = { meter: ours, customer: "cus_1", range, windowLength: length, limit: 2 };
                for (const order of ["newest_first", "oldest_first"] as const) {
                  const page = order === "newest_first" ? expected.slice(0, 2) : expected.toReversed().slice(0, 2);
                  expect(resultOf(await readSummaries(env, { ...query, order }))).toEqual(page);
                }
              }
              // Lists of events show each once, in order, page by page, from either end.
              for (const order of ["newest_first", "oldest_first"] as const) {
                const expected = reported
                  .filter(({ customer }) => customer === "cus_1")
                  .map(({ timestamp, id: own }) => ({ timestamp, id: own }))
                  .sort((a, b) => a.timestamp - b.timestamp || (a.id < b.id ? -1 : 1));
                if (order === "newest_first") expected.reverse();
                const listed: EventPlace[] = [];
                for (;;) {
                  const from = { order, place: listed.at(-1) };
                  const { events: page } = resultOf(await readPage(ours, { range: whole, from, limit: 7 }));
                  listed.push(...page.map(({ timestamp, id: own }) => ({ timestamp, id: own })));
                  if (page.length < 7) break;
                }
                expect(listed).toEqual(expected);
              }
            },
          ),
          { seed: inject("seed"), numRuns: 12 },
        );
      }, 60_000);
    }
  }
});
