// What changes a slice after it was sealed: redriven dead letters and the auditor. Its files must say so too.
import { env } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { findDeadLetter, parkStatement, redrive } from "../../../src/aggregate/dead-letters.ts";
import { keepSlices } from "../../../src/aggregate/keep-slices.ts";
import { tableOf } from "../../../src/aggregate/sql/events.ts";
import { insertMeter } from "../../../src/catalog/meters.ts";
import { aggregationOf } from "../../../src/domain/meter.ts";
import { DAY_MS, HOUR_MS, MINUTE_MS, receiptOf, sliceOf } from "../../../src/domain/window.ts";
import type { LogEntry } from "../../../src/log/codec.ts";
import type { GroupKind } from "../../../src/log/groups.ts";
import { aLogEntry, aMeter, unique } from "../../support/builders.ts";
import { cancellationLines, eventLines } from "../../support/shares.ts";
import { FUTURE, storedIn } from "../support.ts";
import { archive, archivedRows, cancel, empty, hasTable, statesOf, store } from "./support.ts";

const db = env.EVENTS_0;

const SLICE = sliceOf(FUTURE);
const BEGIN = receiptOf(SLICE).start + MINUTE_MS;
const OVER = receiptOf(SLICE).end + 25 * HOUR_MS + 1;
const OLD = receiptOf(SLICE).end + 35 * DAY_MS;

beforeEach(async () => {
  await empty(db);
  vi.useFakeTimers({ toFake: ["Date"], now: BEGIN });
});

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

const anEntry = (changes: Partial<LogEntry> = {}): LogEntry =>
  aLogEntry({ meter: "mtr_repaired", timestamp: BEGIN, received: BEGIN, identifier: unique("identifier"), ...changes });

/** Parks an entry of the slice of its receipt; its id. */
async function park(kind: Exclude<GroupKind, "rejections">, event: LogEntry): Promise<string> {
  const [line] = kind === "events" ? eventLines([event]) : cancellationLines([event]);
  const id = unique("dl");
  await parkStatement(db, {
    ...{ id, kind, slice: line?.slice ?? 0, entry: line?.entries ?? "" },
    ...{ reason: "refused", parked: Date.now() },
  }).run();
  return id;
}

async function redriveIt(id: string): Promise<void> {
  const letter = await findDeadLetter(db, id);
  if (letter === null || letter === undefined) throw new Error(`no letter ${id}`);
  await redrive(db, letter, Date.now());
  expect((await findDeadLetter(db, id))?.redriven).toBe(Date.now());
}

const stateOf = async (slice = SLICE) => (await statesOf(db)).find((known) => known.slice === slice)?.state;

const sumOf = (): Promise<unknown> => db.prepare("SELECT SUM(count) AS count, SUM(sum_low) AS sum FROM sums").first();

const filesIn = async (): Promise<unknown> =>
  (await db.prepare("SELECT file, sha256 FROM archive_files WHERE slice = ?").bind(SLICE).all()).results;

const totals = () => db.prepare("SELECT files, bytes FROM archive_totals").first<{ files: number; bytes: number }>();

const counted = () =>
  db.prepare("SELECT COUNT(*) AS files, COALESCE(SUM(bytes), 0) AS bytes FROM archive_files").first();

/** The steps after which a slice with one file is sealed, exported and checked. */
const STEPS = { sealed: 1, exported: 2, checked: 4 } as const;

/** A slice with three events, one cancelled, in a state. */
async function aSliceIn(state: keyof typeof STEPS): Promise<[kept: LogEntry, cancelled: LogEntry]> {
  const entries = [anEntry({ value: 1 }), anEntry({ value: 2 }), anEntry({ value: 4 })] as const;
  await store(db, entries);
  await cancel(db, [entries[1]]);
  vi.setSystemTime(OVER);
  await archive("EVENTS_0", { steps: STEPS[state], until: Number.POSITIVE_INFINITY });
  expect(await stateOf()).toBe(state);
  return [entries[0], entries[1]];
}

describe.each(["sealed", "exported", "checked"] as const)("a dead letter of a slice that is %s", (state) => {
  it("that says what is stored changes nothing", async () => {
    const [kept, cancelled] = await aSliceIn(state);
    const before = [await filesIn(), await sumOf()];
    await redriveIt(await park("events", kept));
    await redriveIt(await park("cancellations", cancelled));
    expect([await filesIn(), await sumOf()]).toEqual(before);
    expect(await stateOf()).toBe(state);
  });

  it.each([
    ["an event that is not stored", "events", 8, [1, 2, 4, 8], { count: 3, sum: 13 }],
    ["a cancellation that is not", "cancellations", 1, [1, 2, 4], { count: 1, sum: 4 }],
  ] as const)("that is %s goes into it, and it is exported again", async (_, kind, value, values, sum) => {
    const [kept] = await aSliceIn(state);
    const event = kind === "events" ? anEntry({ value }) : kept;
    const id = await park(kind, event);
    await redriveIt(id);
    await redriveIt(id);
    expect(await stateOf()).toBe("open");
    expect(await filesIn()).toEqual([]);
    expect(await totals()).toEqual(await counted());
    await archive();
    expect(await stateOf()).toBe("checked");
    const rows = await archivedRows(db, SLICE);
    expect(rows.map((row) => row.value).toSorted((a, b) => a - b)).toEqual(values);
    expect(rows.find((row) => row.id === event.id)?.cancelled === null).toBe(kind === "events");
    expect(await sumOf()).toEqual(sum);
    expect(await totals()).toEqual(await counted());
    vi.setSystemTime(OLD);
    await archive();
    expect(await stateOf()).toBe("archived");
  });
});

describe("a dead letter", () => {
  it("keeps its slice from being dropped", async () => {
    const [kept] = await aSliceIn("checked");
    const id = await park("events", kept);
    vi.setSystemTime(OLD);
    expect(await archive()).toBe(false);
    expect(await hasTable(db, SLICE)).toBe(true);
    await redriveIt(id);
    await archive();
    expect(await stateOf()).toBe("archived");
  });

  it("of an archived slice goes into the oldest that is open, once, and readers find it", async () => {
    const event = anEntry({ value: 8 });
    const id = await park("events", event);
    await db.prepare("INSERT INTO slices (slice, state) VALUES (?, 'archived')").bind(SLICE).run();
    vi.setSystemTime(OVER);
    const [first, second] = [await findDeadLetter(db, id), await findDeadLetter(db, id)];
    if (first === undefined || second === undefined) throw new Error("no letter");
    await redrive(db, first, OVER);
    // Another call that had read the letter before, in a slice of later.
    const later = OVER + 12 * HOUR_MS;
    await db.prepare("UPDATE dead_letters SET redriven = NULL WHERE id = ?").bind(id).run();
    await redrive(db, second, later);
    expect(await sumOf()).toEqual({ count: 1, sum: 8 });
    expect((await storedIn(db, event.meter)).map((row) => row.id)).toEqual([event.id]);
    const range = db.prepare("SELECT min_timestamp FROM slices WHERE slice = ?").bind(sliceOf(OVER));
    expect(await range.first("min_timestamp")).toBeLessThanOrEqual(BEGIN);
  });

  it("that cancels what is archived is done: it was cancelled before", async () => {
    const id = await park("cancellations", anEntry());
    await db.prepare("INSERT INTO slices (slice, state) VALUES (?, 'archived')").bind(SLICE).run();
    await redriveIt(id);
    expect(await storedIn(db, "mtr_repaired")).toEqual([]);
  });

  it("is not parked for a slice that is archived: what comes for it was stored", async () => {
    await db.prepare("INSERT INTO slices (slice, state) VALUES (?, 'archived')").bind(SLICE).run();
    expect(await findDeadLetter(db, await park("events", anEntry()))).toBeUndefined();
  });

  it("that cancels what a window fell back to has it fall back to what is left, also once the slice is dropped", async () => {
    const meter = aMeter({ eventName: unique("tokens"), eventTimeWindow: "day", livemode: true });
    await insertMeter(env.DB, meter).run();
    const ofMeter = { meter: meter.id, aggregation: aggregationOf(meter) };
    const [first, second] = [anEntry({ ...ofMeter, value: 1 }), anEntry({ ...ofMeter, value: 2 })];
    await store(db, [first, second]);
    vi.setSystemTime(OVER);
    await archive();
    const survivor = () => db.prepare("SELECT value, base_value, vacated FROM survivors").all();
    expect((await survivor()).results).toEqual([{ value: 2, base_value: null, vacated: 0 }]);
    await redriveIt(await park("cancellations", second));
    expect((await survivor()).results).toEqual([{ value: 1, base_value: null, vacated: 0 }]);
    vi.setSystemTime(OLD);
    await archive();
    expect(await stateOf()).toBe("archived");
    expect((await survivor()).results).toEqual([{ value: 1, base_value: 1, vacated: 0 }]);
  });

  it.each([
    [{ eventTimeWindow: "day" }, 4, 8],
    [{ formula: "last" }, 4, 8],
    [{ formula: "max" }, 4, 8],
    [{ formula: "min" }, 8, 4],
  ] as const)(
    "that cancels a checked slice's event has the window of %j fall back to one of a slice that was dropped",
    async (changes, first, second) => {
      const meter = aMeter({ eventName: unique("tokens"), livemode: true, ...changes });
      await insertMeter(env.DB, meter).run();
      const ofMeter = { meter: meter.id, aggregation: aggregationOf(meter) };
      // The greatest and the least of what is left are others.
      const others = first < second ? [1, 2] : [12, 16];
      await store(
        db,
        [...others, first].map((value) => anEntry({ ...ofMeter, value })),
      );
      const later = anEntry({ ...ofMeter, value: second, received: BEGIN + 12 * HOUR_MS });
      await store(db, [later]);
      vi.setSystemTime(OLD);
      await archive();
      expect(await statesOf(db)).toMatchObject([{ state: "archived" }, { state: "checked" }]);
      const survivor = () => db.prepare("SELECT value, base_value, vacated FROM survivors").all();
      expect((await survivor()).results).toEqual([{ value: second, base_value: first, vacated: 0 }]);
      await redriveIt(await park("cancellations", later));
      expect((await survivor()).results).toEqual([{ value: first, base_value: first, vacated: 0 }]);
    },
  );
});

describe("a migration of the template", () => {
  afterEach(() => db.exec("ALTER TABLE events DROP COLUMN region"));

  it.each(["sealed", "exported", "checked"] as const)("reaches a slice that is %s, which goes on", async (state) => {
    const errors = vi.spyOn(console, "error");
    await aSliceIn(state);
    await db.exec("ALTER TABLE events ADD COLUMN region TEXT DEFAULT 'eu'");
    await keepSlices(db, OVER);
    expect(await db.prepare(`SELECT region FROM ${tableOf(SLICE)} LIMIT 1`).first("region")).toBe("eu");
    vi.setSystemTime(OLD);
    await archive();
    expect(await stateOf()).toBe("archived");
    expect(await archivedRows(db, SLICE)).toHaveLength(3);
    expect(errors).not.toHaveBeenCalled();
  });
});

describe("test mode", () => {
  const testDb = env.TEST_EVENTS;
  const ROWS = 60_000;

  it("looks through a slice in bounded steps, each from where the last one ended, and drops it without a file", async () => {
    await empty(testDb);
    const meter = aMeter({ eventName: unique("tokens"), livemode: false, formula: "last" });
    await insertMeter(env.DB, meter).run();
    const event = { meter: meter.id, aggregation: aggregationOf(meter) };
    await store(testDb, [anEntry({ ...event, value: 7 }), anEntry({ ...event, value: 9, timestamp: BEGIN - DAY_MS })]);
    // Many at once: what is of interest is the size of a step.
    await testDb
      .prepare(
        `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
        INSERT INTO ${tableOf(SLICE)} (series, timestamp, id, identifier, value, delay, api_key)
        SELECT (SELECT id FROM series), ?2 + 900000, 'many' || i, 'many' || i, 3, 0, 1 FROM n`,
      )
      .bind(ROWS, BEGIN)
      .run();
    vi.setSystemTime(OVER);
    const position = () => testDb.prepare("SELECT state, skipped_to FROM slices").first();
    const steps: unknown[] = [];
    while (await archive("TEST_EVENTS", { steps: 1, until: Number.POSITIVE_INFINITY })) steps.push(await position());
    expect(steps).toEqual([
      { state: "sealed", skipped_to: expect.stringContaining('"isLate":false') },
      { state: "sealed", skipped_to: expect.stringContaining('"isLate":false') },
      { state: "sealed", skipped_to: expect.stringContaining('"isLate":true') },
    ]);
    expect(await position()).toMatchObject({ state: "checked" });
    const bases = await testDb.prepare("SELECT base_id, base_value FROM survivors ORDER BY window_start").all();
    expect(bases.results.map(({ base_value }) => base_value)).toEqual([9, 7, 3]);
    vi.setSystemTime(OLD);
    await archive("TEST_EVENTS");
    expect(await hasTable(testDb, SLICE)).toBe(false);
    expect((await env.ARCHIVE.list()).objects).toEqual([]);
  });
});
