// Files of the archive: Parquet, one row per event.
import { gunzipSync, gzipSync } from "node:zlib";
import { type ParquetRow, parquetMetadataAsync, parquetReadObjects, rowIndex } from "hyparquet";
import { type BasicType, ByteWriter, parquetWrite } from "hyparquet-writer";
import type { KeyNames } from "../catalog/api-keys.ts";
import type { TimeRange } from "../domain/window.ts";
import type { OfMeter, Row, RowKey } from "./rows.ts";

/**
 * The columns of a file, which are only ever added to. `series` numbers a customer on a meter within its database; the
 * rows are sorted by it, which is how a reader finds one customer's rows. API keys are named by their ids.
 */
export const COLUMNS: readonly { readonly name: string; readonly type: BasicType; readonly nullable?: true }[] = [
  { name: "meter", type: "STRING" },
  { name: "customer", type: "STRING" },
  { name: "timestamp", type: "TIMESTAMP" },
  { name: "id", type: "STRING" },
  { name: "identifier", type: "STRING" },
  { name: "value", type: "INT64" },
  { name: "received", type: "TIMESTAMP" },
  { name: "dimensions", type: "STRING", nullable: true },
  { name: "payload", type: "STRING", nullable: true },
  { name: "api_key", type: "STRING" },
  { name: "cancelled", type: "TIMESTAMP", nullable: true },
  { name: "cancelled_by", type: "STRING", nullable: true },
  { name: "series", type: "INT64" },
];

/** Rows that are compressed together: the least that is read of a file. */
const ROW_GROUP = 10_000;

/** Writes rows, in their order, as a file; always the same bytes. `pause` is awaited between parts of the work. */
export async function encodeFile(
  rows: readonly Row[],
  { ids }: KeyNames,
  pause: () => Promise<void> = async () => {},
): Promise<Uint8Array> {
  const nameOf = (key: number): string => ids.get(key) ?? String(key);
  const data: Record<string, unknown[]> = {
    meter: rows.map(({ meter }) => meter),
    customer: rows.map(({ customer }) => customer),
    timestamp: rows.map(({ timestamp }) => timestamp),
    id: rows.map(({ id }) => id),
    identifier: rows.map(({ identifier }) => identifier),
    value: rows.map(({ value }) => BigInt(value)),
    received: rows.map(({ received }) => received),
    dimensions: rows.map(({ dimensions }) => dimensions),
    payload: rows.map(({ payload }) => payload),
    api_key: rows.map(({ apiKey }) => nameOf(apiKey)),
    cancelled: rows.map(({ cancelled }) => cancelled),
    cancelled_by: rows.map(({ cancelledBy }) => (cancelledBy === null ? null : nameOf(cancelledBy))),
    series: rows.map(({ series }) => BigInt(series)),
  };
  const writer = Object.assign(new ByteWriter(), { flush: pause });
  await parquetWrite({
    writer,
    columnData: COLUMNS.map(({ name, type, nullable = false }) => ({ name, type, nullable, data: data[name] ?? [] })),
    codec: "GZIP",
    compressors: { GZIP: (bytes) => gzipSync(bytes) },
    rowGroupSize: ROW_GROUP,
    createdBy: "edgemeter",
  });
  return new Uint8Array(writer.getBuffer());
}

/**
 * What a reader wants of a file: the rows whose timestamps are from `start` to `end` (ms, half open), of some series, or
 * of a meter those that were received so long after their timestamps (`delay`, ms) or longer.
 */
export type Wanted = TimeRange &
  ({ readonly series: readonly number[] } | { readonly meter: string; readonly delay: number });

/** What a summary needs of an event. */
export type Counted = Pick<Row, "series" | "timestamp" | "id" | "value">;

const COLUMNS_OF_COUNTED = ["series", "timestamp", "id", "value", "cancelled"];

/** Text as it was written: a decoder's own way is to leave a byte order mark out. */
const utf8 = new TextDecoder("utf-8", { ignoreBOM: true, fatal: true });

/** How a file's columns are read: times are in ms. */
export const READ = {
  compressors: { GZIP: (packed: Uint8Array) => gunzipSync(packed) },
  parsers: { timestampFromMilliseconds: Number, stringFromBytes: (text: Uint8Array) => utf8.decode(text) },
} as const;

/** The numbers of API keys by their ids. */
type Numbers = Pick<KeyNames["numbers"], "get">;

/** Reads the rows of a file. Throws when it is no such file, or damaged. */
export async function decodeFile(bytes: ArrayBuffer, { numbers }: { readonly numbers: Numbers }): Promise<Row[]> {
  return toRows(await parquetReadObjects({ ...READ, file: bytes }), numbers);
}

/** Reads the wanted rows of a file, a row group at a time. Throws as `decodeFile` does. */
export async function* decodeWanted(
  bytes: ArrayBuffer,
  { numbers }: { readonly numbers: Numbers },
  wanted: Wanted,
): AsyncGenerator<Row[]> {
  for await (const found of groupsOf(bytes, wanted)) yield toRows(found, numbers);
}

/** Reads what summaries need of the wanted rows of a file that are not cancelled, as `decodeWanted` does. */
export async function* decodeCounted(bytes: ArrayBuffer, wanted: Wanted): AsyncGenerator<Counted[]> {
  for await (const found of groupsOf(bytes, wanted, COLUMNS_OF_COUNTED)) {
    yield found
      .filter(({ cancelled }) => cancelled == null)
      .map(({ series, timestamp, id, value }) => ({ series: Number(series), timestamp, id, value: Number(value) }));
  }
}

/** The wanted rows of a file as the decoder has them, all their columns or some, a row group at a time. */
async function* groupsOf(bytes: ArrayBuffer, wanted: Wanted, columns?: string[]): AsyncGenerator<ParquetRow[]> {
  const options = { ...READ, file: bytes, metadata: await parquetMetadataAsync(bytes) };
  const { isWanted, ...known } = conditionOf(wanted);
  for (const range of await rangesOf({ ...options, ...known }, isWanted)) {
    yield (await parquetReadObjects({ ...options, ...range, ...(columns && { columns }) })).filter(isWanted);
  }
}

type ReadOptions = Parameters<typeof parquetReadObjects>[0];

/** Whether a row is wanted; by which columns that is known, and what the file's own statistics may say of it. */
type Condition = Required<Pick<ReadOptions, "columns" | "filter">> & {
  readonly isWanted: (row: ParquetRow) => boolean;
};

function conditionOf(wanted: Wanted): Condition {
  const { start, end } = wanted;
  const timestamp = { $gte: start, $lt: end };
  const isWithin = (row: ParquetRow): boolean => row.timestamp >= start && row.timestamp < end;
  if ("meter" in wanted) {
    const { meter, delay } = wanted;
    return {
      columns: ["meter", "timestamp", "received"],
      filter: { meter: { $eq: meter }, timestamp },
      isWanted: (row) => row.meter === meter && row.received - row.timestamp >= delay && isWithin(row),
    };
  }
  const series = new Set(wanted.series.map(BigInt));
  return {
    columns: ["series", "timestamp"],
    filter: {
      // They may be more than a call takes arguments.
      series: {
        $gte: BigInt(wanted.series.reduce((one, other) => Math.min(one, other))),
        $lte: BigInt(wanted.series.reduce((one, other) => Math.max(one, other))),
      },
      timestamp,
    },
    isWanted: (row) => series.has(row.series) && isWithin(row),
  };
}

/**
 * Reads the rows of a meter from a file, those from a series on, some of them at a time: no more than one row group is
 * decoded at once. Throws as `decodeFile` does.
 */
export async function* decodeRowsOfMeter(
  bytes: ArrayBuffer,
  { numbers }: KeyNames,
  { meter, timestamps: { start, end } }: OfMeter,
  firstSeries: number,
): AsyncGenerator<Row[]> {
  const metadata = await parquetMetadataAsync(bytes);
  const filter = {
    $and: [
      { series: { $gte: BigInt(firstSeries) } },
      { meter: { $eq: meter } },
      { timestamp: { $gte: start, $lt: end } },
    ],
  };
  let rowStart = 0;
  for (const { num_rows } of metadata.row_groups) {
    const rowEnd = rowStart + Number(num_rows);
    const found = await parquetReadObjects({ ...READ, file: bytes, metadata, rowStart, rowEnd, filter });
    if (found.length > 0) yield toRows(found, numbers);
    rowStart = rowEnd;
  }
}

function toRows(found: readonly ParquetRow[], numbers: Numbers): Row[] {
  const numberOf = (name: string): number => numbers.get(name) ?? Number(name);
  return found.map((row) => ({
    series: Number(row.series),
    meter: row.meter,
    customer: row.customer,
    timestamp: row.timestamp,
    id: row.id,
    identifier: row.identifier,
    value: Number(row.value),
    received: row.received,
    dimensions: row.dimensions ?? null,
    payload: row.payload ?? null,
    apiKey: numberOf(row.api_key),
    cancelled: row.cancelled ?? null,
    cancelledBy: row.cancelled_by == null ? null : numberOf(row.cancelled_by),
  }));
}

/**
 * From where to where the wanted rows of each row group are, by two or three columns alone: many files that may have
 * some have none.
 */
async function rangesOf(
  options: ReadOptions,
  isWanted: (row: ParquetRow) => boolean,
): Promise<{ rowStart: number; rowEnd: number }[]> {
  const found = await parquetReadObjects({ ...options, includeRowIndex: true });
  const places = found.filter(isWanted).map((row) => row[rowIndex] ?? 0);
  return [...Map.groupBy(places, (place) => Math.floor(place / ROW_GROUP)).values()].map((ofGroup) => ({
    rowStart: ofGroup[0] ?? 0,
    rowEnd: (ofGroup.at(-1) ?? 0) + 1,
  }));
}

/**
 * A checksum of rows that does not depend on their order, 64 bits in hex: the sum of a hash (FNV-1a, two lanes) over
 * what must not change of each.
 */
export function checksumOf(rows: readonly Pick<Row, keyof RowKey | "value" | "cancelled">[]): string {
  let high = 0;
  let low = 0;
  for (const { id, timestamp, value, cancelled } of rows) {
    const text = `${id},${timestamp},${value},${cancelled}`;
    let a = 0x811c9dc5;
    let b = 0xcbf29ce4;
    for (let i = 0; i < text.length; i++) {
      a = Math.imul(a ^ text.charCodeAt(i), 0x01000193);
      b = Math.imul(b ^ (a >>> 15) ^ text.charCodeAt(i), 0x85ebca6b);
    }
    high = (high + a) >>> 0;
    low = (low + b) >>> 0;
  }
  return [high, low].map((half) => half.toString(16).padStart(8, "0")).join("");
}
