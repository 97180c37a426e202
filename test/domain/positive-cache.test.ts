// The cache's types lead to Cloudflare's.
/// <reference types="@cloudflare/workers-types" />
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type Load, PositiveCache } from "../../src/storage/positive-cache.ts";
import { NOON } from "../support/builders.ts";

const SECOND = 1_000;
const HOUR = 3_600 * SECOND;

beforeEach(() => {
  vi.useFakeTimers({ now: NOON });
});

afterEach(() => {
  vi.useRealTimers();
});

const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms);

/** A database of values that can be down (it answers with an error) or hang (it never answers). */
function setUp(values: Record<string, string> = {}) {
  const rows = new Map(Object.entries(values));
  const queries: string[][] = [];
  const background: Promise<unknown>[] = [];
  const database = { state: "up" as "up" | "down" | "hanging", latency: 0 };
  const load: Load<string> = async (keys) => {
    queries.push([...keys]);
    const { state, latency } = database;
    // What it says was true when it was asked, not when the answer arrives.
    const found = new Map([...rows].filter(([key]) => keys.includes(key)));
    if (state === "hanging") return new Promise(() => {});
    if (latency > 0) await new Promise((resolve) => setTimeout(resolve, latency));
    if (state === "down") throw new Error("the database is down");
    return found;
  };
  const cache = new PositiveCache<string>();
  const get = (key: string) =>
    cache.get(key, load, { waitUntil: (promise: Promise<unknown>) => void background.push(promise) });
  return { rows, queries, background, database, cache, get };
}

/** How a request ended, and after how long (ms); "hangs" when it did not end within a minute. */
async function timed(request: Promise<string | undefined>) {
  const begun = Date.now();
  const ended = request.then(
    (value) => ({ value, after: Date.now() - begun }),
    () => ({ value: "an error", after: Date.now() - begun }),
  );
  for (let waited = 0; waited < 60 * SECOND; waited += 100) {
    const outcome = await Promise.race([ended, pass(100).then(() => undefined)]);
    if (outcome !== undefined) return outcome;
  }
  return { value: "hangs", after: Number.POSITIVE_INFINITY };
}

describe("a value that the cache has", () => {
  test("is used without a query while it is fresh", async () => {
    const { get, queries, background } = setUp({ a: "1" });
    expect(await get("a")).toBe("1");
    for (let i = 0; i < 100; i++) {
      expect(await get("a")).toBe("1");
      await pass(50);
    }
    expect(queries).toEqual([["a"]]);
    expect(background).toEqual([]);
  });

  test("is looked up again in the background from 5 s on, while requests are served at once", async () => {
    const { get, rows, queries, background, database } = setUp({ a: "1" });
    await get("a");
    rows.set("a", "2");
    database.latency = 300;
    await pass(6 * SECOND);
    const begun = Date.now();
    expect(await get("a")).toBe("1");
    expect(Date.now()).toBe(begun);
    expect([queries.length, background.length]).toEqual([2, 1]);
    await pass(300);
    expect(await get("a")).toBe("2");
    expect(queries).toHaveLength(2);
  });

  test("is looked up together with all others, in one query", async () => {
    const { get, queries } = setUp({ a: "1", b: "2", c: "3" });
    for (const key of ["a", "b", "c"]) await get(key);
    await pass(6 * SECOND);
    for (const key of ["b", "a", "c"]) await get(key);
    expect(queries.slice(3).map((keys) => keys.sort())).toEqual([["a", "b", "c"]]);
  });

  test("costs a busy isolate a query every few seconds, not one per request", async () => {
    const { get, queries } = setUp({ a: "1" });
    for (let i = 0; i < 6_000; i++) {
      expect(await get("a")).toBe("1");
      await pass(10);
    }
    expect(queries.length).toBeGreaterThan(5);
    expect(queries.length).toBeLessThanOrEqual(13);
  });

  test("costs no second query while a slow one is under way", async () => {
    const { get, queries, database } = setUp({ a: "1" });
    await get("a");
    database.latency = 2 * SECOND;
    await pass(6 * SECOND);
    for (let i = 0; i < 100; i++) {
      await get("a");
      await pass(10);
    }
    expect(queries).toHaveLength(2);
  });

  test("that is 10 s old is asked for before it is used", async () => {
    const { get, rows } = setUp({ a: "1" });
    await get("a");
    rows.set("a", "2");
    await pass(10 * SECOND);
    expect(await get("a")).toBe("2");
  });

  test("is forgotten when this isolate has changed it", async () => {
    const { get, rows, cache } = setUp({ a: "1", b: "1" });
    await get("a");
    await get("b");
    rows.set("a", "2").set("b", "2");
    cache.delete("a");
    expect([await get("a"), await get("b")]).toEqual(["2", "1"]);
  });

  test("gives way to newer ones past 20,000, the one asked for longest ago first", async () => {
    let queries = 0;
    const cache = new PositiveCache<string>();
    const everyKey: Load<string> = async (keys) => {
      queries++;
      return new Map(keys.map((key) => [key, key]));
    };
    const get = (key: string) => cache.get(key, everyKey, { waitUntil: () => {} });
    for (let i = 0; i <= 20_000; i++) await get(`key${i}`);
    expect(queries).toBe(20_001);
    await get("key1");
    await get("key20000");
    expect(queries).toBe(20_001);
    await get("key0");
    expect(queries).toBe(20_002);
  });

  test("does not give way because it came first: what counts is when it was last asked for", async () => {
    let queries = 0;
    const cache = new PositiveCache<string>();
    const everyKey: Load<string> = async (keys) => {
      queries++;
      return new Map(keys.map((key) => [key, key]));
    };
    const get = (key: string) => cache.get(key, everyKey, { waitUntil: () => {} });
    for (let i = 0; i < 20_000; i++) await get(`key${i}`);
    await pass(10 * SECOND);
    await get("key0");
    await get("more");
    expect(queries).toBe(20_002);
    await get("key0");
    expect(queries).toBe(20_002);
  });
});

describe("a value that does not exist", () => {
  test("is never kept: each request asks, and finds it in the instant it is made", async () => {
    const { get, rows, queries } = setUp();
    expect(await get("a")).toBeUndefined();
    expect(await get("a")).toBeUndefined();
    expect(queries).toHaveLength(2);
    rows.set("a", "1");
    expect(await get("a")).toBe("1");
  });

  test("is never guessed: while the database is down, the request fails", async () => {
    const { get, database } = setUp({ a: "1" });
    database.state = "down";
    await expect(get("a")).rejects.toThrow("the database is down");
    await expect(get("b")).rejects.toThrow("the database is down");
    database.state = "up";
    expect(await get("a")).toBe("1");
    expect(await get("b")).toBeUndefined();
  });

  test("any more is gone within 10 s, whatever the traffic", async () => {
    const pauses = fc.array(fc.integer({ min: 1, max: 12 * SECOND }), { minLength: 1, maxLength: 30 });
    await fc.assert(
      fc.asyncProperty(pauses, pauses, fc.integer({ min: 0, max: 900 }), async (before, after, latency) => {
        const { get, rows, database } = setUp({ a: "1", b: "1" });
        database.latency = latency;
        await timed(get("a"));
        await timed(get("b"));
        for (const pause of before) {
          await pass(pause);
          expect((await timed(get("a"))).value).toBe("1");
        }
        rows.delete("a");
        const revokedAt = Date.now();
        for (const pause of after) {
          await pass(pause);
          const askedAt = Date.now();
          const { value } = await timed(get("a"));
          if (askedAt >= revokedAt + 10 * SECOND) expect(value).toBeUndefined();
          expect((await timed(get("b"))).value).toBe("1");
        }
      }),
      { numRuns: 50 },
    );
  });

  test("any more is gone for the other requests once one has asked", async () => {
    const { get, rows } = setUp({ a: "1" });
    await get("a");
    rows.delete("a");
    await pass(6 * SECOND);
    await get("a");
    await pass(0);
    expect(await get("a")).toBeUndefined();
  });
});

describe.each(["down", "hanging"] as const)("while the database is %s", (state) => {
  test("a value is used for up to an hour after it was last seen, and then no more", async () => {
    const { get, database } = setUp({ a: "1" });
    await get("a");
    database.state = state;
    let longest = 0;
    for (;;) {
      await pass(7 * SECOND);
      if (Date.now() >= NOON + HOUR) break;
      const { value, after } = await timed(get("a"));
      expect(value).toBe("1");
      longest = Math.max(longest, after);
    }
    expect(longest).toBeLessThanOrEqual(1_100);
    const { value, after } = await timed(get("a"));
    expect(value).toBe("an error");
    expect(after).toBeLessThanOrEqual(1_100);
    await expect(timed(get("a"))).resolves.toMatchObject({ value: "an error" });
  });

  test("a value is still used a second before the hour is over, though nobody has asked since", async () => {
    const { get, database } = setUp({ a: "1" });
    await get("a");
    database.state = state;
    await pass(HOUR - SECOND);
    expect((await timed(get("a"))).value).toBe("1");
  });

  test("a value is not used after the hour, not even right after a request that still got it", async () => {
    const { get, database } = setUp({ a: "1" });
    await get("a");
    database.state = state;
    await pass(HOUR - 3 * SECOND);
    expect((await timed(get("a"))).value).toBe("1");
    await pass(3 * SECOND);
    expect((await timed(get("a"))).value).toBe("an error");
  });

  test("one request waits for about a second, and the next ones not at all", async () => {
    const { get, database } = setUp({ a: "1" });
    await get("a");
    database.state = state;
    await pass(20 * SECOND);
    const first = await timed(get("a"));
    expect(first.value).toBe("1");
    expect(first.after).toBeLessThanOrEqual(1_100);
    for (let i = 0; i < 10; i++) {
      const begun = Date.now();
      expect(await get("a")).toBe("1");
      expect(Date.now()).toBe(begun);
    }
  });

  test("a busy isolate asks it every few seconds at most, for all it has", async () => {
    const { get, queries, database } = setUp({ a: "1" });
    await get("a");
    database.state = state;
    for (let i = 0; i < 600; i++) {
      expect((await timed(get("a"))).value).toBe("1");
      await pass(100);
    }
    // Per 5 s: a request that waits, and a query in the background or two.
    expect(queries.length).toBeLessThanOrEqual((3 * (Date.now() - NOON)) / (5 * SECOND));
  });

  test("only the requests of its first seconds wait, though they come ten times a second", async () => {
    const { get, database } = setUp({ a: "1" });
    await get("a");
    database.state = state;
    await pass(20 * SECOND);
    let waited = 0;
    for (let i = 0; i < 600; i++) {
      const begun = Date.now();
      void get("a").then(() => {
        if (Date.now() > begun) waited++;
      });
      await pass(100);
    }
    expect(waited).toBeLessThanOrEqual(15);
  });

  test("nothing fails unheard", async () => {
    const { get, database, background } = setUp({ a: "1" });
    await get("a");
    database.state = state;
    await pass(6 * SECOND);
    await get("a");
    await pass(0);
    expect(background).toHaveLength(1);
    if (state === "down") await expect(Promise.all(background)).resolves.toBeDefined();
  });

  test("what it says once it is back counts within 10 s", async () => {
    const { get, rows, database } = setUp({ a: "1", b: "1" });
    await get("a");
    await get("b");
    database.state = state;
    for (let i = 0; i < 20; i++) {
      await pass(3 * SECOND);
      await timed(get("a"));
    }
    rows.set("a", "2").delete("b");
    database.state = "up";
    for (let i = 0; i < 10; i++) {
      await pass(SECOND);
      await timed(get("a"));
      await timed(get("b"));
    }
    expect([await get("a"), await get("b")]).toEqual(["2", undefined]);
  });
});

describe("a request for a value that the cache does not have", () => {
  test("ends in an error, rather than wait for ever, when the database hangs", async () => {
    const { get, database } = setUp();
    database.state = "hanging";
    const { value, after } = await timed(get("a"));
    expect(value).toBe("an error");
    expect(after).toBeLessThanOrEqual(10 * SECOND);
  });
});
