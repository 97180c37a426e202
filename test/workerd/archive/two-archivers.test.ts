// Two archivers of one database, each held at any of its calls while the other goes on, the lease of the one run out
// meanwhile; calls fail, or their answers are lost. Whatever their turns: each event is in one file.
import { AsyncLocalStorage } from "node:async_hooks";
import fc from "fast-check";
import { afterEach, beforeAll, expect, inject, it, vi } from "vitest";
import type { SliceState } from "../../../src/aggregate/sql/slices.ts";
import { D1 } from "../hostile-d1.ts";
import { ArchiveCalls, type Meeting } from "./calls.ts";
import { LEASE_MS, type Meters, OLD, RUNS, SliceStory, someMeters, stateNow } from "./slice.ts";
import { archive } from "./support.ts";

let meters: Meters;

beforeAll(async () => {
  meters = await someMeters();
});

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

const FATES: readonly (keyof typeof D1)[] = [...Array(18).fill("works"), "isAway", "losesItsAnswer"];

const drama = fc.record({
  state: fc.constantFrom<SliceState>("open", "sealed", "exported", "checked"),
  isOld: fc.boolean(),
  /** After how many calls each is held, in turn, and whether the lease of the other runs out first. */
  turns: fc.array(fc.record({ calls: fc.integer({ min: 1, max: 60 }), isLate: fc.boolean() }), {
    minLength: 2,
    maxLength: 14,
    size: "max",
  }),
  fates: fc.array(fc.constantFrom(...FATES), { minLength: 1, maxLength: 40, size: "max" }),
});

/** An archiver that makes so many calls and is held then. */
class Held {
  /** Calls that it may make. */
  #allowed = 0;
  readonly #waiting: (() => void)[] = [];
  #isHeld = Promise.withResolvers<void>();
  #run: Promise<unknown> | undefined;
  readonly #archivers: AsyncLocalStorage<Held>;

  constructor(archivers: AsyncLocalStorage<Held>) {
    this.#archivers = archivers;
  }

  /** Goes on until it has made so many calls more, or is done. */
  async goOn(calls: number): Promise<void> {
    this.#isHeld = Promise.withResolvers();
    this.#allowed = calls;
    while (this.#allowed > 0 && this.#waiting.length > 0) {
      this.#allowed--;
      this.#waiting.shift()?.();
    }
    // Of calls at once, some are held still.
    if (this.#waiting.length > 0) return;
    this.#run ??= this.#archivers
      .run(this, () => archive())
      .catch(() => {})
      .finally(() => {
        this.#run = undefined;
      });
    await Promise.race([this.#run, this.#isHeld.promise]);
  }

  async mayCall(): Promise<void> {
    if (this.#allowed > 0) {
      this.#allowed--;
      return;
    }
    this.#isHeld.resolve();
    await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }
}

it(
  "two archivers at once write each event into one file, in random turns",
  async () => {
    console.log(`two archivers: seed ${inject("seed")}, ${inject("archiveRuns")} runs`);
    const property = fc.asyncProperty(drama, async ({ state, isOld, turns, fates }) => {
      const story = await SliceStory.begin(meters, state);
      if (isOld) vi.setSystemTime(OLD);
      const calls = new ArchiveCalls();
      const archivers = new AsyncLocalStorage<Held>();
      const both = [new Held(archivers), new Held(archivers)];
      let made = 0;
      const meeting: Meeting = async (call) => {
        await archivers.getStore()?.mayCall();
        return D1[fates[made++ % fates.length] ?? "works"](call);
      };
      await calls.meeting(meeting, async () => {
        for (const [turn, { calls, isLate }] of turns.entries()) {
          if (isLate) vi.setSystemTime(Date.now() + LEASE_MS);
          await both[turn % 2]?.goOn(calls);
        }
        await Promise.all(both.map((one) => one.goOn(Number.POSITIVE_INFINITY)));
      });
      vi.setSystemTime(OLD);
      for (let runs = 0; (await stateNow()) !== "archived"; runs++) {
        expect(runs).toBeLessThan(RUNS);
        vi.setSystemTime(Date.now() + LEASE_MS);
        await archive();
      }
      await story.check();
    });
    await fc.assert(
      property.afterEach(() => void vi.restoreAllMocks()),
      { seed: inject("seed"), numRuns: inject("archiveRuns") },
    );
  },
  120_000 + inject("archiveRuns") * 2_000,
);
