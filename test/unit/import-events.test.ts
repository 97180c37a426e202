import { describe, expect, test } from "vitest";
import { eventMapper, identifierOf, type Mapping } from "../../scripts/import/events.ts";
import type { Row } from "../../scripts/import/rows.ts";
import { newestTimestamp, shiftToNow } from "../../scripts/import/timestamps.ts";

const COLUMNS = ["time", "who", "tokens"];

const aMapping = (changes: Partial<Mapping> = {}): Mapping => ({
  source: "usage.csv",
  eventName: "tokens",
  valueColumn: "tokens",
  timestampColumn: "time",
  customer: { column: "who" },
  ...changes,
});

const aRow = (changes: Partial<Row> = {}): Row => ({
  number: 1,
  fields: ["2026-06-15T12:00:00Z", "acme", "25"],
  end: 100,
  ...changes,
});

async function* rowsAt(...times: string[]): AsyncGenerator<Row, void, undefined> {
  for (const [index, time] of times.entries()) yield aRow({ number: index + 1, fields: [time, "acme", "25"] });
}

describe("an identifier", () => {
  test("is the same for the same row, and fits the limit", () => {
    const identifier = identifierOf(aMapping(), aRow());
    expect(identifierOf(aMapping(), aRow({ end: 7 }))).toBe(identifier);
    expect(identifier).toMatch(/^[\w-]{1,100}$/);
  });

  test.each([
    ["source", aMapping({ source: "other.csv" }), aRow()],
    ["event name", aMapping({ eventName: "requests" }), aRow()],
    ["value column", aMapping({ valueColumn: "who" }), aRow()],
    ["row number", aMapping(), aRow({ number: 2 })],
    ["content", aMapping(), aRow({ fields: ["2026-06-15T12:00:00Z", "acme", "26"] })],
    ["division into fields", aMapping(), aRow({ fields: ["2026-06-15T12:00:00Z", "acme,25"] })],
  ])("changes with the %s", (_, mapping, row) => {
    expect(identifierOf(mapping, row)).not.toBe(identifierOf(aMapping(), aRow()));
  });

  test("knows nothing of the shift", () => {
    const [early, late] = [0, 86_400_000].map((shift) => eventMapper(aMapping(), COLUMNS, shift)(aRow()));
    expect(early).toMatchObject({ ok: true, value: { timestamp: Date.UTC(2026, 5, 15, 12) } });
    expect(late).toMatchObject({ ok: true, value: { timestamp: Date.UTC(2026, 5, 16, 12) } });
    if (early?.ok && late?.ok) expect(early.value.identifier).toBe(late.value.identifier);
  });
});

describe("a row", () => {
  test("becomes an event with its value untouched", () => {
    const row = aRow({ fields: ["1781524800", "acme", " 007 "] });
    expect(eventMapper(aMapping(), COLUMNS, 0)(row)).toMatchObject({
      ok: true,
      value: { row, customer: "acme", value: " 007 ", timestamp: 1_781_524_800_000 },
    });
  });

  test("goes to one of the spread customers, by its number", () => {
    const toEvent = eventMapper(aMapping({ customer: { spread: 3 } }), COLUMNS, 0);
    const customers = [1, 2, 3, 4].map((number) => {
      const event = toEvent(aRow({ number }));
      return event.ok ? event.value.customer : event.error;
    });
    expect(customers).toEqual(["cus_1", "cus_2", "cus_3", "cus_1"]);
  });
});

describe("a shift to now", () => {
  const NOW = Date.UTC(2026, 5, 15);

  test("puts the newest timestamp just before now, wherever in the file it is", async () => {
    const newest = await newestTimestamp(rowsAt("1000", "nonsense", "3000", "2000"), 0);
    expect(newest).toBe(3_000_000);
    expect(3_000_000 + shiftToNow(newest, NOW)).toBe(NOW - 1);
  });

  test("is none for a file without a readable timestamp", async () => {
    expect(shiftToNow(await newestTimestamp(rowsAt("nonsense"), 0), NOW)).toBe(0);
    expect(shiftToNow(await newestTimestamp(rowsAt(), 0), NOW)).toBe(0);
  });
});
