import fc from "fast-check";
import { expect, test } from "vitest";
import { databaseOf, databasesAt, databasesOf, longerOf, type Placement } from "../../src/domain/placement.ts";

const HISTORY: Placement = [
  { databases: 1, since: 0 },
  { databases: 4, since: 1_000 },
  { databases: 9, since: 5_000 },
];

const PAIRS = Array.from({ length: 5_000 }, (_, i) => [`mtr_${i % 7}`, `cus_${i}`] as const);

test("a pair's database never changes while their number is the same, since its events are read there", () => {
  const placed = (meter: string, customer: string) => [1, 2, 4, 64].map((n) => databaseOf(meter, customer, n));
  expect(placed("mtr_1", "cus_7")).toEqual([0, 1, 1, 41]);
  expect(placed("mtr_客户", "🙂")).toEqual([0, 0, 2, 52]);
});

test.each([1, 2, 3, 7, 63])("with one more than %i, as many pairs move as it should have, and only to it", (n) => {
  const moved = PAIRS.filter(
    ([meter, customer]) => databaseOf(meter, customer, n) !== databaseOf(meter, customer, n + 1),
  );
  for (const [meter, customer] of moved) expect(databaseOf(meter, customer, n + 1)).toBe(n);
  const expected = PAIRS.length / (n + 1);
  // Five standard deviations are no accident.
  expect(Math.abs(moved.length - expected)).toBeLessThan(5 * Math.sqrt(expected));
});

test("a pair is read where each of the numbers put it, once each", () => {
  fc.assert(
    fc.property(fc.string(), fc.string(), (meter, customer) => {
      const read = databasesOf(meter, customer, HISTORY);
      for (const { databases } of HISTORY) expect(read).toContain(databaseOf(meter, customer, databases));
      expect(read).toEqual([...new Set(read)].sort((a, b) => a - b));
      expect(read.length).toBeLessThanOrEqual(HISTORY.length);
    }),
  );
});

test("a number of databases takes effect when its time has come, and a longer history knows more", () => {
  expect([0, 999, 1_000, 4_999, 5_000].map((now) => databasesAt(HISTORY, now))).toEqual([1, 1, 4, 4, 9]);
  expect(longerOf(HISTORY, HISTORY.slice(0, 2))).toBe(HISTORY);
  expect(longerOf(HISTORY.slice(0, 1), HISTORY)).toBe(HISTORY);
});
