import { env } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { DAY_MS, HOUR_MS, MINUTE_MS, receiptOf, sliceOf } from "../../../src/domain/window.ts";
import type { LogEntry } from "../../../src/log/codec.ts";
import { aLogEntry, unique } from "../../support/builders.ts";
import { FUTURE } from "../support.ts";
import { archive, archivedRows, cancel, empty, hasTable, statesOf, store } from "./support.ts";

const db = env.EVENTS_0;

/** All events of a story are received at the beginning of a slice. */
const BEGIN = receiptOf(sliceOf(FUTURE)).start + MINUTE_MS;
const SLICE = sliceOf(BEGIN);

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
  aLogEntry({ meter: "mtr_archived", timestamp: BEGIN, received: BEGIN, identifier: unique("identifier"), ...changes });

describe("the archive", () => {
  it("takes a slice when it is over, keeps it until it is old, and then drops it", async () => {
    const uuid = "01234567-89ab-cdef-0123-456789abcdef";
    const entries = [
      anEntry({ value: 1, identifier: uuid, payload: { model: "large" } }),
      anEntry({ value: 2, customer: "cus_2", dimensions: '{"region":"eu"}' }),
      anEntry({ value: 4, timestamp: BEGIN - 2 * HOUR_MS }),
      anEntry({ value: 8, timestamp: BEGIN - 20 * DAY_MS }),
      anEntry({ value: 16, timestamp: BEGIN + MINUTE_MS }),
    ];
    await store(db, entries);
    await cancel(db, entries.slice(3, 4));

    vi.setSystemTime(OVER - 1);
    await archive();
    expect(await statesOf(db)).toEqual([{ slice: SLICE, state: "open" }]);

    vi.setSystemTime(OVER);
    expect(await archive()).toBe(false);
    expect(await statesOf(db)).toEqual([{ slice: SLICE, state: "checked" }]);
    const rows = await archivedRows(db, SLICE);
    expect(rows.map(({ value }) => value).toSorted((a, b) => a - b)).toEqual([1, 2, 4, 8, 16]);
    expect(rows.find(({ value }) => value === 1)).toMatchObject({
      identifier: uuid,
      payload: '{"model":"large"}',
      apiKey: 1,
    });
    expect(rows.filter(({ cancelled }) => cancelled !== null).map(({ value }) => value)).toEqual([8]);
    const { objects } = await env.ARCHIVE.list();
    expect(objects.map(({ key }) => key)).toEqual(
      [
        ["2040-05-26", 1, 1],
        ["2040-06-14", 1, 2],
        ["2040-06-15", 0, 0],
      ].map(([day, late, file]) => `events/day=${day}/db=00/slice=${SLICE}/late=${late}/0000${file}.parquet`),
    );

    vi.setSystemTime(OLD - 1);
    await archive();
    expect(await hasTable(db, SLICE)).toBe(true);
    vi.setSystemTime(OLD);
    expect(await archive()).toBe(false);
    expect(await hasTable(db, SLICE)).toBe(false);
    expect(await statesOf(db)).toEqual([{ slice: SLICE, state: "archived" }]);

    // What comes again was stored.
    await store(db, entries);
    await cancel(db, entries);
    expect(await hasTable(db, SLICE)).toBe(false);
  });
});
