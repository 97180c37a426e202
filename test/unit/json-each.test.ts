// The aggregator's statements on both functions that read JSON arrays: on SQLite itself, which D1 is.
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { DatabaseSync, type SQLInputValue } from "node:sqlite";
import fc from "fast-check";
import { expect, inject, test } from "vitest";
import { applyStatements } from "../../src/aggregate/apply.ts";
import type { Entries } from "../../src/aggregate/entries.ts";
import { onJsonEach } from "../../src/aggregate/json-each.ts";
import { tableOf } from "../../src/aggregate/sql/events.ts";
import { HOUR_MS, sliceOf } from "../../src/domain/window.ts";
import { aLogEntry, NOON, unique } from "../support/builders.ts";
import { cancellationLines, eventLines, rejectionLines, toEntries } from "../support/shares.ts";

const MIGRATIONS = path.join(import.meta.dirname, "../../src/migrations/events");
const SCHEMA = readdirSync(MIGRATIONS)
  .sort()
  .map((name) => readFileSync(path.join(MIGRATIONS, name), "utf8"))
  .join("\n");
const TABLE = tableOf(sliceOf(NOON));
const UUID = "01234567-89ab-cdef-0123-456789abcdef";

const meters = [
  { meter: "mtr_sum", aggregation: "additive" },
  { meter: "mtr_last", aggregation: "latest_of_quarter_hour" },
  { meter: "mtr_max", aggregation: "greatest_of_quarter_hour" },
  { meter: "mtr_day", aggregation: "last_received_of_day" },
] as const;

const entry = fc.record({
  meter: fc.constantFrom(...meters),
  customer: fc.constantFrom("cus_1", "cüs \"2'"),
  value: fc.integer({ min: 1, max: 999_999_999_999_999 }),
  hour: fc.integer({ min: 0, max: 30 }),
  identifier: fc.option(fc.constant(UUID)),
  dimensions: fc.constantFrom("", '{"region":"eu"}'),
  payload: fc.option(fc.dictionary(fc.string(), fc.string(), { maxKeys: 3 }), { nil: undefined }),
  isCancelled: fc.boolean(),
});

/** A database whose statements are written in a way, and how entries are applied to it. */
function aDatabase(written: (sql: string) => string) {
  const database = new DatabaseSync(":memory:");
  database.exec(SCHEMA);
  database.exec(SCHEMA.match(/CREATE TABLE events \([^;]*;/)?.[0].replace("events", TABLE) ?? "");
  const used: string[] = [];
  const prepare = (sql: string) => ({
    bind: (...values: SQLInputValue[]) => {
      used.push(sql);
      database.prepare(sql).run(...values);
    },
  });
  const apply = (entries: readonly Entries[]): void =>
    void applyStatements({ prepare } as unknown as D1Database, entries, NOON, written);
  return { database, used, apply };
}

test("json_each makes of every entry what jsonb_each makes of it", () => {
  const property = fc.property(fc.array(fc.array(entry, { maxLength: 8 }), { maxLength: 4 }), (batches) => {
    const databases = [(sql: string) => sql, onJsonEach].map(aDatabase);
    for (const batch of batches) {
      const logged = batch.map(({ meter, hour, isCancelled: _, identifier, ...event }, i) =>
        aLogEntry({
          ...event,
          ...meter,
          identifier: identifier ?? unique("identifier"),
          timestamp: NOON + hour * HOUR_MS,
          received: NOON + i,
        }),
      );
      const cancelled = logged.filter((_, i) => batch[i]?.isCancelled);
      const rejections = batch.slice(0, 2).map(({ value }) => ({
        ...{ id: unique("rejection"), livemode: true, meter: null, code: "no_meter", count: value },
        ...{ samples: [["message", "identifier"]] as const, received: NOON },
      }));
      for (const { apply } of databases) {
        apply(toEntries("events", eventLines(logged)));
        apply(toEntries("cancellations", cancellationLines(cancelled)));
        apply(toEntries("rejections", rejectionLines(rejections)));
      }
    }
    const [onJsonb, onJson] = databases.map(({ database }) => {
      // Payloads that one database keeps parsed and the other as text.
      database.exec(`UPDATE ${TABLE} SET payload = json(payload)`);
      return [TABLE, "series", "sums", "survivors", "error_reports"].map((table) =>
        database.prepare(`SELECT * FROM ${table}`).all(),
      );
    });
    expect(onJson).toEqual(onJsonb);
    expect(onJsonb?.[0]).toHaveLength(batches.flat().length);
    const statements = databases.map(({ used }) => used.filter((sql) => /jsonb/.test(sql)).length);
    expect(statements[0]).toBeGreaterThanOrEqual(batches.filter((batch) => batch.length > 0).length);
    expect(statements[1]).toBe(0);
  });
  fc.assert(property, { seed: inject("seed"), numRuns: 100 });
});
