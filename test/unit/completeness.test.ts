// Up to which moment databases are complete, and waits for it, on a clock that the test turns and with shards that say
// what the test has them say.
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Placement } from "../../src/domain/placement.ts";
import { allPlaces } from "../../src/domain/placement.ts";
import { Completeness, type Sources } from "../../src/log/completeness.ts";
import type { LogProgress } from "../../src/log/entries.ts";

const NOW = Date.UTC(2040, 0);
const TOLERANCE = 1_000;

beforeEach(() => {
  vi.spyOn(console, "error").mockImplementation(() => {});
});

afterEach(() => {
  vi.restoreAllMocks();
});

/** A log of some shards and four databases; a shard without a `says` hangs up. */
function aLog(shards = 1) {
  const clock = { time: NOW };
  const completeness = new Completeness({
    now: () => clock.time,
    wait: async (ms) => {
      clock.time += ms;
      world.whileWaiting?.();
    },
  });
  const world = {
    clock,
    placement: [{ databases: 4, since: 0 }] as Placement,
    /** What the control database has recorded. */
    shards: [shards] as readonly number[],
    says: new Map<string, Partial<LogProgress> | undefined>(),
    letters: new Map<number, number>(),
    asked: [] as string[],
    /** What happens while a request waits. */
    whileWaiting: undefined as (() => void) | undefined,
    through: (...places: number[]) => completeness.through(sources, () => places),
    isIncluded: (seconds: number, ...places: number[]) =>
      completeness.isIncluded(sources, () => places, clock.time + seconds * 1_000),
  };
  for (let place = 0; place < 16; place++) world.says.set(`live-${place}`, {});
  const sources: Sources = {
    context: async () => ({ livemode: true, placement: world.placement, shards: world.shards }),
    ask: async (shard, _, isAwaited) => {
      world.asked.push(`${shard}${isAwaited ? "!" : ""}`);
      const says = world.says.get(shard);
      if (says === undefined) throw new Error("it does not answer");
      return { now: clock.time, newest: 0, oldestOf: {}, shards: [], ...says };
    },
    oldestLetter: async (place) => world.letters.get(place),
  };
  return world;
}

describe("the moment", () => {
  it.each([
    ["the clock's, less what clocks may differ, when nothing waits", {}, {}, NOW - TOLERANCE],
    ["the receipt of what waits for the database", { 1: NOW - 5_000 }, {}, NOW - 5_000],
    ["never later than the clock's", { 1: NOW - 1 }, {}, NOW - TOLERANCE],
    ["as late when another database is delayed", { 0: NOW - 5_000, 2: 0 }, {}, NOW - TOLERANCE],
    ["the receipt of a dead letter", { 1: NOW - 5_000 }, { 1: NOW - 60_000 }, NOW - 60_000],
    ["as late when a dead letter is in another database", {}, { 0: NOW - 60_000 }, NOW - TOLERANCE],
  ])("is %s", async (_, oldestOf, letters, moment) => {
    const log = aLog(2);
    log.says.set("live-1", { oldestOf });
    for (const [place, received] of Object.entries(letters)) log.letters.set(Number(place), received as number);
    expect(await log.through(1)).toBe(moment);
  });

  it("is the earliest of all shards, by their own clocks, and of all databases that are read", async () => {
    const log = aLog(3);
    log.says.set("live-2", { now: NOW - 2_000 });
    expect(await log.through(0)).toBe(NOW - 2_000 - TOLERANCE);
    log.clock.time += 1_000;
    log.says.set("live-0", { oldestOf: { 3: NOW - 9_000 } });
    expect(await log.through(0)).toBe(NOW - 2_000 - TOLERANCE);
    expect(await log.through(0, 3)).toBe(NOW - 9_000);
  });

  it("is asked for once a second, for all databases", async () => {
    const log = aLog(2);
    const first = await log.through(0);
    log.clock.time += 999;
    expect(await log.through(0)).toBe(first);
    expect(await log.through(1)).toBe(first);
    expect(log.asked).toEqual(["live-0", "live-1"]);
    log.clock.time += 1;
    expect(await log.through(0)).toBe(NOW + 1_000 - TOLERANCE);
    // A clock that went back makes nothing last longer.
    log.clock.time = NOW - 60_000;
    expect(await log.through(0)).toBe(NOW - 60_000 - TOLERANCE);
  });

  it("stays where it was while a shard does not answer, and is unknown while it never has", async () => {
    const log = aLog(2);
    log.says.set("live-1", undefined);
    expect(await log.through(0)).toBeUndefined();
    log.clock.time += 10_000;
    log.says.set("live-1", { oldestOf: { 0: NOW - 7_000 } });
    expect(await log.through(0)).toBe(NOW - 7_000);
    log.clock.time += 60_000;
    log.says.set("live-1", undefined);
    expect(await log.through(0)).toBe(NOW - 7_000);
    expect(await log.through(1)).toBe(NOW + 10_000 - TOLERANCE);
  });

  it("has a shard that did not answer asked again after ten seconds, so that reads do not wait for it in turn", async () => {
    const log = aLog(2);
    await log.through(0);
    log.says.set("live-1", undefined);
    log.asked = [];
    for (let second = 1; second <= 12; second++) {
      log.clock.time += 1_000;
      await log.through(0);
    }
    expect(log.asked.filter((shard) => shard === "live-1")).toHaveLength(2);
    expect(log.asked.filter((shard) => shard === "live-0")).toHaveLength(12);
    // A request that waits asks, and what it is told is known to all.
    log.says.set("live-1", {});
    expect(await log.isIncluded(0, 0)).toBe(true);
    log.clock.time += 1_000;
    expect(await log.through(0)).toBe(log.clock.time - TOLERANCE);
  });

  it.each(["context", "oldestLetter"] as const)("is unknown when %s is not answered", async (source) => {
    const log = aLog();
    const sources: Sources = {
      context: async () => ({ livemode: true, placement: log.placement, shards: [1] }),
      ask: async () => ({ now: NOW, newest: 0, oldestOf: {}, shards: [] }),
      oldestLetter: async () => undefined,
      [source]: async () => {
        throw new Error("D1 is away");
      },
    };
    expect(await new Completeness().through(sources, allPlaces)).toBeUndefined();
  });

  it("counts the shards that a log has grown to, also those that only a shard knows of", async () => {
    const log = aLog(2);
    log.says.set("live-1", { shards: [2, 4] });
    log.says.set("live-3", { shards: [2, 4, 8], oldestOf: { 0: NOW - 4_000 } });
    log.says.set("live-7", { oldestOf: { 0: NOW - 8_000 } });
    expect(await log.through(0)).toBe(NOW - 8_000);
    // One that does not answer any more is no reason to leave it out.
    log.clock.time += 1_000;
    log.says.set("live-7", undefined);
    expect(await log.through(0)).toBe(NOW - 8_000);
    const other = aLog(2);
    other.says.set("live-0", { shards: [2, 4] });
    other.says.set("live-3", undefined);
    expect(await other.through(0)).toBeUndefined();
  });
});

describe("a wait", () => {
  it("ends at once when all is in, and has shards send at once", async () => {
    const log = aLog(2);
    expect(await log.isIncluded(10, 0)).toBe(true);
    expect(log.asked).toEqual(["live-0!", "live-1!"]);
    expect(log.clock.time).toBe(NOW);
  });

  it("ends when each shard has confirmed what it had when the request came, whatever it has taken since", async () => {
    const log = aLog(2);
    log.says.set("live-0", { newest: NOW - 5, oldestOf: { 0: NOW - 10, 1: NOW - 10 } });
    log.says.set("live-1", { newest: NOW - 3, oldestOf: { 0: NOW - 3 } });
    log.whileWaiting = () => {
      if (log.clock.time < NOW + 300) return;
      // What waits now came later.
      log.says.set("live-0", { newest: NOW + 200, oldestOf: { 0: NOW - 4, 1: NOW - 10 } });
      log.says.set("live-1", { newest: NOW + 200, oldestOf: { 0: NOW - 2 } });
    };
    expect(await log.isIncluded(10, 0)).toBe(true);
    expect(log.clock.time).toBeGreaterThanOrEqual(NOW + 300);
    expect(log.clock.time).toBeLessThan(NOW + 600);
    expect(log.asked.filter((call) => call === "live-0!")).toHaveLength(1);
  });

  it.each([
    ["entries wait", "live-0", { newest: NOW, oldestOf: { 0: NOW } }, undefined],
    ["a shard does not answer", "live-1", undefined, undefined],
    ["a dead letter waits", "live-0", { newest: NOW }, NOW - 60_000],
  ])("ends at its deadline while %s, after not too many calls", async (_, shard, says, letter) => {
    const log = aLog(2);
    log.says.set(shard, says);
    if (letter !== undefined) log.letters.set(0, letter);
    expect(await log.isIncluded(3, 0)).toBe(false);
    expect(log.clock.time).toBe(NOW + 3_000);
    expect(log.asked.length / 2).toBeLessThan(20);
    expect(await log.isIncluded(0, 0)).toBe(false);
    expect(log.clock.time).toBe(NOW + 3_000);
  });

  it("ends when the dead letter is gone, or the shard is back", async () => {
    const log = aLog(2);
    log.says.set("live-0", { newest: NOW });
    log.says.set("live-1", undefined);
    log.letters.set(0, NOW - 60_000);
    log.whileWaiting = () => {
      if (log.clock.time >= NOW + 500) log.letters.delete(0);
      if (log.clock.time >= NOW + 1_000) log.says.set("live-1", {});
    };
    expect(await log.isIncluded(10, 0)).toBe(true);
    expect(log.clock.time).toBeGreaterThanOrEqual(NOW + 1_000);
  });

  it("waits for what was taken back meanwhile, and for no other database or later letter", async () => {
    const log = aLog();
    log.says.set("live-0", { newest: NOW - 5, oldestOf: { 0: NOW - 5, 3: 1 } });
    log.letters.set(0, NOW + 5);
    log.letters.set(3, 1);
    log.whileWaiting = () => {
      if (log.clock.time >= NOW + 100) log.says.set("live-0", { newest: NOW - 5, oldestOf: { 0: NOW - 90_000 } });
      if (log.clock.time >= NOW + 2_000) log.says.set("live-0", { newest: NOW - 5, oldestOf: { 3: 1 } });
    };
    expect(await log.isIncluded(10, 0)).toBe(true);
    expect(log.clock.time).toBeGreaterThanOrEqual(NOW + 2_000);
  });

  it("waits for the shards that a log grows to meanwhile", async () => {
    const log = aLog(1);
    log.says.set("live-0", { newest: NOW, oldestOf: { 0: NOW } });
    log.says.set("live-1", { newest: NOW, oldestOf: { 0: NOW } });
    log.whileWaiting = () => {
      log.says.set("live-0", { shards: [1, 2] });
      if (log.clock.time >= NOW + 1_500) log.says.set("live-1", {});
    };
    expect(await log.isIncluded(10, 0)).toBe(true);
    expect(log.clock.time).toBeGreaterThanOrEqual(NOW + 1_500);
  });
});
