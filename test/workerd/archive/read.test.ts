// Summaries and lists say the same before and after slices are dropped.
import { env } from "cloudflare:workers";
import fc from "fast-check";
import { afterEach, beforeAll, beforeEach, describe, expect, inject, it, vi } from "vitest";
import { LOCAL_KEYS } from "../../../scripts/local-keys.ts";
import { SERIES_OF_CUSTOMER } from "../../../src/aggregate/sql/events.ts";
import { describeRows, insertFile } from "../../../src/archive/manifest.ts";
import { findFiles } from "../../../src/archive/read.ts";
import { eventsDatabase } from "../../../src/catalog/databases.ts";
import { insertMeter } from "../../../src/catalog/meters.ts";
import type { MeteringError } from "../../../src/domain/errors.ts";
import { aggregationOf, type Meter } from "../../../src/domain/meter.ts";
import { databasesOf, ONE_DATABASE } from "../../../src/domain/placement.ts";
import { ok, type Result } from "../../../src/domain/result.ts";
import { DAY_MS, floorTo, HOUR_MS, MINUTE_MS, SECOND_MS, type TimeRange } from "../../../src/domain/window.ts";
import type { LogEntry } from "../../../src/log/codec.ts";
import type { EventPlace, EventQuery, StoredEvent } from "../../../src/query/event-order.ts";
import { aLogEntry, aMeter, anEventId, errorOf, NOON, resultOf, unique } from "../../support/builders.ts";
import type { Drawn as DrawnOf } from "../../support/draw.ts";
import { fold } from "../../support/fold.ts";
import { readSummaries, type Summary } from "../../support/summaries.ts";
import { answerOf, FUTURE, readPage, recordPlacement } from "../support.ts";
import { archive, cancel, empty, hasTable, statesOf, store } from "./support.ts";

/** The first day of all stories. */
const START = floorTo(FUTURE, DAY_MS);
const ALL_TIME = { start: 0, end: Number.MAX_SAFE_INTEGER };

/** When everything that a story stores is over, but nothing is old; and when it is old. */
const OVER = START + 30 * DAY_MS;
const OLD = START + 70 * DAY_MS;

const BUCKET = env.ARCHIVE;

async function aKnownMeter(changes: Parameters<typeof aMeter>[0] = {}): Promise<Meter> {
  const meter = aMeter({ livemode: true, eventName: unique("archived"), ...changes });
  await insertMeter(env.DB, meter).run();
  return meter;
}

const summaryOf = (meter: Meter, customer: string, range: TimeRange): Promise<Result<Summary[], MeteringError>> =>
  readSummaries(env, {
    ...{ meter, customer, range, windowLength: range.end - range.start },
    ...{ order: "newest_first", limit: 2 },
  });

type Changes = Parameters<typeof readPage>[1];

async function pageOf(meter: Meter, changes: Changes = {}): Promise<Result<readonly StoredEvent[], MeteringError>> {
  const page = await readPage(meter, changes);
  return page.ok ? ok(page.value.events) : page;
}

/** Page by page to the end. */
async function listAll(meter: Meter, changes: Changes & Pick<EventQuery, "limit">): Promise<StoredEvent[]> {
  const order = changes.from?.order ?? "newest_first";
  const listed: StoredEvent[] = [];
  for (;;) {
    const page = resultOf(await pageOf(meter, { ...changes, from: { order, place: listed.at(-1) } }));
    listed.push(...page);
    if (page.length < changes.limit) return listed;
  }
}

beforeEach(async () => {
  await Promise.all([env.EVENTS_0, env.EVENTS_1, env.TEST_EVENTS].map(empty));
  vi.useFakeTimers({ toFake: ["Date"], now: START });
});

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

describe("events of two databases", () => {
  const PLACEMENT = [
    { databases: 1, since: 0 },
    { databases: 2, since: 1 },
  ];

  beforeAll(async () => {
    await recordPlacement(PLACEMENT);
    return async () => recordPlacement(ONE_DATABASE);
  });

  const METERS = [
    { formula: "sum", eventTimeWindow: null },
    { formula: "count", eventTimeWindow: null },
    { formula: "last", eventTimeWindow: null },
    { formula: "max", eventTimeWindow: null },
    { formula: "sum", eventTimeWindow: "hour" },
    { formula: "last", eventTimeWindow: "day" },
  ] as const;

  const drawn = fc.record({
    offset: fc.oneof(
      fc.integer({ min: 0, max: 2 * DAY_MS - 1 }),
      // Many at the same time, next to where a day and a quarter hour begin.
      fc.constantFrom(0, 1, DAY_MS - 1, DAY_MS, DAY_MS + 7 * MINUTE_MS),
    ),
    delay: fc.constantFrom(-MINUTE_MS, 0, 90 * MINUTE_MS, 13 * HOUR_MS, 20 * DAY_MS),
    customer: fc.constantFrom("cus_1", "cus_2"),
    dimensions: fc.constantFrom("", '{"region":"eu"}', '{"region":"us"}'),
    identifier: fc.oneof(fc.uuid(), fc.string({ minLength: 1, maxLength: 9 })),
    payload: fc.constantFrom(undefined, { note: "ü" }),
    value: fc.oneof(fc.integer({ min: 1, max: 9 }), fc.constant(999_999_999_999_999)),
    meter: fc.nat({ max: METERS.length - 1 }),
    isLost: fc.nat({ max: 3 }).map((chance) => chance === 0),
    place: fc.nat({ max: 1 }),
    // A range about it, to the second as requests have them.
    before: fc.nat({ max: 1_200 }),
    length: fc.oneof(fc.integer({ min: 1, max: 1_800 }), fc.integer({ min: 1, max: 90_000 })),
  });

  type Drawn = DrawnOf<typeof drawn>;

  const rangeAbout = ({ offset, before, length }: Drawn): TimeRange => {
    const start = floorTo(START + offset, SECOND_MS) - before * SECOND_MS;
    return { start, end: start + length * SECOND_MS };
  };

  it("say the same while slices are live, when some are dropped, and when all are", async () => {
    const property = fc.asyncProperty(fc.array(drawn, { minLength: 30, maxLength: 60 }), async (events) => {
      await Promise.all([env.EVENTS_0, env.EVENTS_1].map(empty));
      vi.setSystemTime(START);
      const meters = await Promise.all(METERS.map((changes) => aKnownMeter(changes)));
      const reported = events.map((event) => {
        const { offset, delay, meter: index, isLost, place, before: _, length: __, ...fields } = event;
        const meter = meters[index] ?? meters[0];
        if (meter === undefined) throw new Error("no meter");
        const timestamp = START + offset;
        const places = databasesOf(meter.id, fields.customer, PLACEMENT);
        const known = { meter: meter.id, aggregation: aggregationOf(meter), timestamp, received: timestamp + delay };
        return {
          isLost,
          range: rangeAbout(event),
          db: eventsDatabase(env, true, places[place % places.length] ?? 0),
          entry: aLogEntry({ ...fields, ...known }),
        };
      });
      for (const [db, own] of Map.groupBy(reported, (each) => each.db)) {
        await store(
          db,
          own.map(({ entry }) => entry),
        );
        await cancel(
          db,
          own.filter(({ isLost }) => isLost).map(({ entry }) => entry),
        );
      }
      const ownOf = (meter: Meter, customer: string) =>
        reported.filter(({ entry }) => entry.meter === meter.id && entry.customer === customer);
      const readEverything = () =>
        Promise.all(
          meters.flatMap((meter) =>
            ["cus_1", "cus_2"].map(async (customer) => {
              const ranges = ownOf(meter, customer).map(({ range }) => range);
              const summaries = [];
              for (const each of ranges) summaries.push(resultOf(await summaryOf(meter, customer, each)));
              const lists = [];
              for (const [order, cancelled, limit] of [
                ["newest_first", undefined, 3],
                ["newest_first", false, 20],
                ["oldest_first", undefined, 4],
                ["oldest_first", true, 2],
              ] as const) {
                const from = { order, place: undefined };
                lists.push(await listAll(meter, { customer, cancelled, limit, from }));
              }
              const [part] = ranges;
              lists.push(await listAll(meter, { customer, limit: 4, ...(part && { range: part }) }));
              return { meter, customer, summaries, lists };
            }),
          ),
        );
      const live = await readEverything();
      for (const { meter, customer, summaries, lists } of live) {
        const own = ownOf(meter, customer);
        const counted = own.filter(({ isLost }) => !isLost).map(({ entry }) => entry);
        expect(summaries.map(([summary]) => summary?.value)).toEqual(
          own.map(({ range }) => fold(meter, counted, range, range.end - range.start)[0]?.value),
        );
        const reportedOf = ({ entry: { meter: _, aggregation: __, ...event }, isLost }: (typeof own)[number]) => ({
          ...event,
          ...(isLost && { cancelled: NOON + 1, cancelledBy: 2 }),
        });
        expect(lists[0]).toEqual(own.map(reportedOf).sort(newestFirst));
      }
      for (const now of [START + 37 * DAY_MS, OLD]) {
        vi.setSystemTime(now);
        for (const name of ["EVENTS_0", "EVENTS_1"]) await archive(name);
        const states = (await Promise.all([env.EVENTS_0, env.EVENTS_1].map(statesOf))).flat().map(({ state }) => state);
        const isArchived = (state: string) => state === "archived";
        expect(now === OLD ? states.every(isArchived) : states.some(isArchived)).toBe(true);
        expect(await readEverything()).toEqual(live);
      }
    });
    // A smaller story would take too long to find.
    await fc.assert(property, { seed: inject("seed"), numRuns: 1, endOnFailure: true });
  }, 120_000);
});

const newestFirst = (a: EventPlace, b: EventPlace): number => b.timestamp - a.timestamp || (a.id < b.id ? 1 : -1);

describe("a reader of archived slices", () => {
  const db = env.EVENTS_0;
  const QUARTER = { start: START, end: START + 15 * MINUTE_MS };
  const RAGGED = { start: START + SECOND_MS, end: START + HOUR_MS };

  /** Events of a meter, each in a slice of its own: of three days, which are dropped, and of one that is live. */
  async function aStory(changes: Parameters<typeof aMeter>[0] = {}): Promise<{ meter: Meter; entries: LogEntry[] }> {
    const meter = await aKnownMeter(changes);
    const entries = [0, 1, 2, 30].map((days, i) =>
      aLogEntry({
        ...{ meter: meter.id, aggregation: aggregationOf(meter), value: 2 ** i },
        ...{ timestamp: START + days * DAY_MS + MINUTE_MS, received: START + days * DAY_MS + 2 * MINUTE_MS },
      }),
    );
    await store(db, entries);
    vi.setSystemTime(START + 38 * DAY_MS);
    await archive();
    expect((await statesOf(db)).map(({ state }) => state)).toEqual(["archived", "archived", "archived", "checked"]);
    return { meter, entries };
  }

  it("asks neither slices nor files for whole quarter hours, nor files for what live slices have", async () => {
    const { meter, entries } = await aStory();
    const get = vi.spyOn(BUCKET, "get");
    const prepare = vi.spyOn(db, "prepare");
    const asked = () => prepare.mock.calls.map(([sql]) => sql).join("\n");
    const range = { start: START, end: START + 40 * DAY_MS };
    expect(resultOf(await summaryOf(meter, "cus_1", range))).toMatchObject([{ value: 15n }]);
    expect(prepare).toHaveBeenCalledTimes(1);
    expect(asked()).not.toMatch(/slices|archive_files/);

    expect(resultOf(await pageOf(meter, { limit: 1 })).map(({ id }) => id)).toEqual([entries[3]?.id]);
    expect(asked()).not.toContain("archive_files");
    // Nothing counts in the quarter hours that these ranges cut.
    for (const { start, end } of [QUARTER, RAGGED]) {
      const empty = { start: start + 2 * HOUR_MS + SECOND_MS, end: end + 3 * HOUR_MS };
      expect(resultOf(await summaryOf(meter, "cus_1", empty))).toEqual([]);
    }
    expect(get).not.toHaveBeenCalled();

    // One file for each that is needed.
    expect(resultOf(await summaryOf(meter, "cus_1", RAGGED))).toMatchObject([{ value: 1n }]);
    expect(get).toHaveBeenCalledTimes(1);
    expect(resultOf(await pageOf(meter, { limit: 2 })).map(({ value }) => value)).toEqual([8, 4]);
    expect(get).toHaveBeenCalledTimes(2);
  });

  /** What is read of the first event of a story, which its slice has. */
  const READS = [
    ["a summary", async (meter: Meter) => resultOf(await summaryOf(meter, "cus_1", RAGGED)).map(({ value }) => value)],
    ["a list", async (meter: Meter) => resultOf(await pageOf(meter)).map(({ value }) => BigInt(value))],
  ] as const;

  it.each(READS)(
    "looks again when a slice is dropped between its look at the slices and its read: %s",
    async (_, read) => {
      const meter = await aKnownMeter();
      await store(db, [
        aLogEntry({ meter: meter.id, value: 5, timestamp: START + MINUTE_MS, received: START + MINUTE_MS }),
      ]);
      vi.setSystemTime(OVER);
      await archive();
      vi.setSystemTime(OLD);
      const [{ slice } = { slice: 0 }] = await statesOf(db);
      expect(await hasTable(db, slice)).toBe(true);
      const batch = db.batch.bind(db);
      vi.spyOn(db, "batch").mockImplementationOnce(async (statements) => {
        const found = await batch(statements);
        await archive();
        return found as never;
      });
      expect(await read(meter)).toEqual([5n]);
      expect(await hasTable(db, slice)).toBe(false);
    },
  );

  it.each(READS)("looks again when a file was replaced meanwhile: %s", async (_, read) => {
    const { meter } = await aStory();
    const before = await read(meter);
    const get = BUCKET.get.bind(BUCKET);
    vi.spyOn(BUCKET, "get").mockImplementationOnce(async (key) => {
      const object = await get(key);
      await BUCKET.put(`${key}.2`, (await object?.arrayBuffer()) ?? "");
      await db.prepare("UPDATE archive_files SET key = ?2 WHERE key = ?1").bind(key, `${key}.2`).run();
      await BUCKET.delete(key);
      return null;
    });
    expect(await read(meter)).toEqual(before);
  });

  it("shows events of one timestamp in the order of their ids, whichever slices they are in", async () => {
    const timestamp = START + MINUTE_MS;
    const received = [timestamp, timestamp + 13 * HOUR_MS, timestamp + 30 * DAY_MS];
    const meters: Meter[] = [];
    for (const inOrderOfIds of [received, received.toReversed()]) {
      const meter = await aKnownMeter();
      meters.push(meter);
      await store(
        db,
        inOrderOfIds.map((each, place) =>
          aLogEntry({ meter: meter.id, id: anEventId(place), timestamp, received: each }),
        ),
      );
    }
    for (const now of [START, START + 38 * DAY_MS, OLD]) {
      vi.setSystemTime(now);
      await archive();
      for (const meter of meters) {
        for (const order of ["newest_first", "oldest_first"] as const) {
          const listed = await listAll(meter, { limit: 1, from: { order, place: undefined } });
          const ids = listed.map(({ id }) => id);
          const sorted = ids.toSorted();
          expect(ids).toEqual(order === "newest_first" ? sorted.toReversed() : sorted);
          expect(ids).toHaveLength(received.length);
        }
      }
    }
  });

  it("refuses what needs an object that is gone, and nothing else", async () => {
    const { meter } = await aStory();
    const { objects } = await BUCKET.list({ prefix: `events/day=${dateOf(START)}` });
    await BUCKET.delete(objects.map(({ key }) => key));
    const hour = { start: START, end: RAGGED.end };
    const later = { start: START + DAY_MS + SECOND_MS, end: START + 2 * DAY_MS };
    expect(errorOf(await summaryOf(meter, "cus_1", RAGGED))).toEqual({
      ...{ reason: "archived_range_deleted", instead: { of: "summary", aligned: hour } },
    });
    expect(resultOf(await summaryOf(meter, "cus_1", hour))).toMatchObject([{ value: 1n }]);
    expect(resultOf(await summaryOf(meter, "cus_1", later))).toMatchObject([{ value: 2n }]);

    const from = START + MINUTE_MS + 1;
    const gone = { reason: "archived_range_deleted", instead: { of: "timestamp", from } };
    for (const order of ["newest_first", "oldest_first"] as const) {
      expect(errorOf(await pageOf(meter, { from: { order, place: undefined } }))).toEqual(gone);
      const kept = await pageOf(meter, { from: { order, place: undefined }, range: { ...ALL_TIME, start: from } });
      expect(resultOf(kept)).toHaveLength(3);
    }
    // Also when the file was read ahead.
    expect(resultOf(await pageOf(meter, { limit: 3 })).map(({ value }) => value)).toEqual([8, 4, 2]);

    const key = LOCAL_KEYS.live;
    const query = `start_time=${RAGGED.start / SECOND_MS}&end_time=${RAGGED.end / SECOND_MS}`;
    for (const path of [
      `/v1/billing/meters/${meter.id}/event_summaries?customer=cus_1&${query}`,
      `/v1/billing/meter_events?meter=${meter.id}&customer=cus_1`,
    ]) {
      const error = { type: "invalid_request_error", code: "archived_range_deleted" };
      expect(await answerOf(path, { key })).toMatchObject({ status: 400, body: { error } });
    }
  });

  const FAILURES = {
    "R2 does not respond": async () => void vi.spyOn(BUCKET, "get").mockRejectedValue(new Error("get: internal error")),
    "objects are each other": async () => {
      const objects = (await BUCKET.list()).objects.map(({ key }) => key);
      const bytes = await Promise.all(objects.map(async (key) => (await BUCKET.get(key))?.arrayBuffer()));
      await Promise.all(objects.map((key, i) => BUCKET.put(key, bytes.at(i - 1) ?? "")));
    },
  };

  it.each(Object.entries(FAILURES))("gives a 503 and no smaller sum when %s", async (_, fail) => {
    const { meter } = await aStory();
    await fail();
    vi.spyOn(console, "error").mockReturnValue();
    for (const [, read] of READS) await expect(read(meter)).rejects.toThrow();
    const path = `/v1/billing/meter_events?meter=${meter.id}&customer=cus_1`;
    expect(await answerOf(path, { key: LOCAL_KEYS.live })).toMatchObject({ status: 503 });
  });

  it("fails, and says why, when no bucket is bound", async () => {
    const { meter } = await aStory();
    const unbound = { ...env, ARCHIVE: undefined } as unknown as typeof env;
    const query = { meter, customer: "cus_1", range: RAGGED, windowLength: RAGGED.end - RAGGED.start, limit: 2 };
    await expect(readSummaries(unbound, { ...query, order: "newest_first" })).rejects.toThrow(
      "no bucket is bound as ARCHIVE",
    );
  });

  /** Says that the only file of the story's first day is `count` files. */
  const multiplyFile = (count: number) =>
    db
      .prepare(
        `WITH columns AS (SELECT * FROM archive_files WHERE min_timestamp = ?1)
        INSERT INTO archive_files
        SELECT slice, number.value, late, day, first_series, first_timestamp, first_id, last_series, last_timestamp, last_id,
          min_timestamp, max_timestamp, max_delay, min_received, max_received, rows, counted, sum_high, sum_low, checksum,
          bytes, columns.key, sha256, checked
        FROM columns, json_each(?2) AS number`,
      )
      .bind(START + MINUTE_MS, JSON.stringify(Array.from({ length: count - 1 }, (_, i) => 1_000 + i)))
      .run();

  it("refuses what needs more than 200 files, and reads 200", async () => {
    const { meter } = await aStory();
    await multiplyFile(200);
    expect(resultOf(await summaryOf(meter, "cus_1", RAGGED))).toMatchObject([{ value: 200n }]);
    // No event is cancelled, so every file of the range is read.
    const cancelled = { cancelled: true, range: { start: 0, end: START + DAY_MS } };
    expect(resultOf(await pageOf(meter, cancelled))).toEqual([]);

    await db.exec("DELETE FROM archive_files WHERE file >= 1000");
    await multiplyFile(201);
    const get = vi.spyOn(BUCKET, "get");
    const aligned = { start: START, end: RAGGED.end };
    expect(errorOf(await summaryOf(meter, "cus_1", RAGGED))).toEqual({
      ...{ reason: "archived_range_unaligned", instead: { of: "summary", aligned } },
    });
    expect(get).not.toHaveBeenCalled();
    for (const [order, instead] of [
      ["newest_first", { of: "timestamp", before: START + MINUTE_MS + SECOND_MS }],
      ["oldest_first", { of: "timestamp", from: START + MINUTE_MS }],
    ] as const) {
      const refused = await pageOf(meter, { ...cancelled, from: { order, place: undefined } });
      expect(errorOf(refused)).toEqual({ reason: "archived_range_unaligned", instead });
    }
    expect(get).toHaveBeenCalledTimes(400);
  });

  it("refuses test mode's events that are dropped, and says from when on they are kept", async () => {
    const test = env.TEST_EVENTS;
    const meter = await aKnownMeter({ livemode: false });
    const [early, late] = [START + MINUTE_MS, START + 30 * DAY_MS].map((timestamp, i) =>
      aLogEntry({ meter: meter.id, value: 2 ** i, timestamp, received: timestamp }),
    );
    if (early === undefined || late === undefined) throw new Error("no events");
    await store(test, [early, late]);
    vi.setSystemTime(START + 38 * DAY_MS);
    await archive("TEST_EVENTS");
    expect((await statesOf(test)).map(({ state }) => state)).toEqual(["archived", "checked"]);

    const aligned = { start: START, end: RAGGED.end };
    expect(errorOf(await summaryOf(meter, "cus_1", RAGGED))).toEqual({
      ...{ reason: "archived_range_deleted", instead: { of: "summary", aligned } },
    });
    expect(resultOf(await summaryOf(meter, "cus_1", aligned))).toMatchObject([{ value: 1n }]);
    expect(resultOf(await summaryOf(meter, "cus_2", RAGGED))).toEqual([]);
    const all = { start: START, end: late.timestamp + SECOND_MS };
    expect(resultOf(await summaryOf(meter, "cus_1", all))).toMatchObject([{ value: 3n }]);

    const from = START + 15 * MINUTE_MS;
    expect(errorOf(await pageOf(meter))).toEqual({
      ...{ reason: "archived_range_deleted", instead: { of: "timestamp", from } },
    });
    expect(resultOf(await pageOf(meter, { range: { ...ALL_TIME, start: from } })).map(({ id }) => id)).toEqual([
      late.id,
    ]);
    expect(resultOf(await pageOf(meter, { limit: 1 })).map(({ id }) => id)).toEqual([late.id]);
    expect(resultOf(await pageOf(meter, { customer: "cus_2" }))).toEqual([]);
  });

  it("finds an event in whatever slice it is, also in one much later than its receipt", async () => {
    const { meter } = await aStory();
    // What was a dead letter may be redriven into the oldest slice that is left.
    const slice = (await statesOf(db)).at(-1)?.slice ?? 0;
    const late = aLogEntry({ meter: meter.id, value: 16, timestamp: START + 2 * MINUTE_MS, received: slice * HOUR_MS });
    await db.exec(`UPDATE slices SET state = 'open' WHERE slice = ${slice}`);
    await db.exec(`DELETE FROM archive_files WHERE slice = ${slice}`);
    await store(db, [late]);
    vi.setSystemTime(OLD + 30 * DAY_MS);
    await archive();
    expect(await hasTable(db, slice)).toBe(false);
    expect(resultOf(await summaryOf(meter, "cus_1", RAGGED))).toMatchObject([{ value: 17n }]);
  });
});

describe("files", () => {
  const db = env.EVENTS_0;

  const key = fc.record({
    series: fc.integer({ min: 1, max: 6 }),
    timestamp: fc.integer({ min: 0, max: 40 }).map((step) => START - DAY_MS + step * 90 * MINUTE_MS),
    id: fc.uuid(),
  });

  it("are found when they may have rows, of some series and of a range, in the order of their timestamps", async () => {
    const meter = unique("meter");
    await db.exec("INSERT INTO slices (slice, state) VALUES (0, 'sealed'), (1, 'sealed')");
    await db
      .prepare("INSERT INTO series (id, meter, customer) SELECT value, ?1, value FROM json_each('[1,2,3,4,5,6]')")
      .bind(meter)
      .run();
    const property = fc.asyncProperty(
      fc.uniqueArray(key, { minLength: 1, maxLength: 40, selector: ({ id }) => id }),
      fc.integer({ min: 1, max: 5 }),
      fc.integer({ min: 1, max: 6 }),
      fc.tuple(fc.integer({ min: 0, max: 40 }), fc.integer({ min: 1, max: 20 })),
      fc.constantFrom("newest_first", "oldest_first"),
      async (keys, rowsOfFile, series, [from, length], order) => {
        await db.exec("DELETE FROM archive_files");
        const files = [0, 1].flatMap((slice) =>
          [...Map.groupBy(keys, ({ timestamp }) => Math.floor(timestamp / DAY_MS))].flatMap(([day, ofDay]) => {
            const rows = ofDay
              .filter((_, i) => i % 2 === slice)
              .sort((a, b) => a.series - b.series || a.timestamp - b.timestamp || (a.id < b.id ? -1 : 1));
            const cuts = Array.from({ length: Math.ceil(rows.length / rowsOfFile) }, (_, i) => i * rowsOfFile);
            return cuts.map((cut) => ({ slice, day, rows: rows.slice(cut, cut + rowsOfFile) }));
          }),
        );
        await db.batch(
          files.map(({ slice, day, rows }, file) =>
            insertFile(db, {
              ...describeRows(rows.map((row) => ({ ...A_ROW, ...row }))),
              ...{ slice, file, segment: { isLate: true, day }, checked: undefined },
              ...{ bytes: 1, key: String(file), sha256: "" },
            }),
          ),
        );
        const range = {
          start: START - DAY_MS + from * 90 * MINUTE_MS,
          end: START - DAY_MS + (from + length) * 90 * MINUTE_MS,
        };
        const search = {
          series: `SELECT id AS series FROM (${SERIES_OF_CUSTOMER})`,
          range,
          order,
          limit: 100,
        } as const;
        const found = await findFiles(db, { ...search, slices: [0], values: { meter, customer: String(series) } });
        expect(found.series).toEqual([{ series }]);
        const isWanted = (row: EventPlace & { series: number }) =>
          row.series === series && row.timestamp >= range.start && row.timestamp < range.end;
        const names = new Set(found.files.map(({ file }) => file.key));
        const needed = files.flatMap(({ slice, rows }, i) => (slice === 0 && rows.some(isWanted) ? [String(i)] : []));
        expect([...names]).toEqual(expect.arrayContaining(needed));
        for (const { file } of found.files) {
          expect(file.slice).toBe(0);
          expect(file.minTimestamp < range.end && file.maxTimestamp >= range.start).toBe(true);
          expect(file.first.series <= series && file.last.series >= series).toBe(true);
        }
        const times = found.files.map(({ file }) =>
          order === "newest_first" ? -file.maxTimestamp : file.minTimestamp,
        );
        expect(times).toEqual(times.toSorted((a, b) => a - b));
      },
    );
    await fc.assert(property, { seed: inject("seed"), numRuns: 60 });
  });
});

/** What a row has besides its key. */
const A_ROW = {
  ...{ meter: "", customer: "", identifier: "", value: 1, received: 0, dimensions: null, payload: null },
  ...{ apiKey: 1, cancelled: null, cancelledBy: null },
};

const dateOf = (time: number): string => new Date(time).toISOString().slice(0, 10);
