import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  digest,
  fingerprint,
  hashedTo,
  identifierOfKey,
  newEventId,
  newId,
  newIdentifier,
  orderAt,
  orderOf,
  placedAt,
  timeOrderedId,
  tokenOf,
  uniqueKey,
} from "../../src/domain/identifiers.ts";
import { LIMITS } from "../../src/domain/limits.ts";
import { isSorted, NOON } from "../support/builders.ts";

/** None of them twice. */
const expectDistinct = (made: readonly unknown[]) => expect(new Set(made)).toHaveLength(made.length);

/** Texts in parts that would read the same run together. */
const PARTS = [["ab"], ["a", "b"], ["", "ab"], ["ab", ""], ['a","b'], [], [""], ["", ""]];

describe("the identifier of an event that came without one", () => {
  test("is the same for every attempt with the same Idempotency-Key, also by another version", () => {
    expect(identifierOfKey(false, "key-1")).toBe("em_fd_rKbZ7k3LCUnT_");
    expect(identifierOfKey(true, "key-1")).toBe("em_yVj6fIygQiQfcL3Q");
  });

  test("is another one for another key or mode, and a new one each time when there is no key", () => {
    expectDistinct(["key-1", "key-2", ""].flatMap((key) => [identifierOfKey(false, key), identifierOfKey(true, key)]));
    expectDistinct(Array.from({ length: 10_000 }, newIdentifier));
  });

  test("is one that a caller could have chosen too", () => {
    for (const identifier of [identifierOfKey(true, "k".repeat(255)), newIdentifier()]) {
      expect(identifier).toMatch(/^em_[A-Za-z0-9_-]+$/);
      expect(identifier.length).toBeLessThanOrEqual(LIMITS.identifierLength);
    }
  });
});

describe("ids", () => {
  test("are never made twice", () => {
    expectDistinct(Array.from({ length: 100_000 }, newId));
  });

  test("that are ordered by time sort as text, from 1970 to the year 5000", () => {
    const time = fc.integer({ min: 0, max: Date.UTC(5000, 0) });
    fc.assert(
      fc.property(time, time, (a, b) => {
        fc.pre(a !== b);
        expect(timeOrderedId("mtr_", a) < timeOrderedId("mtr_", b)).toBe(a < b);
      }),
    );
    const powers = Array.from({ length: 9 }, (_, i) => 36 ** i).flatMap((power) => [power - 1, power]);
    expect(isSorted(powers.slice(1).map((time) => timeOrderedId("", time)))).toBe(true);
  });

  test("of the same millisecond differ, have one length and keep their prefix", () => {
    const made = Array.from({ length: 1_000 }, () => timeOrderedId("mtr_test_", NOON));
    expectDistinct(made);
    for (const id of made) expect(id).toMatch(/^mtr_test_[0-9a-z]{9}[0-9a-f]{16}$/);
  });
});

describe("a fingerprint", () => {
  test("is the same for the same parts, and parts do not run into each other", () => {
    expect(fingerprint("a", "b")).toMatch(/^[0-9a-f]{16}$/);
    // Logs remember it for a day, so it never changes.
    expect(fingerprint("a", "b")).toBe("61c8a18bec0a9975");
    expectDistinct(PARTS.map((parts) => fingerprint(...parts)));
  });

  test("differs between a hundred thousand reports that differ in a digit", () => {
    const made = Array.from({ length: 100_000 }, (_, i) =>
      fingerprint("post /v2/billing/meter_events", "tokens", `event-${i}`, "", "value", "25"),
    );
    expectDistinct(made);
    // Neither half alone carries it: of 32 bits, birthdays leave about one pair.
    for (const half of [0, 8]) expect(new Set(made.map((m) => m.slice(half, half + 8))).size).toBeGreaterThan(99_980);
  });
});

test("a digest has 16 URL-safe characters and knows where a part ends", () => {
  expect(digest("a", "b")).toMatch(/^[A-Za-z0-9_-]{16}$/);
  expectDistinct(PARTS.map((parts) => digest(...parts)));
});

test("what is unique for 24 hours is an identifier within its mode: test and live never meet", () => {
  const identifier = fc.oneof(fc.string(), fc.constantFrom("live:x", "test:x", ":", ""));
  fc.assert(
    fc.property(identifier, identifier, (a, b) => {
      expect(uniqueKey(true, a)).not.toBe(uniqueKey(false, b));
      expect(uniqueKey(true, a) === uniqueKey(true, b)).toBe(a === b);
    }),
  );
});

describe("the shard of a key", () => {
  test("never changes, since an identifier is looked for where it was put", () => {
    const shards = (key: string) => [1, 4, 7, 16, 1_000].map((count) => hashedTo(key, count));
    expect(shards("")).toEqual([0, 1, 3, 9, 257]);
    expect(shards("test:idmp_1")).toEqual([0, 0, 4, 0, 104]);
    expect(shards("live:em_0123456789abcdef")).toEqual([0, 3, 5, 11, 43]);
    expect(shards("live:客户🙂")).toEqual([0, 3, 6, 11, 355]);
  });

  test("is one of the shards, for any key", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), fc.integer({ min: 1, max: 1_000 }), (key, shards) => {
        const shard = hashedTo(key, shards);
        expect(Number.isInteger(shard) && shard >= 0 && shard < shards).toBe(true);
        expect(hashedTo(key, shards)).toBe(shard);
      }),
    );
  });

  test.each([
    ["counted identifiers", (i: number) => `live:${i}`],
    ["counted identifiers of one length", (i: number) => `test:event-${String(i).padStart(8, "0")}`],
    ["identifiers that end alike", (i: number) => `live:${i}-cus_1-tokens`],
    ["identifiers of the service", (i: number) => uniqueKey(true, identifierOfKey(true, `key-${i}`))],
    ["times", (i: number) => `live:${NOON + i * 1_000}`],
  ])("is spread evenly over %s", (_, key) => {
    const KEYS = 20_000;
    const keys = Array.from({ length: KEYS }, (_, i) => key(i));
    for (const shards of [2, 3, 4, 7, 16, 64, 100]) {
      const counts = new Array<number>(shards).fill(0);
      for (const text of keys) {
        const shard = hashedTo(text, shards);
        counts[shard] = (counts[shard] ?? 0) + 1;
      }
      const expected = KEYS / shards;
      const chiSquare = counts.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
      // Its mean is the degrees of freedom; six standard deviations above is no accident.
      const freedom = shards - 1;
      expect(chiSquare, `${shards} shards: ${counts.slice(0, 16)}`).toBeLessThan(freedom + 6 * Math.sqrt(2 * freedom));
    }
  });
});

describe("an event's id", () => {
  test("sorts as it was made, within a millisecond and when the clock goes back", () => {
    const times = [NOON, NOON, NOON - 5_000, ...Array.from({ length: 3_000 }, () => NOON), NOON + 60_000];
    expect(isSorted(times.map((time) => newEventId(time)))).toBe(true);
  });

  test("begins with its time, so that isolates agree on order as far as their clocks do", () => {
    const later = Date.UTC(2100, 0);
    expect(orderOf(newEventId(later))).toBe(orderAt(later));
  });

  test("keeps its token at another place", () => {
    const id = newEventId(NOON);
    const moved = placedAt(orderAt(NOON) + 7, id);
    expect(orderOf(moved)).toBe(orderAt(NOON) + 7);
    expect(tokenOf(moved)).toBe(tokenOf(id));
  });

  test("ends with a token that no other has", () => {
    expectDistinct(Array.from({ length: 100_000 }, () => tokenOf(newEventId(NOON))));
  });
});
