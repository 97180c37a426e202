// `npm run export`: writes the events of a meter to a file. See --help.
import { InvalidArgumentError, Option } from "commander";
import { commandLine, keyOption, matching, run, urlOption } from "./command.ts";
import { exportEvents } from "./export/run.ts";
import { Client } from "./http.ts";
import { parseTimestamp } from "./import/timestamps.ts";
import { LOCAL_KEYS } from "./local-keys.ts";

type Options = {
  readonly meter: string;
  readonly from: number;
  readonly to: number;
  readonly out: string;
  readonly url: string;
  readonly key: string;
};

const HELP = `
Times are dates like 2026-11-20, RFC 3339, or unix seconds, UTC without an offset; events from --from on and
before --to are exported, by their timestamps, live and archived, cancelled ones too.

It writes to FILE.partial, which becomes FILE at the end. \`npm run import -- FILE\` imports it elsewhere.
Exit code: 0 all events are in FILE, 2 they are not.

Example:
  npm run export -- --meter tokens --from 2026-11-01 --to 2026-12-01 --out november.parquet
`;

/** A time as unix seconds. */
function seconds(text: string): number {
  const time = parseTimestamp(text);
  if (time === undefined || time % 1_000 !== 0) {
    throw new InvalidArgumentError("It must be a time in whole seconds like 2026-11-20 or 2026-11-20T10:00:00Z.");
  }
  return time / 1_000;
}

const program = commandLine("export", "Writes the events of a meter to a Parquet or CSV file.", HELP)
  .usage("--meter METER --from TIME --to TIME --out FILE.parquet|FILE.csv [options]")
  .requiredOption("--meter <meter>", "the meter's id or event name")
  .addOption(new Option("--from <time>", "the first timestamp").argParser(seconds).makeOptionMandatory())
  .addOption(new Option("--to <time>", "the timestamp after the last").argParser(seconds).makeOptionMandatory())
  .addOption(
    new Option("--out <file>", "what to write")
      .argParser(matching(/\.(parquet|csv)$/, "It must end with .parquet or .csv.", String))
      .makeOptionMandatory(),
  )
  .addOption(urlOption())
  .addOption(keyOption(LOCAL_KEYS.test))
  .action((options: Options) => exportEvents(new Client(options), options, console.log));

await run("export", 2, () => program.parseAsync(process.argv));
