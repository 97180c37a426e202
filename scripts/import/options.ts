import path from "node:path";
import { Command, InvalidArgumentError, Option } from "commander";
import { FORMULAS, type Formula } from "../../src/domain/meter.ts";
import { LOCAL_KEYS } from "../local-keys.ts";
import { keyOption, urlOption } from "../server-options.ts";
import type { CustomerChoice, Mapping } from "./events.ts";

/** What an import was asked to do. */
export type ImportOptions = Mapping & {
  readonly file: string;
  /** Without a slash at its end. */
  readonly url: string;
  readonly key: string;
  readonly shiftToNow: boolean;
  /** Requests at a time. */
  readonly concurrency: number;
  /** Send batches over a stream session instead of one event at a time. */
  readonly stream: boolean;
  /** Create the meter with this formula when there is none. */
  readonly createMeter: Formula | undefined;
};

/** The options as commander leaves them. */
type Parsed = {
  readonly eventName: string;
  readonly valueColumn: string;
  readonly timestampColumn: string;
  readonly customerColumn?: string;
  readonly customer?: string;
  readonly spreadCustomers?: number;
  readonly url: string;
  readonly key: string;
  readonly shiftToNow?: boolean;
  readonly stream?: boolean;
  readonly concurrency: number;
  readonly source?: string;
  readonly createMeter?: Formula;
};

const HELP = `
Timestamps may be ISO 8601 (with T or a space, UTC without an offset) or unix time in seconds or ms.

Each row gets an identifier made of the source, the event name, the value column, the row's number
and its content. So an import that is repeated within 24 hours, whole or after an interruption, adds
nothing twice. Give another --source to import the same rows once more on purpose.

Rows that are not accepted are written to FILE.csv.rejected.csv with the reason.
Exit code: 0 no row was rejected, 1 some were, 2 the import could not be started or finished,
130 it was interrupted.

Example:
  npm run import -- usage.csv --event-name tokens --create-meter sum --value-column ContextTokens \\
    --timestamp-column TIMESTAMP --spread-customers 50 --shift-to-now
`;

/** Reads the command line. Ends the program with code 2 when it is wrong, and with 0 after --help. */
export function parseOptions(argv: readonly string[]): ImportOptions {
  const program = new Command("npm run import --")
    .description("Replays a CSV file of usage into a meter.")
    .usage("FILE.csv --event-name NAME --value-column NAME --timestamp-column NAME --spread-customers N [options]")
    .argument("<file>", "CSV file whose first line names its columns")
    .requiredOption("--event-name <name>", "event name of the meter")
    .requiredOption("--value-column <name>", "column of the value, passed on as it is")
    .requiredOption("--timestamp-column <name>", "column of the time")
    .addOption(
      new Option("--customer-column <name>", "column of the customer").conflicts(["customer", "spreadCustomers"]),
    )
    .addOption(
      new Option("--customer <id>", "one customer for all rows").conflicts(["customerColumn", "spreadCustomers"]),
    )
    .addOption(
      new Option("--spread-customers <n>", "customers cus_1 to cus_<n> in turn, by row number")
        .argParser(positiveInteger)
        .conflicts(["customerColumn", "customer"]),
    )
    .addOption(urlOption())
    .addOption(keyOption(LOCAL_KEYS.test))
    .option("--shift-to-now", "move all timestamps by the same time, so that the newest is now")
    .addOption(new Option("--concurrency <n>", "requests at a time").default(32).argParser(positiveInteger))
    .option("--stream", "send 100 events a request over a stream session; then duplicates count as accepted")
    .option("--source <name>", "name of the source in the identifiers (default: the file's name)")
    .addOption(new Option("--create-meter <formula>", "create the meter if there is none").choices(FORMULAS))
    .addHelpText("after", HELP)
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error:/, "import:")) })
    .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : 2))
    .parse(argv);

  const [file = ""] = program.args;
  const {
    source = path.basename(file),
    shiftToNow = false,
    stream = false,
    createMeter,
    ...parsed
  } = program.opts<Parsed>();
  const customer = customerChoice(parsed);
  if (customer === undefined) {
    return program.error("error: one of --customer-column, --customer and --spread-customers is needed");
  }
  const { eventName, valueColumn, timestampColumn, url, key, concurrency } = parsed;
  return {
    ...{ file, source, eventName, valueColumn, timestampColumn, customer },
    ...{ url, key, shiftToNow, stream, concurrency, createMeter },
  };
}

function customerChoice({ customerColumn, customer, spreadCustomers }: Partial<Parsed>): CustomerChoice | undefined {
  if (customerColumn !== undefined) return { column: customerColumn };
  if (customer !== undefined) return { id: customer };
  if (spreadCustomers !== undefined) return { spread: spreadCustomers };
  return undefined;
}

function positiveInteger(text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new InvalidArgumentError("It must be a positive integer.");
  return Number(text);
}
