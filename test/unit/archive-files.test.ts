// The archive's files, read by themselves and by DuckDB.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { DuckDBInstance } from "@duckdb/node-api";
import fc from "fast-check";
import { parquetMetadataAsync } from "hyparquet";
import { expect, inject, test } from "vitest";
import { checksumOf, decodeCounted, decodeFile, decodeWanted, encodeFile } from "../../src/archive/file.ts";
import { keyOf } from "../../src/archive/manifest.ts";
import { readTogether, type WantedFile } from "../../src/archive/read.ts";
import type { Row } from "../../src/archive/rows.ts";
import { DAY_MS } from "../../src/domain/window.ts";
import { NOON } from "../support/builders.ts";

const names = { ids: new Map([[3, "key_3"]]), numbers: new Map([["key_3", 3]]) };

const time = fc.integer({ min: 0, max: NOON });

const row: fc.Arbitrary<Row> = fc.record({
  series: fc.integer({ min: 1, max: 3 }),
  meter: fc.constantFrom("mtr_1", "mtr_2"),
  customer: fc.string({ unit: "binary" }),
  timestamp: time,
  id: fc.string(),
  identifier: fc.oneof(fc.uuid(), fc.string({ unit: "binary" })),
  value: fc.integer({ min: 1, max: 999_999_999_999_999 }),
  received: time,
  dimensions: fc.option(fc.constant('{"region":"eu"}')),
  payload: fc.option(fc.json()),
  // A number that no key has any more is kept as such.
  apiKey: fc.constantFrom(3, 4),
  cancelled: fc.option(time),
  cancelledBy: fc.option(fc.constantFrom(3, 4)),
});

const bytesOf = async (rows: readonly Row[]): Promise<ArrayBuffer> => {
  const bytes = await encodeFile(rows, names);
  return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) as ArrayBuffer;
};

/** The parts that a file is read in. */
async function partsOf<T>(parts: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const part of parts) found.push(part);
  return found;
}

test("a file has its rows as they were, all or those that are wanted, and always the same bytes", async () => {
  const wanted = { series: [2], start: NOON / 4, end: NOON / 2 };
  const property = fc.asyncProperty(fc.array(row, { minLength: 1, maxLength: 30 }), async (rows) => {
    const bytes = await bytesOf(rows);
    expect(await decodeFile(bytes, names)).toEqual(rows);
    const some = rows.filter(
      ({ series, timestamp }) => series === 2 && timestamp >= wanted.start && timestamp < wanted.end,
    );
    expect((await partsOf(decodeWanted(bytes, names, wanted))).flat()).toEqual(some);
    expect((await partsOf(decodeCounted(bytes, wanted))).flat()).toEqual(
      some
        .filter(({ cancelled }) => cancelled === null)
        .map(({ series, timestamp, id, value }) => ({ series, timestamp, id, value })),
    );
    expect(Buffer.from(await bytesOf(rows)).equals(Buffer.from(bytes))).toBe(true);
    expect(checksumOf(rows)).toBe(checksumOf(rows.toReversed()));
  });
  await fc.assert(property, { seed: inject("seed"), numRuns: 50 });
});

/** Of three row groups. */
const MANY_ROWS = Array.from({ length: 25_000 }, (_, i): Row => {
  const [series, timestamp] = [2 * Math.floor(i / 50), NOON + (i % 50)];
  return {
    ...{ series, meter: "mtr_1", customer: `cus_${series}`, timestamp, id: String(i), identifier: "", value: 1 },
    ...{ received: NOON, dimensions: null, payload: null, apiKey: 3, cancelled: null, cancelledBy: null },
  };
});

test("rows that are wanted of several row groups are all that there are, a row group at a time", async () => {
  const rows = MANY_ROWS;
  const bytes = await bytesOf(rows);
  for (const series of [[0], [499], [0, 398, 400, 998], [1, 397]]) {
    const wanted = { series, start: NOON + 10, end: NOON + 49 };
    expect((await partsOf(decodeWanted(bytes, names, wanted))).flat()).toEqual(
      rows.filter((row) => series.includes(row.series) && row.timestamp >= wanted.start && row.timestamp < wanted.end),
    );
  }
});

test("what counts of many rows is read a row group at a time, and from the columns that it needs alone", async () => {
  const bytes = await bytesOf(MANY_ROWS);
  const needed = ["series", "timestamp", "id", "value", "cancelled"];
  const columns = (await parquetMetadataAsync(bytes)).row_groups.flatMap((group) => group.columns);
  for (const { meta_data: column } of columns) {
    if (column === undefined || needed.includes(column.path_in_schema[0] ?? "")) continue;
    const start = Number(column.dictionary_page_offset ?? column.data_page_offset);
    new Uint8Array(bytes, start, Number(column.total_compressed_size)).fill(255);
  }
  const wanted = { series: MANY_ROWS.map(({ series }) => series), start: 0, end: 2 * NOON };
  await expect(partsOf(decodeWanted(bytes, names, wanted))).rejects.toThrow();
  const read = await partsOf(decodeCounted(bytes, wanted));
  expect(read.map(({ length }) => length)).toEqual([10_000, 10_000, 5_000]);
  expect(Object.keys(read[0]?.[0] ?? {})).toEqual(["series", "timestamp", "id", "value"]);
});

test.each([
  ["a few small files", [10, 10, 10, 10, 10], 4],
  ["files that have as many rows as one may", [20_000, 30_000, 1], 2],
  ["a large one alone", [50_000, 1], 1],
  ["one that is larger than any", [60_000, 1], 1],
  ["none", [], 0],
])("what is read together is %s", (_, rows, expected) => {
  const files = rows.map((each) => ({ file: { rows: each } }) as WantedFile);
  expect(readTogether(files)).toEqual(files.slice(0, expected));
});

test("DuckDB reads the same sums and times", async () => {
  const rows = Array.from(
    { length: 12_000 },
    (_, i): Row => ({
      ...{ series: i % 100, meter: "mtr_1", customer: `cus_${i % 100}`, timestamp: NOON + i, id: String(i) },
      ...{ identifier: `order-${i}`, value: 999_999_999_999_000 + (i % 1_000), received: NOON, dimensions: null },
      ...{ payload: '{"model":"large"}', apiKey: 3, cancelled: i % 7 === 0 ? NOON : null, cancelledBy: null },
    }),
  ).sort((a, b) => a.series - b.series);
  const found = await query(
    [["events.parquet", rows]],
    (folder) => `
    SELECT customer, CAST(sum(value) AS VARCHAR), epoch_ms(max(timestamp)), any_value(json_extract_string(payload, '$.model'))
    FROM read_parquet('${folder}/events.parquet') WHERE cancelled IS NULL AND api_key = 'key_3' GROUP BY 1 ORDER BY 1`,
  );
  const counted = Map.groupBy(
    rows.filter(({ cancelled }) => cancelled === null),
    ({ customer }) => customer,
  );
  expect(found).toEqual(
    [...counted]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([customer, own]) => [
        ...[customer, String(own.reduce((sum, { value }) => sum + BigInt(value), 0n))],
        ...[BigInt(Math.max(...own.map(({ timestamp }) => timestamp))), "large"],
      ]),
  );
});

test("the README's query has the usage of a UTC day, from the keys that files have", async () => {
  const readme = readFileSync(path.join(import.meta.dirname, "../../README.md"), "utf8");
  const [sql = ""] = /^SELECT meter[^;]*/m.exec(readme) ?? [];
  const day = Math.floor(Date.parse(/day = '([^']+)'/.exec(sql)?.[1] ?? "") / DAY_MS);
  const aFile = (isLate: boolean, ofDay: number, file: number, value: number): [string, Row[]] => {
    const event = {
      series: 1,
      meter: "mtr_1",
      customer: "cus_1",
      timestamp: ofDay * DAY_MS,
      received: NOON,
      apiKey: 3,
    };
    const none = { dimensions: null, payload: null, cancelled: null, cancelledBy: null };
    const counted: Row = { ...event, ...none, id: `${file}`, identifier: `${file}`, value };
    const key = keyOf(0, day * 24, { isLate, day: ofDay }, file);
    return [key, [counted, { ...counted, id: `${file}-cancelled`, value: 1_000, cancelled: NOON }]];
  };
  const files = [aFile(false, day, 0, 1), aFile(true, day - 1, 1, 2), aFile(true, day, 2, 4)];
  const found = await query(files, (folder) => sql.replace("r2://edgemeter-archive", folder));
  expect(found).toEqual([["mtr_1", "cus_1", 5n]]);
});

/** What DuckDB says of files in a folder. */
async function query(
  files: readonly (readonly [name: string, rows: readonly Row[]])[],
  sql: (folder: string) => string,
): Promise<unknown[][]> {
  const folder = mkdtempSync(path.join(tmpdir(), "edgemeter-"));
  try {
    for (const [name, rows] of files) {
      mkdirSync(path.dirname(path.join(folder, name)), { recursive: true });
      writeFileSync(path.join(folder, name), await encodeFile(rows, names));
    }
    const duckdb = await (await DuckDBInstance.create(":memory:")).connect();
    const found = await duckdb.runAndReadAll(sql(folder));
    duckdb.closeSync();
    return found.getRowsJS();
  } finally {
    rmSync(folder, { recursive: true });
  }
}
