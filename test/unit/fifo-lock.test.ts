import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { FifoLock } from "../../src/ingest/fifo-lock.ts";

const LEASE = 10_000;
const FOREVER = 3_600_000;

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

/** Asks for a turn. `turn` is "waiting" until the lock answers. */
function ask(lock: FifoLock, waitMs = 0) {
  const asked: { turn: number | undefined | "waiting" } = { turn: "waiting" };
  void Promise.resolve(lock.acquire(waitMs)).then((turn) => {
    asked.turn = turn;
  });
  return asked;
}

const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms);

/** Asks for a turn that must be had at once. */
async function take(lock: FifoLock): Promise<number> {
  const turn = await lock.acquire(0);
  if (turn === undefined) throw new Error("the lock is held");
  return turn;
}

describe("a lock", () => {
  test("gives one turn at a time, and says no at once to who does not wait", async () => {
    const lock = new FifoLock();
    const turn = await take(lock);
    expect(await lock.acquire(0)).toBeUndefined();
    expect(await lock.acquire(0)).toBeUndefined();
    lock.release(turn);
    expect(await lock.acquire(0)).toBeDefined();
    expect(await lock.acquire(0)).toBeUndefined();
  });

  test("never gives the same turn twice", async () => {
    const lock = new FifoLock();
    const turns = new Set<number>();
    for (let i = 0; i < 100; i++) {
      const turn = await take(lock);
      turns.add(turn);
      lock.release(turn);
    }
    expect(turns).toHaveLength(100);
  });

  test("leaves nothing running once it is released", async () => {
    const lock = new FifoLock();
    const turn = await take(lock);
    const waiting = ask(lock, 500);
    lock.release(turn);
    await pass(0);
    if (typeof waiting.turn === "number") lock.release(waiting.turn);
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe("who waits for a lock", () => {
  test("has it as soon as it is released", async () => {
    const lock = new FifoLock();
    const turn = await take(lock);
    const waiting = ask(lock, 5_000);
    await pass(4_999);
    expect(waiting.turn).toBe("waiting");
    lock.release(turn);
    await pass(0);
    expect(waiting.turn).toEqual(expect.any(Number));
    expect(await lock.acquire(0)).toBeUndefined();
  });

  test("has it in the order of asking, one after the other", async () => {
    const lock = new FifoLock();
    let turn = await take(lock);
    const waiting = Array.from({ length: 5 }, () => ask(lock, FOREVER));
    for (const [i, asked] of waiting.entries()) {
      expect(waiting.slice(i).map((later) => later.turn)).toEqual(waiting.slice(i).map(() => "waiting"));
      lock.release(turn);
      await pass(10);
      if (typeof asked.turn !== "number") throw new Error(`the waiting one number ${i} has no turn`);
      turn = asked.turn;
    }
  });

  test("is not overtaken by who comes in the instant of a release", async () => {
    const lock = new FifoLock();
    const turn = await take(lock);
    const waiting = ask(lock, 5_000);
    lock.release(turn);
    const late = ask(lock, 5_000);
    await pass(0);
    expect(waiting.turn).toEqual(expect.any(Number));
    expect(late.turn).toBe("waiting");
  });

  test("hears no when the time to wait is over, and not before", async () => {
    const lock = new FifoLock();
    await take(lock);
    const waiting = ask(lock, 300);
    await pass(299);
    expect(waiting.turn).toBe("waiting");
    await pass(1);
    expect(waiting.turn).toBeUndefined();
  });

  test("and went away, is not given a turn that nobody would release", async () => {
    const lock = new FifoLock();
    const turn = await take(lock);
    const patient = [ask(lock, FOREVER), ask(lock, 100), ask(lock, FOREVER), ask(lock, 200), ask(lock, FOREVER)];
    await pass(200);
    expect(patient.map((asked) => asked.turn)).toEqual(["waiting", undefined, "waiting", undefined, "waiting"]);
    let held = turn;
    for (const i of [0, 2, 4]) {
      lock.release(held);
      await pass(0);
      const had = patient[i]?.turn;
      if (typeof had !== "number") throw new Error(`the waiting one number ${i} has no turn`);
      held = had;
    }
    lock.release(held);
    expect(await lock.acquire(0)).toBeDefined();
  });

  test("all gone, the lock is free after the release", async () => {
    const lock = new FifoLock();
    const turn = await take(lock);
    ask(lock, 100);
    await pass(100);
    lock.release(turn);
    expect(await lock.acquire(0)).toBeDefined();
  });
});

describe("a turn that is never released", () => {
  test("keeps others out for its lease, and not a millisecond longer", async () => {
    const lock = new FifoLock();
    await take(lock);
    await pass(LEASE - 1);
    expect(await lock.acquire(0)).toBeUndefined();
    await pass(1);
    expect(await lock.acquire(0)).toBeDefined();
    expect(await lock.acquire(0)).toBeUndefined();
  });

  test("has its lease from when it was given, not from when it was asked for", async () => {
    const lock = new FifoLock();
    const turn = await take(lock);
    ask(lock, 9_000);
    await pass(5_000);
    lock.release(turn);
    await pass(LEASE - 1);
    expect(await lock.acquire(0)).toBeUndefined();
    await pass(1);
    expect(await lock.acquire(0)).toBeDefined();
  });

  test("ends for who waits when its lease ends", async () => {
    const lock = new FifoLock();
    await take(lock);
    await pass(2_000);
    const waiting = ask(lock, 9_500);
    await pass(LEASE - 2_000);
    expect(waiting.turn).toEqual(expect.any(Number));
  });

  test("does not let who comes after its lease overtake who has waited", async () => {
    const lock = new FifoLock();
    await take(lock);
    await pass(2_000);
    const waiting = ask(lock, 9_500);
    await pass(LEASE - 2_000);
    const late = ask(lock, 9_500);
    await pass(0);
    expect([typeof waiting.turn, late.turn]).toEqual(["number", "waiting"]);
  });

  test("does not let the next turns go on for ever either", async () => {
    const lock = new FifoLock();
    await take(lock);
    const waiting = [ask(lock, FOREVER), ask(lock, FOREVER), ask(lock, FOREVER)];
    await pass(3 * LEASE);
    expect(waiting.map((asked) => typeof asked.turn)).toEqual(["number", "number", "number"]);
  });

  test("is waited for again after a waiter gave up and a newcomer took the lock at its end", async () => {
    const lock = new FifoLock();
    await take(lock);
    ask(lock, 100);
    await pass(200);
    // The lease is over, but its timer has not rung.
    vi.setSystemTime(Date.now() + LEASE - 200);
    expect(await lock.acquire(0)).toBeDefined();
    await pass(LEASE - 100);
    const waiting = ask(lock, 9_000);
    await pass(5_000);
    expect(waiting.turn).toEqual(expect.any(Number));
  });

  test("cannot end the turn of who came after it", async () => {
    const lock = new FifoLock();
    const expired = await take(lock);
    await pass(LEASE);
    const current = await take(lock);
    const waiting = ask(lock, 5_000);
    lock.release(expired);
    await pass(0);
    expect(waiting.turn).toBe("waiting");
    expect(await lock.acquire(0)).toBeUndefined();
    lock.release(current);
    await pass(0);
    expect(waiting.turn).toEqual(expect.any(Number));
  });
});

describe("a turn that is released twice", () => {
  test("ends once", async () => {
    const lock = new FifoLock();
    const turn = await take(lock);
    const first = ask(lock, 5_000);
    const second = ask(lock, 5_000);
    lock.release(turn);
    lock.release(turn);
    await pass(0);
    expect([typeof first.turn, second.turn]).toEqual(["number", "waiting"]);
    lock.release(turn);
    await pass(0);
    expect(second.turn).toBe("waiting");
  });

  test("does not free the lock for two", async () => {
    const lock = new FifoLock();
    const turn = await take(lock);
    lock.release(turn);
    lock.release(turn);
    expect(await lock.acquire(0)).toBeDefined();
    lock.release(turn);
    expect(await lock.acquire(0)).toBeUndefined();
  });
});

test("whatever callers do, no two turns are under way within a lease", async () => {
  const step = fc.oneof(
    fc.record({ do: fc.constant("ask" as const), wait: fc.constantFrom(0, 1, 300, 5_000, 10_000) }),
    fc.record({ do: fc.constant("release" as const), which: fc.nat(20) }),
    fc.record({ do: fc.constant("pass" as const), ms: fc.constantFrom(0, 1, 299, 5_000, 9_999, 10_000) }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      const lock = new FifoLock();
      const given: { turn: number; until: number }[] = [];
      const overlaps: number[] = [];
      for (const now of steps) {
        if (now.do === "ask") {
          void Promise.resolve(lock.acquire(now.wait)).then((turn) => {
            if (turn === undefined) return;
            if ((given.at(-1)?.until ?? 0) > Date.now()) overlaps.push(turn);
            given.push({ turn, until: Date.now() + LEASE });
          });
        } else if (now.do === "release") {
          const one = given[now.which % Math.max(1, given.length)];
          if (one !== undefined) {
            lock.release(one.turn);
            one.until = Math.min(one.until, Date.now());
          }
        }
        await pass(now.do === "pass" ? now.ms : 0);
      }
      expect(overlaps).toEqual([]);
      expect(given.map(({ turn }) => turn)).toEqual(given.map(({ turn }) => turn).sort((a, b) => a - b));
    }),
  );
});
