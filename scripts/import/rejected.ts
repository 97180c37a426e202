import { createWriteStream, type WriteStream } from "node:fs";
import { rm } from "node:fs/promises";
import { finished } from "node:stream/promises";
import { CommandError } from "../command-error.ts";
import type { Row } from "./rows.ts";

/** The rows that did not become events, in a file beside the input that exists only when there are any. */
export class RejectedRows {
  readonly file: string;
  readonly #columns: readonly string[];
  #stream: WriteStream | undefined;

  private constructor(file: string, columns: readonly string[]) {
    this.file = file;
    this.#columns = columns;
  }

  /** Rejected rows of `input`, whose columns these are. Those of an earlier run are removed. */
  static async of(input: string, columns: readonly string[]): Promise<RejectedRows> {
    const file = `${input}.rejected.csv`;
    await rm(file, { force: true }).catch((error: unknown) => {
      throw notWritable(file, error);
    });
    return new RejectedRows(file, columns);
  }

  /** Writes a row as it was, then its number and why it was rejected. Throws a `CommandError` when that is not possible. */
  async add({ number, fields }: Row, error: string): Promise<void> {
    if (this.#stream === undefined) {
      this.#stream = createWriteStream(this.file);
      // Each write hears of an error itself.
      this.#stream.on("error", () => undefined);
      await this.#write([...this.#columns, "row", "error"]);
    }
    await this.#write([...this.#columns.map((_, index) => fields[index] ?? ""), String(number), error]);
  }

  /** Until everything is in the file. */
  async close(): Promise<void> {
    if (this.#stream === undefined || this.#stream.destroyed) return;
    this.#stream.end();
    await finished(this.#stream);
  }

  #write(fields: readonly string[]): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#stream?.write(`${fields.map(quote).join(",")}\n`, (error) =>
        error ? reject(notWritable(this.file, error)) : resolve(),
      );
    });
  }
}

const notWritable = (file: string, error: unknown): CommandError =>
  new CommandError(`${file} cannot be written: ${error instanceof Error ? error.message : String(error)}`);

const quote = (field: string): string => (/[",\r\n]/.test(field) ? `"${field.replaceAll('"', '""')}"` : field);
