import path from "node:path";
import { Option } from "commander";
import { FORMULAS, type Formula } from "../../src/domain/meter.ts";
import { commandLine, keyOption, positiveInteger, urlOption } from "../command.ts";
import { LOCAL_KEYS } from "../local-keys.ts";
import type { CustomerChoice, Mapping } from "./events.ts";

/** What an import was asked to do. */
export type ImportOptions = {
  readonly file: string;
  /** Nothing for a file that `npm run export` wrote. */
  readonly mapping: Mapping | undefined;
  /** The meter's; that of an exported file unless given. */
  readonly eventName?: string;
  /** Without a slash at its end. */
  readonly url: string;
  readonly key: string;
  readonly shiftToNow: boolean;
  /** Requests at a time. */
  readonly concurrency: number;
  /** Create the meter with this formula when there is none. */
  readonly createMeter?: Formula;
};

const HELP = `
Timestamps may be ISO 8601 (with T or a space, UTC without an offset) or unix time in seconds or ms.

Each row gets an identifier made of the source, the event name, the value column, the row's number
and its content. So an import that is repeated within 24 hours, whole or after an interruption, adds
nothing twice. Give another --source to import the same rows once more on purpose.

A file of npm run export needs none of the options on columns and customers. Its events keep their
identifiers, customers, values and times, and cancelled ones are left out. As everywhere, timestamps
cannot be more than 35 days in the past.

Rows that are not accepted are written to FILE.rejected.csv with the reason.
Exit code: 0 no row was rejected, 1 some were, 2 the import could not be started or finished,
130 it was interrupted.

Example:
  npm run import -- usage.csv --event-name tokens --create-meter sum --value-column ContextTokens \\
    --timestamp-column TIMESTAMP --spread-customers 50 --shift-to-now
  npm run import -- november.parquet --url https://meter.example.com
`;

/** Reads the command line. Ends the program with code 2 when it is wrong, and with 0 after --help. */
export function parseOptions(argv: readonly string[]): ImportOptions {
  const customerOption = (flags: string, description: string, ...others: string[]): Option =>
    new Option(flags, description).conflicts(others);
  const program = commandLine("import", "Replays a file of usage into a meter.", HELP)
    .usage("FILE --event-name NAME --value-column NAME --timestamp-column NAME --spread-customers N [options]")
    .argument("<file>", "Parquet file, or CSV file whose first line names its columns")
    .option("--event-name <name>", "event name of the meter (default: that of an exported file)")
    .option("--value-column <name>", "column of the value, passed on as it is")
    .option("--timestamp-column <name>", "column of the time")
    .addOption(customerOption("--customer-column <name>", "column of the customer", "customer", "spreadCustomers"))
    .addOption(customerOption("--customer <id>", "one customer for all rows", "customerColumn", "spreadCustomers"))
    .addOption(
      customerOption("--spread-customers <n>", "customers cus_1 to cus_<n> in turn, by row number").argParser(
        positiveInteger,
      ),
    )
    .addOption(urlOption())
    .addOption(keyOption(LOCAL_KEYS.test))
    .option("--shift-to-now", "move all timestamps by the same time, so that the newest is now", false)
    .addOption(
      new Option("--concurrency <n>", "requests at a time, of 100 rows each").default(8).argParser(positiveInteger),
    )
    .option("--source <name>", "name of the source in the identifiers (default: the file's name)")
    .addOption(new Option("--create-meter <formula>", "create the meter if there is none").choices(FORMULAS))
    .parse(argv);

  const [file = ""] = program.args;
  const parsed = program.opts<Omit<ImportOptions, "file" | "mapping"> & Partial<Mapping> & Customers>();
  const { eventName, valueColumn, timestampColumn, source = path.basename(file) } = parsed;
  const customer = customerChoice(parsed);
  // An exported file says what its columns are.
  if (valueColumn === undefined && timestampColumn === undefined && customer === undefined) {
    return { ...parsed, file, mapping: undefined };
  }
  if (eventName === undefined || valueColumn === undefined || timestampColumn === undefined || customer === undefined) {
    return program.error(
      "error: --event-name, --value-column, --timestamp-column and one of --customer-column, --customer and --spread-customers are needed",
    );
  }
  return { ...parsed, file, mapping: { eventName, valueColumn, timestampColumn, source, customer } };
}

/** The options that choose the customers, of which there must be one. */
type Customers = { readonly customerColumn?: string; readonly customer?: string; readonly spreadCustomers?: number };

function customerChoice({ customerColumn, customer, spreadCustomers }: Customers): CustomerChoice | undefined {
  if (customerColumn !== undefined) return { column: customerColumn };
  if (customer !== undefined) return { id: customer };
  return spreadCustomers === undefined ? undefined : { spread: spreadCustomers };
}
