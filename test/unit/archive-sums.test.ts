// DuckDB reads the archive's folder, as an analyst does, and has for every customer what the API says: the aggregator's,
// the archive's and the API's own code and statements, on SQLite itself, which D1 is.
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { DatabaseSync, type SQLInputValue } from "node:sqlite";
import { DuckDBInstance } from "@duckdb/node-api";
import fc from "fast-check";
import { expect, inject, test } from "vitest";
import { applyEntries } from "../../src/aggregate/apply.ts";
import { exportNext } from "../../src/archive/export.ts";
import { slicesAtWork } from "../../src/archive/states.ts";
import { namesOfKeys } from "../../src/catalog/api-keys.ts";
import { DAY_MS, floorTo, HOUR_MS } from "../../src/domain/window.ts";
import type { Env } from "../../src/env.ts";
import { aLogEntry, aMeter, NOON, resultOf, unique } from "../support/builders.ts";
import { cancellationLines, eventLines, toEntries } from "../support/shares.ts";
import { readSummaries } from "../support/summaries.ts";

const MIGRATIONS = path.join(import.meta.dirname, "../../src/migrations");

/** A database as the Worker has it, in memory. */
function aDatabase(folder: "control" | "events"): D1Database {
  const sqlite = new DatabaseSync(":memory:");
  for (const name of readdirSync(path.join(MIGRATIONS, folder)).sort()) {
    sqlite.exec(readFileSync(path.join(MIGRATIONS, folder, name), "utf8"));
  }
  const prepare = (sql: string, values: readonly SQLInputValue[] = []): object => {
    const rows = () => sqlite.prepare(sql).all(...values);
    const arrays = () => {
      const statement = sqlite.prepare(sql);
      statement.setReturnArrays(true);
      return statement.all(...values);
    };
    const result = () => ({ results: rows(), success: true, meta: { size_after: 0, rows_read: 0, changes: 1 } });
    return {
      bind: (...bound: SQLInputValue[]) => prepare(sql, bound),
      all: async () => result(),
      run: async () => result(),
      raw: async () => arrays(),
      first: async (column?: string) => {
        const [row] = rows();
        return (column === undefined ? row : row?.[column]) ?? null;
      },
      result,
    };
  };
  const batch = async (statements: readonly { result: () => unknown }[]) => statements.map(({ result }) => result());
  return { prepare, batch } as unknown as D1Database;
}

/** A bucket that is a folder. */
function aBucket(folder: string): R2Bucket {
  const put = async (key: string, bytes: Uint8Array): Promise<void> => {
    mkdirSync(path.dirname(path.join(folder, key)), { recursive: true });
    writeFileSync(path.join(folder, key), bytes);
  };
  return { put, get: async () => null, list: async () => ({ objects: [], truncated: false }) } as unknown as R2Bucket;
}

const usage = fc.record({
  customer: fc.nat({ max: 30 }).map((n) => `cus_${n}`),
  value: fc.oneof(fc.integer({ min: 1, max: 100 }), fc.constant(999_999_999_999_999)),
  agoMs: fc.oneof(fc.integer({ min: 0, max: HOUR_MS }), fc.integer({ min: 0, max: 34 * DAY_MS })),
  receivedMs: fc.integer({ min: 0, max: 30 * HOUR_MS }),
  isCancelled: fc.nat({ max: 9 }).map((n) => n === 0),
});

test("DuckDB adds the archive up to what the API says of every customer", async () => {
  const folder = mkdtempSync(path.join(tmpdir(), "edgemeter-"));
  try {
    const [control, db] = [aDatabase("control"), aDatabase("events")];
    const env = { DB: control, EVENTS_0: db } as unknown as Env;
    const recorded = { jurisdiction: "", databases: "[[1,0]]", event_log_shards: "[[1,0]]" };
    for (const [name, value] of Object.entries({ ...recorded, test_event_log_shards: "[[1,0]]" })) {
      await control.prepare("INSERT INTO deployment VALUES (?1, ?2)").bind(name, value).run();
    }
    const meter = aMeter({ livemode: true });
    const drawn = fc.sample(usage, { seed: inject("seed"), numRuns: 2_000 });
    const events = drawn.map(({ customer, value, agoMs, receivedMs }) => {
      const received = NOON + receivedMs;
      const event = { meter: meter.id, customer, value, received, timestamp: received - agoMs };
      return aLogEntry({ ...event, identifier: unique("order") });
    });
    await applyEntries(db, toEntries("events", eventLines(events)), NOON);
    const cancelled = events.filter((_, i) => drawn[i]?.isCancelled);
    await applyEntries(db, toEntries("cancellations", cancellationLines(cancelled)), NOON);

    const keys = () => namesOfKeys(control);
    const bucket = aBucket(folder);
    const work = { env, db, name: "EVENTS_0", livemode: true, place: 0, bucket, keys, pause: async () => {} };
    await db.prepare("UPDATE slices SET state = 'sealed'").run();
    for (;;) {
      const sealed = (await slicesAtWork(db)).slices.find(({ state }) => state === "sealed");
      if (sealed === undefined) break;
      await exportNext(work, sealed.slice, NOON);
    }
    const duckdb = await (await DuckDBInstance.create(":memory:")).connect();
    const found = await duckdb.runAndReadAll(`
      SELECT day, customer, CAST(sum(value) AS VARCHAR) FROM read_parquet('${folder}/events/**/*.parquet', hive_partitioning = true)
      WHERE cancelled IS NULL GROUP BY 1, 2`);
    duckdb.closeSync();

    const range = { start: floorTo(NOON - 40 * DAY_MS, DAY_MS), end: floorTo(NOON + 3 * DAY_MS, DAY_MS) };
    const said: string[] = [];
    for (const customer of new Set(events.map((event) => event.customer))) {
      const query = { meter, customer, range, windowLength: DAY_MS, order: "newest_first", limit: 100 } as const;
      for (const { start, value } of resultOf(await readSummaries(env, query))) {
        said.push([new Date(start).toISOString().slice(0, 10), customer, value].join(" "));
      }
    }
    expect(said.length).toBeGreaterThan(100);
    const ofDuckDb = found.getRowsJson().map(([day, customer, sum]) => [day, customer, sum].join(" "));
    expect(ofDuckDb.sort()).toEqual(said.sort());
  } finally {
    rmSync(folder, { recursive: true });
  }
});
