// `npm run audit`, `erase`, `redrive`, `resend` and `restore`: what an operator asks of a running server.
import { type Command, InvalidArgumentError, Option } from "commander";
import { commandLine, keyOption, matching, run, urlOption } from "./command.ts";
import { Client } from "./http.ts";
import { LOCAL_KEYS } from "./local-keys.ts";
import { audit } from "./operate/audit.ts";
import { erase } from "./operate/erase.ts";
import { redrive } from "./operate/redrive.ts";
import { resend } from "./operate/resend.ts";
import { restore } from "./operate/restore.ts";

type Options = { readonly url: string; readonly key: string };
type Print = (line: string) => void;

const HELP = `
Exit code: 0 nothing was wrong, 1 something is or was, 2 the server could not be asked, or the command
line is wrong.
`;

/** The command, as package.json names it. */
const [, , name = "", ...args] = process.argv;

function command<T>(
  description: string,
  does: (client: Client, options: T, print: Print) => Promise<boolean>,
): Command {
  return commandLine(name, description, HELP)
    .usage("[options]")
    .addOption(urlOption())
    .addOption(keyOption(LOCAL_KEYS.live))
    .action(async (options: T & Options) => {
      if (!(await does(new Client(options), options, console.log))) process.exitCode = 1;
    });
}

/** A time as ISO 8601, in unix seconds. */
function unixTime(text: string): number {
  const time = Date.parse(text);
  if (Number.isNaN(time)) throw new InvalidArgumentError("It must be a time like 2026-11-22T10:00:00Z.");
  return Math.floor(time / 1_000);
}

/** The UTC days of a day or month. */
function utcDays(text: string): string[] {
  const days: string[] = [];
  const day = new Date(/^\d{4}-\d\d(-\d\d)?$/.test(text) ? text : Number.NaN);
  for (; !Number.isNaN(day.getTime()) && day.toISOString().startsWith(text); day.setUTCDate(day.getUTCDate() + 1)) {
    days.push(day.toISOString().slice(0, 10));
  }
  if (days.length === 0) throw new InvalidArgumentError("It must be a UTC day or month, like 2026-11-20 or 2026-11.");
  return days;
}

const hours = matching(/^\d{1,7}$/, "It must be a slice's first hour since 1970.", String);
const days = matching(/^\d{1,3}$/, "It must be a number of days.", String);

const COMMANDS: Readonly<Record<string, () => Command>> = {
  audit: () =>
    command("Compares the event log with D1, and every summary with its events; repairs what differs.", audit)
      .option("--trust-events", "repair also old summaries that say more than their events")
      .addOption(
        new Option("--archive <day>", "compare a UTC day or month of the archive instead; repairs nothing").argParser(
          utcDays,
        ),
      ),
  erase: () =>
    command("Erases a customer: an alias has what was used so far, without identifiers and payloads.", erase)
      .requiredOption("--customer <customer>", "as events name it")
      .usage("--customer <customer> [options]"),
  restore: () =>
    command("Brings back events from the archive. Name one of --day, --slice and --export-again.", restore)
      .addOption(
        new Option("--day <day>", "the events of a UTC day or month, into databases that lack them").argParser(utcDays),
      )
      .addOption(new Option("--slice <hour>", "the table of an archived slice").argParser(hours))
      .addOption(
        new Option("--export-again <hour>", "a slice whose check has failed: it is exported again").argParser(hours),
      )
      .option("--database <name>", "the slice's database, like EVENTS_0")
      .addOption(
        new Option("--keep-days <days>", "how long the slice's table is kept at least (default: 1)").argParser(days),
      ),
  redrive: () =>
    command("Stores the dead letters of the key's mode, once their cause is repaired.", redrive)
      .option("--id <id>", "this one only")
      .option("--discard", "give it up instead: it will never count"),
  resend: () =>
    command(
      "Has the event logs send everything again, for a D1 that was restored to an earlier point.",
      resend,
    ).addOption(new Option("--since <time>", "what was received since (default: 24 hours ago)").argParser(unixTime)),
};

await run(name, 2, async () => COMMANDS[name]?.().parseAsync(args, { from: "user" }));
