import { createReadStream } from "node:fs";
import { pipeline } from "node:stream";
import { CsvError, parse } from "csv-parse";
import { CommandError } from "../command-error.ts";
import { openParquet } from "./parquet.ts";

/** A row of the file. It may have more or fewer fields than there are columns. */
export type Row = {
  /** From 1, without the header and without empty lines. */
  readonly number: number;
  readonly fields: readonly string[];
  /** Where the row ends in the file (bytes). */
  readonly end: number;
  /** Why the row cannot be trusted, when the parser says so. */
  readonly flaw?: string;
};

/** A file being read: its columns, and its rows as they come. */
export type Table = { readonly columns: readonly string[]; readonly rows: AsyncIterable<Row> };

/** Characters of a row at most, so that an open quote does not draw the rest of the file into memory. */
const MAX_ROW = 128_000;

/** Opens a Parquet file, or a CSV file whose first line names the columns. Throws a `CommandError` when it is neither. */
export async function openTable(file: string): Promise<Table> {
  if (file.endsWith(".parquet")) return openParquet(file);
  const rows = readRows(file);
  const header = await rows.next();
  if (header.done) throw new CommandError(`${file} is empty: its first line must name the columns.`);
  return { columns: header.value.fields.map((name) => name.trim()), rows };
}

/** All records of the file; the header is number 0. */
async function* readRows(file: string): AsyncGenerator<Row, void, undefined> {
  let unclosed: string | undefined;
  const parser = parse({
    bom: true,
    info: true,
    max_record_size: MAX_ROW,
    record_delimiter: ["\r\n", "\n"],
    relax_column_count: true,
    relax_quotes: true,
    skip_empty_lines: true,
    // What is left to skip is a quote still open at the end of the file. A thrown error ends the reading.
    skip_records_with_error: true,
    on_skip: (error) => {
      if (error?.code !== "CSV_QUOTE_NOT_CLOSED") throw error;
      unclosed = error.message;
    },
  });
  const source = createReadStream(file);
  // Its errors arrive through the parser.
  pipeline(source, parser, () => undefined);

  let number = 0;
  try {
    const records: AsyncIterable<{ record: string[]; info: { bytes: number } }> = parser;
    for await (const { record, info } of records) yield { number: number++, fields: record, end: info.bytes };
  } catch (error) {
    throw new CommandError(explain(error, file));
  }
  if (unclosed !== undefined) yield { number, fields: [], end: source.bytesRead, flaw: unclosed };
}

function explain(error: unknown, file: string): string {
  if (error instanceof CsvError && error.code === "CSV_MAX_RECORD_SIZE") {
    return `${file}: the row at line ${error.lines} is longer than ${MAX_ROW} characters. Is a quote left open?`;
  }
  return `${file} cannot be read: ${error instanceof Error ? error.message : String(error)}`;
}
