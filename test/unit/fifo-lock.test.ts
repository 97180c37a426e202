import fc from "fast-check";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { FifoLock } from "../../src/ingest/fifo-lock.ts";

const LEASE = 10_000;

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms);

/** What somebody hears who asks for a turn: its number, or nothing when the time to wait is over. */
type Turn = number | "waiting" | undefined;

/** Asks for a turn. */
function ask(lock: FifoLock, waitMs: number) {
  const asked: { turn: Turn } = { turn: "waiting" };
  void Promise.resolve(lock.acquire(waitMs)).then((turn) => {
    asked.turn = turn;
  });
  return asked;
}

/** What a lock should do: a list of all that asked, in their order. Times in ms. */
class Model {
  readonly asked: { readonly until: number; turn: Turn }[] = [];
  #turn = 0;
  #leaseEnd = Number.POSITIVE_INFINITY;

  get #waiting() {
    return this.asked.filter(({ turn }) => turn === "waiting");
  }

  get isHeld(): boolean {
    return this.#leaseEnd < Number.POSITIVE_INFINITY;
  }

  /** When the holder's lease, or somebody's time to wait, ends next. */
  get next(): number {
    return Math.min(this.#leaseEnd, ...this.#waiting.map(({ until }) => until));
  }

  ask(waitMs: number, now: number): void {
    this.asked.push({ until: now + waitMs, turn: waitMs === 0 && this.isHeld ? undefined : "waiting" });
    if (!this.isHeld) this.#giveTurn(now);
  }

  release(turn: number, now: number): void {
    if (turn === this.#turn) this.#giveTurn(now);
  }

  passTo(now: number): void {
    for (let at = this.next; at <= now; at = this.next) {
      if (at === this.#leaseEnd) this.#giveTurn(at);
      for (const asked of this.#waiting) if (asked.until === at) asked.turn = undefined;
    }
  }

  /** Ends the holder's turn, and begins that of who has waited longest. */
  #giveTurn(now: number): void {
    const [first] = this.#waiting;
    this.#leaseEnd = first === undefined ? Number.POSITIVE_INFINITY : now + LEASE;
    if (first !== undefined) first.turn = ++this.#turn;
  }
}

test("a lock is had in the order of asking, by one at a time, until it is released or its lease ends", async () => {
  const step = fc.oneof(
    fc.record({ do: fc.constant("ask" as const), wait: fc.constantFrom(0, 1_000, 5_000, 9_000, 3_600_000) }),
    // Whose turn ended before, or was released before, too.
    fc.record({ do: fc.constant("release" as const), turn: fc.nat(20) }),
    fc.record({ do: fc.constant("pass" as const), ms: fc.constantFrom(0, 500, 5_000, 10_000) }),
    fc.record({ do: fc.constant("pass to what ends next" as const) }),
  );
  const property = fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
    const [lock, model] = [new FifoLock(), new Model()];
    const asked: { turn: Turn }[] = [];
    const passAndCompare = async (ms: number) => {
      await pass(ms);
      model.passTo(Date.now());
      expect(asked.map(({ turn }) => turn)).toEqual(model.asked.map(({ turn }) => turn));
      if (model.isHeld) expect(lock.acquire(0)).toBeUndefined();
    };
    for (const [i, now] of steps.entries()) {
      if (now.do === "ask") {
        // No two of them, and no lease, end in the same millisecond.
        const wait = now.wait === 0 ? 0 : now.wait + i + 1;
        asked.push(ask(lock, wait));
        model.ask(wait, Date.now());
      } else if (now.do === "release") {
        lock.release(now.turn);
        model.release(now.turn, Date.now());
      } else if (now.do === "pass") {
        await passAndCompare(now.ms);
      } else if (model.next < Number.POSITIVE_INFINITY) {
        await passAndCompare(model.next - Date.now() - 1);
        await passAndCompare(1);
      }
    }
    await passAndCompare(0);
  });
  await fc.assert(property, { numRuns: 500 });
});

test("a lock that is released leaves nothing running", async () => {
  const lock = new FifoLock();
  const asked = [ask(lock, 0), ask(lock, 500), ask(lock, 500)];
  for (const one of asked) {
    await pass(0);
    lock.release(Number(one.turn));
  }
  expect(vi.getTimerCount()).toBe(0);
});

test("a lock whose lease is over, though its timer has not rung, goes to who waits, and else to who comes", async () => {
  const lock = new FifoLock();
  ask(lock, 0);
  ask(lock, 100);
  vi.setSystemTime(Date.now() + LEASE);
  expect(await lock.acquire(0)).toBeUndefined();
  await pass(200);
  expect(await lock.acquire(0)).toBeDefined();
  const waiting = ask(lock, LEASE + 1);
  await pass(LEASE);
  expect(waiting.turn).toEqual(expect.any(Number));
});
