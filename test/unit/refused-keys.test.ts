import { expect, test } from "vitest";
import { RefusedKeys } from "../../src/ingest/refused-keys.ts";
import { NOON } from "../support/builders.ts";

test("a refused key is known for ten seconds", () => {
  const keys = new RefusedKeys();
  keys.add("a", NOON);
  expect([0, 9_999, 10_000].map((ms) => keys.has("a", NOON + ms))).toEqual([true, true, false]);
  expect(keys.has("b", NOON)).toBe(false);
});

test("a key that is refused again is known for ten seconds more", () => {
  const keys = new RefusedKeys();
  keys.add("a", NOON);
  keys.add("a", NOON + 9_000);
  expect(keys.has("a", NOON + 15_000)).toBe(true);
});

test("no more than a thousand keys are remembered, the oldest being forgotten first", () => {
  const keys = new RefusedKeys();
  for (let i = 0; i <= 1_000; i++) keys.add(`key ${i}`, NOON);
  expect([0, 1, 1_000].map((i) => keys.has(`key ${i}`, NOON))).toEqual([false, true, true]);
});
