import { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects, parquetSchema } from "hyparquet";
import { READ } from "../../src/archive/file.ts";
import { CommandError } from "../command-error.ts";
import type { Row, Table } from "./rows.ts";

/** Opens a Parquet file. Its rows have the text that a CSV file would have. Throws a `CommandError` when it is none. */
export async function openParquet(name: string): Promise<Table> {
  try {
    const file = await asyncBufferFromFile(name);
    const metadata = await parquetMetadataAsync(file);
    const columns = parquetSchema(metadata).children.map(({ element }) => element.name);
    return { columns, rows: rowsOf(name, { file, metadata }, columns) };
  } catch (error) {
    throw unreadable(name, error);
  }
}

/** Times come as dates. */
const READ_TEXT = { ...READ, parsers: { stringFromBytes: READ.parsers.stringFromBytes } };

type Source = Required<Pick<Parameters<typeof parquetReadObjects>[0], "file" | "metadata">>;

/** Reads a row group at a time. */
async function* rowsOf(name: string, source: Source, columns: readonly string[]): AsyncGenerator<Row, void, undefined> {
  const total = Number(source.metadata.num_rows);
  let number = 0;
  try {
    for (const { num_rows } of source.metadata.row_groups) {
      const rowEnd = number + Number(num_rows);
      const rows = await parquetReadObjects({ ...READ_TEXT, ...source, rowStart: number, rowEnd });
      for (const row of rows) {
        number += 1;
        const end = Math.floor((source.file.byteLength * number) / total);
        yield { number, fields: columns.map((column) => textOf(row[column])), end };
      }
    }
  } catch (error) {
    throw unreadable(name, error);
  }
}

function textOf(value: unknown): string {
  if (value === null || value === undefined) return "";
  return value instanceof Date ? value.toISOString() : String(value);
}

const unreadable = (name: string, error: unknown): CommandError =>
  new CommandError(`${name} cannot be read: ${error instanceof Error ? error.message : String(error)}`);
