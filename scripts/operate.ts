// `npm run audit`, `npm run redrive`, `npm run resend` and `npm run erase`: what an operator asks of a running server.
import { type Command, InvalidArgumentError, Option } from "commander";
import { commandLine, keyOption, run, urlOption } from "./command.ts";
import { Client } from "./http.ts";
import { LOCAL_KEYS } from "./local-keys.ts";
import { audit } from "./operate/audit.ts";
import { erase } from "./operate/erase.ts";
import { redrive } from "./operate/redrive.ts";
import { resend } from "./operate/resend.ts";

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

const COMMANDS: Readonly<Record<string, () => Command>> = {
  audit: () =>
    command("Compares the event log with D1, and every summary with its events; repairs what differs.", audit).option(
      "--trust-events",
      "repair also old summaries that say more than their events",
    ),
  erase: () =>
    command("Erases a customer: an alias has what was used so far, without identifiers and payloads.", erase)
      .requiredOption("--customer <customer>", "as events name it")
      .usage("--customer <customer> [options]"),
  redrive: () =>
    command("Stores the dead letters of the key's mode, once their cause is repaired.", redrive).option(
      "--id <id>",
      "this one only",
    ),
  resend: () =>
    command(
      "Has the event logs send everything again, for a D1 that was restored to an earlier point.",
      resend,
    ).addOption(new Option("--since <time>", "what was received since (default: 24 hours ago)").argParser(unixTime)),
};

await run(name, 2, async () => COMMANDS[name]?.().parseAsync(args, { from: "user" }));
