import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  ceilTo,
  DAY_MS,
  floorTo,
  HOUR_MS,
  MINUTE_MS,
  QUARTER_HOUR_MS,
  receiptOf,
  sliceOf,
  splitAtQuarterHours,
  summaryRange,
  type TimeRange,
  windowLength,
} from "../../src/domain/window.ts";
import { errorOf, NOON, resultOf } from "../support/builders.ts";

const time = fc.oneof(
  fc.integer({ min: -10 * DAY_MS, max: 10 * DAY_MS }),
  fc.integer({ min: 0, max: Date.UTC(2100, 0) }),
  // Where mistakes by one show.
  fc
    .tuple(fc.integer({ min: -200, max: 2_000_000 }), fc.integer({ min: -1, max: 1 }))
    .map(([n, by]) => n * QUARTER_HOUR_MS + by),
);
const length = fc.constantFrom(MINUTE_MS, HOUR_MS, DAY_MS);

describe("windows", () => {
  test("begin where UTC's minutes, hours and days do, and hold their start and not their end", () => {
    expect(floorTo(NOON, MINUTE_MS)).toBe(Date.UTC(2026, 5, 15, 12, 34));
    expect(floorTo(NOON, HOUR_MS)).toBe(Date.UTC(2026, 5, 15, 12));
    expect(floorTo(NOON, DAY_MS)).toBe(Date.UTC(2026, 5, 15));
    const hour = Date.UTC(2026, 5, 15, 12);
    expect([hour - 1, hour, hour + HOUR_MS - 1].map((t) => floorTo(t, HOUR_MS))).toEqual([hour - HOUR_MS, hour, hour]);
    expect([hour, hour + 1].map((t) => ceilTo(t, HOUR_MS))).toEqual([hour, hour + HOUR_MS]);
  });

  test("contain every time, before 1970 too", () => {
    fc.assert(
      fc.property(time, length, (t, l) => {
        const floor = floorTo(t, l);
        const ceil = ceilTo(t, l);
        expect(Math.abs(floor % l) + Math.abs(ceil % l)).toBe(0);
        expect(floor <= t && t < floor + l).toBe(true);
        expect(ceil - l < t && t <= ceil).toBe(true);
      }),
    );
  });

  test("of grouped summaries are an hour and a day long", () => {
    expect(windowLength("hour")).toBe(3_600_000);
    expect(windowLength("day")).toBe(86_400_000);
  });
});

describe("the range of a summary", () => {
  const DAY = 1_738_454_400;

  test.each([
    ["none", DAY + 17, 5_388],
    ["hour", DAY, 3_600],
    ["day", DAY, 86_400],
  ] as const)("grouped by %s is given in seconds and held in milliseconds", (grouping, start, length) => {
    const range = { start: start * 1_000, end: (start + length) * 1_000 };
    expect(resultOf(summaryRange(start, start + length, grouping))).toEqual(range);
  });

  test.each([
    ["hour", DAY + 3_600 - 60, DAY],
    ["hour", DAY + 3_600 + 60, DAY + 3_600],
    ["day", 1_738_494_596, DAY],
    ["day", DAY + 86_400 - 3_600, DAY],
    ["day", -3_600, -86_400],
  ] as const)("grouped by %s cannot begin or end at %d; the error expects %d", (grouping, seconds, expectedSeconds) => {
    const error = { reason: "misaligned_time", seconds, expectedSeconds, grouping };
    const [beginning, end] = [
      summaryRange(seconds, DAY + 10 * 86_400, grouping),
      summaryRange(-864_000, seconds, grouping),
    ];
    expect(errorOf(beginning)).toEqual({ ...error, param: "start_time" });
    expect(errorOf(end)).toEqual({ ...error, param: "end_time" });
  });

  test("that begins and ends askew is told of its beginning first, and of its alignment before its order", () => {
    expect(errorOf(summaryRange(DAY + 2, DAY + 1, "hour"))).toMatchObject({ param: "start_time" });
    expect(errorOf(summaryRange(DAY, DAY - 1, "hour"))).toMatchObject({ reason: "misaligned_time", param: "end_time" });
  });

  test("cannot be empty or backwards", () => {
    for (const grouping of ["none", "hour", "day"] as const) {
      for (const end of [DAY, DAY - 86_400]) {
        expect(errorOf(summaryRange(DAY, end, grouping))).toMatchObject({ reason: "invalid_field", param: "end_time" });
      }
    }
  });
});

describe("a range that is cut where quarter hours begin", () => {
  const covers = ({ start, end }: TimeRange, t: number): boolean => start <= t && t < end;
  const at = (hour: number, minute: number) => Date.UTC(2026, 5, 15, hour, minute);

  test("consists of its whole quarter hours and of what is left at either end", () => {
    expect(splitAtQuarterHours({ start: at(10, 20), end: at(14, 40) })).toEqual({
      whole: { start: at(10, 30), end: at(14, 30) },
      edges: [
        { start: at(10, 20), end: at(10, 30) },
        { start: at(14, 30), end: at(14, 40) },
      ],
    });
  });

  test("has no edge where it begins or ends with one, so that events are not read for nothing", () => {
    const whole = { start: at(10, 15), end: at(14, 45) };
    expect(splitAtQuarterHours(whole)).toEqual({ whole, edges: [] });
    expect(splitAtQuarterHours({ ...whole, end: at(14, 46) }).edges).toEqual([{ start: at(14, 45), end: at(14, 46) }]);
  });

  test("is covered exactly once at every instant, and by sums wherever a whole quarter hour lies in it", () => {
    const minutes = fc.integer({ min: 0, max: 5 * 24 * 60 });
    const range = fc.oneof(
      fc.tuple(time, time),
      fc.tuple(time, minutes).map(([t, n]) => {
        const start = floorTo(t, MINUTE_MS);
        return [start, start + n * MINUTE_MS] as const;
      }),
    );
    fc.assert(
      fc.property(range, fc.array(fc.tuple(time, fc.double({ min: 0, max: 1, noNaN: true }))), ([a, b], samples) => {
        const all = { start: Math.min(a, b), end: Math.max(a, b) };
        const { whole, edges } = splitAtQuarterHours(all);
        for (const { start, end } of edges) expect(start).toBeLessThan(end);
        expect(whole.start).toBeLessThanOrEqual(whole.end);
        expect(Math.abs((whole.end - whole.start) % QUARTER_HOUR_MS)).toBe(0);
        if (whole.start < whole.end) expect(Math.abs(whole.start % QUARTER_HOUR_MS)).toBe(0);

        const parts = [...edges, whole];
        const inside = samples.map(([, share]) => Math.floor(all.start + share * (all.end - all.start)));
        const borders = parts.flatMap(({ start, end }) => [start - 1, start, end - 1, end]);
        for (const t of [...inside, ...borders, ...samples.map(([t]) => t)]) {
          expect(parts.filter((part) => covers(part, t))).toHaveLength(covers(all, t) ? 1 : 0);
          const quarter = floorTo(t, QUARTER_HOUR_MS);
          expect(covers(whole, t)).toBe(all.start <= quarter && quarter + QUARTER_HOUR_MS <= all.end);
        }
      }),
      { numRuns: 500 },
    );
  });
});

test("a slice takes what is received in twelve hours of UTC, and is named by the first of them", () => {
  const slice = sliceOf(NOON);
  const { start, end } = receiptOf(slice);
  expect([start, end]).toEqual([Date.UTC(2026, 5, 15, 12), Date.UTC(2026, 5, 16)]);
  expect([start - 1, start, end - 1, end].map(sliceOf)).toEqual([slice - 12, slice, slice, slice + 12]);
});
