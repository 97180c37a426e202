// The cache's types lead to Cloudflare's.
/// <reference types="@cloudflare/workers-types" />
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type Load, PositiveCache } from "../../src/catalog/positive-cache.ts";
import { NOON } from "../support/builders.ts";

const SECOND = 1_000;
const HOUR = 3_600 * SECOND;

beforeEach(() => {
  vi.useFakeTimers({ now: NOON });
});

afterEach(() => {
  vi.useRealTimers();
});

/** Between requests (ms). */
const pauses = fc.array(fc.integer({ min: 1, max: 12 * SECOND }), { minLength: 1, maxLength: 30 });

const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms);

/**
 * A database of values that can be down (it answers with an error) or hang (it never answers), and its replica,
 * which has the same values unless a test lets it lag. `queries` are those of the primary.
 */
function setUp(values: Record<string, string> = {}) {
  const rows = new Map(Object.entries(values));
  const replica = { queries: 0, rows, isAlwaysUp: false };
  const queries: string[][] = [];
  const background: Promise<unknown>[] = [];
  const database = { state: "up" as "up" | "down" | "hanging", latency: 0 };
  const load: Load<string> = async (keys, place) => {
    if (place === "primary") queries.push([...keys]);
    else replica.queries++;
    const { latency } = database;
    const state = place === "nearest" && replica.isAlwaysUp ? "up" : database.state;
    const known = place === "primary" ? rows : replica.rows;
    // What it says was true when it was asked, not when the answer arrives.
    const found = new Map([...known].filter(([key]) => keys.includes(key)));
    if (state === "hanging") return new Promise(() => {});
    if (latency > 0) await new Promise((resolve) => setTimeout(resolve, latency));
    if (state === "down") throw new Error("the database is down");
    return found;
  };
  /** Another isolate. */
  const anIsolate = () => {
    const cache = new PositiveCache<string>();
    const get = (key: string) =>
      cache.get(key, load, { waitUntil: (promise: Promise<unknown>) => void background.push(promise) });
    return { cache, get };
  };
  return { rows, replica, queries, background, database, anIsolate, ...anIsolate() };
}

/** A cache that has met the value "1" of each key, by default of `a`. */
async function setUpWarm(...keys: string[]) {
  const known = keys.length === 0 ? ["a"] : keys;
  const warm = setUp(Object.fromEntries(known.map((key) => [key, "1"])));
  for (const key of known) await warm.get(key);
  await pass(0);
  return warm;
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
    const { get, replica, queries } = await setUpWarm();
    for (let i = 0; i < 100; i++) {
      expect(await get("a")).toBe("1");
      await pass(49);
    }
    // The replica was asked, and the primary behind it.
    expect(replica.queries).toBe(1);
    expect(queries).toEqual([["a"]]);
  });

  test("is looked up again in the background from 5 s on, once, while requests are served at once", async () => {
    const { get, rows, queries, background, database } = await setUpWarm();
    rows.set("a", "2");
    database.latency = 2 * SECOND;
    await pass(6 * SECOND);
    for (let i = 0; i < 100; i++) {
      const begun = Date.now();
      expect(await get("a")).toBe("1");
      expect(Date.now()).toBe(begun);
      await pass(19);
    }
    expect([queries.length, background.length]).toEqual([2, 2]);
    await pass(100);
    expect(await get("a")).toBe("2");
    expect(queries).toHaveLength(2);
  });

  test("is looked up together with all others, in one query", async () => {
    const { get, queries } = await setUpWarm("a", "b", "c");
    await pass(3 * SECOND);
    // Those that came behind the first are confirmed by the primary now.
    await get("c");
    await pass(6 * SECOND);
    const before = queries.length;
    for (const key of ["b", "a", "c"]) await get(key);
    expect(queries.slice(before).map((keys) => keys.sort())).toEqual([["a", "b", "c"]]);
  });

  test("costs a busy isolate a query every few seconds, not one per request", async () => {
    const { get, queries } = await setUpWarm();
    for (let i = 0; i < 6_000; i++) {
      expect(await get("a")).toBe("1");
      await pass(10);
    }
    expect(queries.length).toBeGreaterThan(5);
    expect(queries.length).toBeLessThanOrEqual(13);
  });

  test("is forgotten when this isolate has changed it", async () => {
    const { get, rows, cache } = await setUpWarm("a", "b");
    rows.set("a", "2").set("b", "2");
    cache.delete("a");
    expect([await get("a"), await get("b")]).toEqual(["2", "1"]);
  });

  test("gives way to newer ones past 20,000, the one asked for longest ago first", async () => {
    let queries = 0;
    const cache = new PositiveCache<string>();
    const everyKey: Load<string> = async (keys, place) => {
      if (place === "nearest") queries++;
      return new Map(keys.map((key) => [key, key]));
    };
    const get = (key: string) => cache.get(key, everyKey, { waitUntil: () => {} });
    for (let i = 0; i < 20_000; i++) await get(`key${i}`);
    await pass(10 * SECOND);
    // It is asked of the primary again, alone, and is the latest from now on.
    await get("key0");
    await get("more");
    expect(queries).toBe(20_001);
    for (const key of ["key0", "key2", "key19999"]) await get(key);
    expect(queries).toBe(20_001);
    await get("key1");
    expect(queries).toBe(20_002);
  });
});

describe("a value that does not exist", () => {
  test("is never kept: each request asks, and finds it in the instant it is made", async () => {
    const { get, rows, replica } = setUp();
    expect(await get("a")).toBeUndefined();
    expect(await get("a")).toBeUndefined();
    expect(replica.queries).toBe(2);
    rows.set("a", "1");
    expect(await get("a")).toBe("1");
  });

  test("is never guessed: the request fails while the database is down, and within 10 s while it hangs", async () => {
    const { get, database } = setUp({ a: "1" });
    database.state = "down";
    for (const key of ["a", "b"]) await expect(get(key)).rejects.toThrow("the database is down");
    database.state = "hanging";
    const { value, after } = await timed(get("a"));
    expect(value).toBe("an error");
    expect(after).toBeLessThanOrEqual(10 * SECOND);
    database.state = "up";
    expect([await get("a"), await get("b")]).toEqual(["1", undefined]);
  });

  test("any more is gone within 10 s, whatever the traffic", async () => {
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
    const { get, rows } = await setUpWarm();
    rows.delete("a");
    await pass(6 * SECOND);
    await get("a");
    await pass(0);
    expect(await get("a")).toBeUndefined();
  });
});

describe.each(["down", "hanging"] as const)("while the database is %s", (state) => {
  /** A warm cache whose database went away so long ago (ms). */
  async function setUpOutage(ago: number) {
    const outage = await setUpWarm();
    outage.database.state = state;
    await pass(ago);
    return outage;
  }

  test("a value is used for up to an hour after it was last seen, and then no more", async () => {
    const { get } = await setUpOutage(7 * SECOND);
    for (; Date.now() < NOON + HOUR; await pass(7 * SECOND)) {
      const { value, after } = await timed(get("a"));
      expect(value).toBe("1");
      expect(after).toBeLessThanOrEqual(1_100);
    }
    const { value, after } = await timed(get("a"));
    expect(value).toBe("an error");
    expect(after).toBeLessThanOrEqual(1_100);
    await expect(timed(get("a"))).resolves.toMatchObject({ value: "an error" });
  });

  test("a value is used a second before the hour is over, though nothing asked for it since, and not after it", async () => {
    const { get } = await setUpOutage(HOUR - SECOND);
    expect((await timed(get("a"))).value).toBe("1");
    await pass(SECOND);
    expect((await timed(get("a"))).value).toBe("an error");
  });

  test("one request waits for about a second, and the next ones not at all", async () => {
    const { get } = await setUpOutage(20 * SECOND);
    const first = await timed(get("a"));
    expect(first.value).toBe("1");
    expect(first.after).toBeLessThanOrEqual(1_100);
    for (let i = 0; i < 10; i++) {
      const begun = Date.now();
      expect(await get("a")).toBe("1");
      expect(Date.now()).toBe(begun);
    }
  });

  test("a busy isolate asks it once a second, for all it has", async () => {
    const { get, queries } = await setUpOutage(0);
    for (let i = 0; i < 600; i++) {
      expect((await timed(get("a"))).value).toBe("1");
      await pass(100);
    }
    expect(queries.length).toBeLessThanOrEqual(5 + (Date.now() - NOON) / SECOND);
  });

  test("only the requests of its first seconds wait, though they come ten times a second", async () => {
    const { get } = await setUpOutage(20 * SECOND);
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
    const { get, background } = await setUpOutage(6 * SECOND);
    await get("a");
    await pass(0);
    expect(background).toHaveLength(2);
    if (state === "down") await expect(Promise.all(background)).resolves.toBeDefined();
  });

  test("a value that is too old is used no more from three seconds after it is back, whatever the traffic", async () => {
    await fc.assert(
      fc.asyncProperty(pauses, pauses, async (during, after) => {
        const { get, rows, database } = await setUpOutage(20 * SECOND);
        for (const pause of during) {
          await pass(pause);
          expect((await timed(get("a"))).value).toBe("1");
        }
        rows.set("a", "2");
        database.state = "up";
        const backAt = Date.now();
        for (const pause of after) {
          await pass(pause);
          const askedAt = Date.now();
          const { value } = await timed(get("a"));
          // A query that hung before may have to be given up first.
          if (askedAt >= backAt + 3 * SECOND) expect(value).toBe("2");
        }
      }),
      { numRuns: 50 },
    );
  });
});

describe("two isolates with one database", () => {
  test("use no value that is older than ten seconds, whichever of them changed it and however the replica lags", async () => {
    const step = fc.record({
      pause: fc.integer({ min: 1, max: 6 * SECOND }),
      isolate: fc.integer({ min: 0, max: 1 }),
      changes: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), async (steps) => {
        const { rows, replica, anIsolate } = setUp({ a: "0" });
        replica.rows = new Map([["a", "older than all"]]);
        const isolates = [anIsolate(), anIsolate()];
        for (const { get } of isolates) await get("a");
        // Met first at a replica; the primary's word is there a moment later.
        await pass(0);
        const changes = [{ value: "0", at: Number.NEGATIVE_INFINITY }];
        for (const { pause, isolate, changes: isChange } of steps) {
          await pass(pause);
          if (isChange) {
            const value = String(changes.length);
            rows.set("a", value);
            changes.push({ value, at: Date.now() });
            isolates[isolate]?.cache.delete("a");
            // The replica knows what it is asked for now.
            replica.rows = new Map(rows);
          }
          const used = await isolates[isolate]?.get("a");
          const next = changes[changes.findIndex(({ value }) => value === used) + 1];
          if (next !== undefined) expect(Date.now() - next.at).toBeLessThan(10 * SECOND);
        }
      }),
      { numRuns: 100 },
    );
  });

  test("a replica that lags is corrected by the primary at once, and never put back", async () => {
    const { get, rows, replica } = setUp({ a: "new" });
    replica.rows = new Map([["a", "old"]]);
    expect(await get("a")).toBe("old");
    await pass(0);
    expect(await get("a")).toBe("new");
    rows.delete("a");
    await pass(10 * SECOND);
    for (let i = 0; i < 3; i++) expect(await get("a")).toBeUndefined();
    rows.set("a", "newest");
    expect(await get("a")).toBe("newest");
  });

  test("a replica's value that the primary could not confirm is asked for again before it is ten seconds old", async () => {
    const { get, replica, rows, database } = setUp({ a: "old" });
    replica.rows = new Map(rows);
    replica.isAlwaysUp = true;
    database.state = "hanging";
    expect(await get("a")).toBe("old");
    database.state = "up";
    rows.set("a", "new");
    await pass(7 * SECOND);
    expect((await timed(get("a"))).value).toBe("new");
  });

  test("a look-up that began before this isolate's own change does not bring the old value back", async () => {
    const { get, rows, database, cache } = await setUpWarm();
    await pass(6 * SECOND);
    database.latency = 500;
    expect(await get("a")).toBe("1");
    await pass(100);
    rows.set("a", "2");
    cache.delete("a");
    await pass(1_000);
    expect((await timed(get("a"))).value).toBe("2");
  });
});
