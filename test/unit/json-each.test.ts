// The aggregator's statements on both functions that read JSON arrays: on SQLite itself, which D1 is.
import { readFileSync } from "node:fs";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import fc from "fast-check";
import { expect, inject, test } from "vitest";
import { onJsonEach } from "../../src/aggregate/json-each.ts";
import * as statements from "../../src/aggregate/sql/statements.ts";
import { HOUR_MS } from "../../src/domain/window.ts";
import { aLogEntry, NOON } from "../support/builders.ts";

const SCHEMA = readFileSync(path.join(import.meta.dirname, "../../schema.sql"), "utf8");

const EVENTS = [statements.ADD_TO_HOURLY_SUMMARIES, statements.KEEP_WINDOW_SURVIVORS, statements.INSERT_EVENTS];
const CANCELLATIONS = [
  statements.SUBTRACT_FROM_HOURLY_SUMMARIES,
  statements.CANCEL_EVENTS,
  statements.DELETE_CANCELLED_SURVIVORS,
  statements.RESTORE_WINDOW_SURVIVORS,
];

const meters = [
  { meter: "mtr_sum", aggregation: "additive" },
  { meter: "mtr_last", aggregation: "latest_of_hour" },
  { meter: "mtr_day", aggregation: "last_received_of_day" },
] as const;

const entry = fc.record({
  meter: fc.constantFrom(...meters),
  customer: fc.constantFrom("cus_1", "cüs \"2'"),
  value: fc.integer({ min: 1, max: 999_999_999_999_999 }),
  hour: fc.integer({ min: 0, max: 30 }),
  dimensions: fc.option(fc.dictionary(fc.string(), fc.string(), { maxKeys: 3 }), { nil: undefined }),
  isCancelled: fc.boolean(),
});

test("json_each makes of every entry what jsonb_each makes of it", () => {
  expect(EVENTS.every((sql) => sql.includes("jsonb_each(") && !onJsonEach(sql).includes("jsonb"))).toBe(true);
  const property = fc.property(fc.array(fc.array(entry, { maxLength: 8 }), { maxLength: 4 }), (batches) => {
    const databases = [(sql: string) => sql, onJsonEach].map((written) => {
      const database = new DatabaseSync(":memory:");
      database.exec(SCHEMA);
      return { database, run: (sql: string, entries: string) => database.prepare(written(sql)).run(entries) };
    });
    for (const batch of batches) {
      const logged = batch.map(({ meter, hour, dimensions, isCancelled, ...event }, i) => ({
        ...aLogEntry({ ...event, ...meter, timestamp: NOON + hour * HOUR_MS, received: NOON + i }),
        ...(dimensions === undefined ? {} : { dimensions }),
        ...(isCancelled ? { cancelled: NOON } : {}),
      }));
      const cancelled = logged.filter((event) => "cancelled" in event);
      for (const { run } of databases) {
        for (const sql of EVENTS) run(sql, JSON.stringify(logged));
        for (const sql of CANCELLATIONS) run(sql, JSON.stringify(cancelled));
      }
    }
    const [onJsonb, onJson] = databases.map(({ database }) =>
      ["events", "hourly_summaries", "window_survivors"].map((table) =>
        database.prepare(`SELECT * FROM ${table}`).all(),
      ),
    );
    expect(onJson).toEqual(onJsonb);
    expect(onJsonb?.[0]).toHaveLength(batches.flat().length);
  });
  fc.assert(property, { seed: inject("seed"), numRuns: 100 });
});
