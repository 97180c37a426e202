import fc from "fast-check";
import { expect, test } from "vitest";
import { ancestorsOf, longerShards, mayFollow, ownerOf } from "../../src/domain/shards.ts";

/** Histories of one to four numbers, each a multiple of the one before. */
const shards = fc
  .tuple(fc.integer({ min: 1, max: 6 }), fc.array(fc.integer({ min: 2, max: 4 }), { maxLength: 3 }))
  .map(([first, factors]) => [
    first,
    ...factors.map((_, i) => factors.slice(0, i + 1).reduce((product, factor) => product * factor, first)),
  ]);

test("a key's shard was its own before, or is one of its ancestors", () => {
  fc.assert(
    fc.property(shards, fc.string(), (history, key) => {
      const owner = ownerOf(key, history);
      for (const [index] of history.entries()) {
        const before = ownerOf(key, history.slice(0, index + 1));
        expect(before === owner || ancestorsOf(owner, history).includes(before)).toBe(true);
      }
    }),
  );
});

test("ancestors are the shards of each earlier number, the latest first, each once", () => {
  expect(ancestorsOf(21, [4, 16, 32])).toEqual([5, 1]);
  expect(ancestorsOf(17, [4, 16, 32])).toEqual([1]);
  expect(ancestorsOf(5, [4, 16, 32])).toEqual([1]);
  expect(ancestorsOf(3, [4, 16, 32])).toEqual([]);
  expect(ancestorsOf(3, [4])).toEqual([]);
});

test("the history that knows more shards is the longer one, and an empty one knows nothing", () => {
  expect(longerShards([4], [4, 8])).toEqual([4, 8]);
  expect(longerShards([4, 8], [4])).toEqual([4, 8]);
  expect(longerShards([], [4])).toEqual([4]);
});

test.each([
  [4, true],
  [8, true],
  [12, true],
  [6, false],
  [2, false],
  [0, false],
])("%i shards after 2 and 4: %s", (count, may) => {
  expect(mayFollow(count, [2, 4])).toBe(may);
});
