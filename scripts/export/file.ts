import { appendFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { stringify } from "csv-stringify/sync";
import { fileWriter, ParquetWriter, schemaFromColumnData } from "hyparquet-writer";
import { CommandError } from "../command-error.ts";
import { EXPORT_COLUMNS } from "./columns.ts";

/** An event as the API exports it. Times in ms. */
export type ExportedEvent = Readonly<
  Record<string, string | number | null | Readonly<Record<string, string>>> & {
    value: number;
    cancelled: number | null;
  }
>;

/** A file being written. It has its name once it is finished. */
type EventFile = {
  readonly write: (events: readonly ExportedEvent[]) => void;
  readonly finish: () => void;
  /** Leaves nothing behind. */
  readonly discard: () => void;
};

/** Begins a Parquet or CSV file, by its name. Its methods throw a `CommandError` when the disk refuses. */
export function openFile(name: string): EventFile {
  const partial = `${name}.partial`;
  const trying = <T>(change: () => T): T => {
    try {
      return change();
    } catch (error) {
      throw new CommandError(`${name} cannot be written: ${error instanceof Error ? error.message : String(error)}`);
    }
  };
  const { write, end } = trying(() => (name.endsWith(".csv") ? beginCsv(partial) : beginParquet(partial)));
  return {
    write: (events) => trying(() => write(events)),
    finish: () =>
      trying(() => {
        end();
        renameSync(partial, name);
      }),
    discard: () => rmSync(partial, { force: true }),
  };
}

type Format = { readonly write: EventFile["write"]; readonly end: () => void };

/** What a column has of an event: text, a number, ms, or nothing. */
function cell(event: ExportedEvent, name: string): string | number | null {
  const value = event[name] ?? null;
  return typeof value === "object" && value !== null ? JSON.stringify(value) : value;
}

function beginCsv(file: string): Format {
  writeFileSync(file, stringify([EXPORT_COLUMNS.map(({ name }) => name)]));
  const text = (event: ExportedEvent, { name, type }: (typeof EXPORT_COLUMNS)[number]): string | number | null => {
    const value = cell(event, name);
    return type === "TIMESTAMP" && value !== null ? new Date(value).toISOString() : value;
  };
  return {
    write: (events) =>
      appendFileSync(file, stringify(events.map((event) => EXPORT_COLUMNS.map((column) => text(event, column))))),
    end: () => {},
  };
}

/** Rows that are compressed together. */
const ROW_GROUP = 10_000;

function beginParquet(file: string): Format {
  const columns = EXPORT_COLUMNS.map(({ nullable = false, ...column }) => ({ ...column, nullable, data: [] }));
  const writer = new ParquetWriter({
    writer: fileWriter(file),
    schema: schemaFromColumnData({ columnData: columns }),
    codec: "GZIP",
    compressors: { GZIP: (bytes) => gzipSync(bytes) },
    createdBy: "edgemeter",
  });
  let waiting: ExportedEvent[] = [];
  const writeGroup = (): void => {
    const columnData = EXPORT_COLUMNS.map(({ name, type }) => ({
      name,
      data: waiting.map((event) => {
        const value = cell(event, name);
        return type === "INT64" ? BigInt(value ?? 0) : value;
      }),
    }));
    void writer.write({ columnData, rowGroupSize: ROW_GROUP });
    waiting = [];
  };
  return {
    write: (events) => {
      waiting.push(...events);
      if (waiting.length >= ROW_GROUP) writeGroup();
    },
    end: () => {
      if (waiting.length > 0) writeGroup();
      void writer.finish();
    },
  };
}
