// When a shard of the log sends: the rule alone, on a clock of numbers.
import { describe, expect, test } from "vitest";
import { intervalAt, nextSend, Throttle } from "../../src/log/throttle.ts";

const SHORTEST = 200;
const FULL = 1_000;

/** A multiple of every interval (ms). */
const TICK = 1_000_000 * SHORTEST * 4;

test.each([
  ["a quiet shard", 0, 200],
  ["the last of the quiet ones", 49, 200],
  ["a busy one", 50, 400],
  ["at 500 events a second on four", 125, 400],
  ["the last of the busy ones", 249, 400],
  ["bulk", 250, 800],
  ["more of it", 100_000, 800],
])("the interval of %s", (_, entriesPerSecond, interval) => {
  expect(intervalAt(entriesPerSecond, SHORTEST)).toBe(interval);
});

test.each([
  ["an idle shard sends at once", 0, 123, 123],
  ["one that has just sent waits for the next tick", 3, 10, 400],
  ["also when the timer of its tick was late", 190, 191, 400],
  ["one that sent between two ticks waits for at least half an interval", 210, 220, 800],
  ["and at most for one and a half", 201, 201, 800],
  ["past that tick it has been idle", 3, 401, 401],
  ["at the tick it sends", 3, 400, 400],
  ["a clock that went back does not make it wait", 3_600_000, 10, 10],
])("%s", (_, sentAt, now, next) => {
  const [from, at] = sentAt === 0 ? [0, TICK + now] : [TICK + sentAt, TICK + now];
  expect(nextSend(from, 400, at)).toBe(TICK + next);
});

test("shards of different intervals send at the same ticks", () => {
  for (const interval of [200, 400]) {
    let now = TICK + 17;
    const sends = Array.from({ length: 8 }, () => {
      now = nextSend(now, interval, now);
      return now;
    });
    expect(sends).toContain(TICK + 800);
  }
});

describe("a throttle", () => {
  /** Takes entries, so many a second, and sends when it may; gives how long it waited each time (ms). */
  function waits(throttle: Throttle, from: number, perSecond: number, sends: number): number[] {
    let now = from;
    return Array.from({ length: sends }, () => {
      const began = now;
      do {
        throttle.took(perSecond / 100, 1);
        now += 10;
      } while (throttle.next(now) > now);
      throttle.sends(now);
      return now - began;
    });
  }

  test("sends the first entry at once, and a second one at the next tick", () => {
    const throttle = new Throttle(SHORTEST, FULL);
    throttle.took(1, 1);
    expect(throttle.next(TICK)).toBe(TICK);
    throttle.sends(TICK);
    throttle.took(1, 1);
    expect(throttle.next(TICK + 1)).toBe(TICK + 200);
    expect(throttle.next(TICK + 5_000)).toBe(TICK + 5_000);
  });

  test.each([
    [20, 200],
    [125, 400],
    [2_000, 800],
  ])("of a shard that takes %i a second comes to wait %i ms", (perSecond, interval) => {
    const throttle = new Throttle(SHORTEST, Number.POSITIVE_INFINITY);
    expect(waits(throttle, TICK, perSecond, 8).slice(-4)).toEqual([interval, interval, interval, interval]);
  });

  test("is back to the shortest interval once it is quiet", () => {
    const throttle = new Throttle(SHORTEST, Number.POSITIVE_INFINITY);
    waits(throttle, TICK, 2_000, 4);
    const later = TICK + 60_000;
    throttle.took(1, 1);
    expect(throttle.next(later)).toBe(later);
    throttle.sends(later);
    throttle.took(1, 1);
    expect(throttle.next(later + 1)).toBe(later + 200);
  });

  test("does not keep a full message waiting for the long interval", () => {
    const throttle = new Throttle(SHORTEST, FULL);
    const now = TICK;
    for (const at of [now, now + 800]) {
      throttle.took(2_000, 1);
      throttle.sends(at);
    }
    throttle.took(1, FULL - 1);
    expect(throttle.next(now + 801)).toBe(now + 1_600);
    throttle.took(1, 1);
    expect(throttle.next(now + 801)).toBe(now + 1_000);
  });
});
