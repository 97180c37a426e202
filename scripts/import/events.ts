import { digest } from "../../src/domain/identifiers.ts";
import { err, ok, type Result } from "../../src/domain/result.ts";
import { CommandError } from "../command-error.ts";
import type { Row } from "./rows.ts";
import { parseTimestamp } from "./timestamps.ts";

/** Whose usage the rows are: a column says it, it is all one customer's, or `spread` customers take turns. */
export type CustomerChoice = { readonly column: string } | { readonly id: string } | { readonly spread: number };

/** How rows become events. */
export type Mapping = {
  /** Where the rows come from; part of every identifier. */
  readonly source: string;
  readonly eventName: string;
  readonly valueColumn: string;
  readonly timestampColumn: string;
  readonly customer: CustomerChoice;
};

/** A row as an event, before the names of the meter's payload keys are known. */
export type ImportedEvent = {
  readonly row: Row;
  readonly identifier: string;
  readonly customer: string;
  readonly value: string;
  /** When it happened (ms), shifted if asked. */
  readonly timestamp: number;
  /** What an exported event says besides customer and value. */
  readonly payload?: Readonly<Record<string, string>>;
};

/**
 * The identifier of a row, the same in every run. It tells apart what one file may be imported for
 * (another meter, another column), and knows nothing of shifts and customers.
 */
export const identifierOf = ({ source, eventName, valueColumn }: Mapping, { number, fields }: Row): string =>
  `imp_${digest(source, eventName, valueColumn, String(number), ...fields)}`;

/** A mapper from the rows of these columns to events; `shift` in ms. Throws a `CommandError` for a column that is not there. */
export function eventMapper(
  mapping: Mapping,
  columns: readonly string[],
  shift: number,
): (row: Row) => Result<ImportedEvent, string> {
  const value = columnIndex(columns, mapping.valueColumn);
  const timestamp = columnIndex(columns, mapping.timestampColumn);
  const customerOf = customerFinder(mapping.customer, columns);

  return (row) => {
    const { fields, flaw } = row;
    if (flaw !== undefined) return err(flaw);
    if (fields.length !== columns.length) return err(wrongLength(fields, columns.length));
    const customer = customerOf(row);
    if (customer === "") return err("The row has no customer.");
    const time = parseTimestamp(fields[timestamp] ?? "");
    if (time === undefined) return err(`The timestamp cannot be read: '${fields[timestamp] ?? ""}'.`);
    return ok({
      row,
      identifier: identifierOf(mapping, row),
      customer,
      value: fields[value] ?? "",
      timestamp: time + shift,
    });
  };
}

/** Where a column is. Throws a `CommandError` that names the columns there are. */
export function columnIndex(columns: readonly string[], name: string): number {
  const index = columns.indexOf(name);
  if (index >= 0) return index;
  throw new CommandError(`there is no column '${name}'. The columns are: ${columns.join(", ")}`);
}

function customerFinder(choice: CustomerChoice, columns: readonly string[]): (row: Row) => string {
  if ("id" in choice) return () => choice.id;
  if ("spread" in choice) return ({ number }) => `cus_${((number - 1) % choice.spread) + 1}`;
  const index = columnIndex(columns, choice.column);
  return ({ fields }) => fields[index] ?? "";
}

function wrongLength(fields: readonly string[], expected: number): string {
  const surplus = fields.slice(expected);
  const rest = surplus.length === 0 ? "" : ` Left over: ${surplus.join(",")}`;
  return `The row has ${fields.length} columns instead of ${expected}.${rest}`;
}
