import { appendFileSync, rmSync } from "node:fs";
import { stringify } from "csv-stringify/sync";
import { CommandError } from "../command-error.ts";
import type { Row } from "./rows.ts";

/** The rows that did not become events, in a file beside the input that exists only when there are any. */
export class RejectedRows {
  readonly file: string;
  readonly #columns: readonly string[];
  #isBegun = false;

  /** Rejected rows of `input`, whose columns these are. Those of an earlier run are removed. */
  constructor(input: string, columns: readonly string[]) {
    this.file = `${input}.rejected.csv`;
    this.#columns = columns;
    this.#try(() => rmSync(this.file, { force: true }));
  }

  /** Writes a row as it was, then its number and why it was rejected. Throws a `CommandError` when that is not possible. */
  add({ number, fields }: Row, error: string): void {
    const row = [...this.#columns.map((_, index) => fields[index] ?? ""), String(number), error];
    const lines = this.#isBegun ? [row] : [[...this.#columns, "row", "error"], row];
    this.#try(() => appendFileSync(this.file, stringify(lines)));
    this.#isBegun = true;
  }

  #try(change: () => void): void {
    try {
      change();
    } catch (error) {
      throw new CommandError(
        `${this.file} cannot be written: ${error instanceof Error ? error.message : String(error)}`,
      );
    }
  }
}
