// `npm run audit`, `npm run redrive` and `npm run resend`: what an operator asks of a running server.
import { Command, InvalidArgumentError, Option } from "commander";
import { CommandError } from "./command-error.ts";
import { LOCAL_KEYS } from "./local-keys.ts";
import { audit } from "./operate/audit.ts";
import { Caller } from "./operate/caller.ts";
import { redrive } from "./operate/redrive.ts";
import { resend } from "./operate/resend.ts";
import { keyOption, urlOption } from "./server-options.ts";

type Options = { readonly url: string; readonly key: string };

const HELP = `
Exit code: 0 nothing was wrong, 1 something is or was, 2 the server could not be asked, or the command
line is wrong.
`;

/** What an error begins with: the command, as package.json names it. */
const NAME = process.argv[2] ?? "npm run";

const program = new Command("npm run")
  .addHelpText("after", HELP)
  .configureOutput({ outputError: (text, write) => write(text.replace(/^error:/, `${NAME}:`)) })
  .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : 2));

command("audit", "Compares the event log with D1, and every summary with its events; repairs what differs.")
  .option("--trust-events", "repair also old summaries that say more than their events")
  .action(async (options: Options & { trustEvents?: boolean }) => {
    if (!(await audit(new Caller(options), options, console.log))) process.exitCode = 1;
  });

command("redrive", "Stores the dead letters of the key's mode after all, once what was wrong is mended.")
  .option("--id <id>", "this one only")
  .action(async (options: Options & { id?: string }) => {
    if (!(await redrive(new Caller(options), options, console.log))) process.exitCode = 1;
  });

command("resend", "Has the event logs send everything again, for a D1 that was restored to an earlier point.")
  .addOption(new Option("--since <time>", "what was received since (default: 24 hours ago)").argParser(unixTime))
  .action(async (options: Options & { since?: number }) => {
    if (!(await resend(new Caller(options), options.since, console.log))) process.exitCode = 1;
  });

try {
  await program.parseAsync();
} catch (error) {
  if (!(error instanceof CommandError)) throw error;
  console.error(`${NAME}: ${error.message}`);
  process.exitCode = 2;
}

function command(name: string, description: string): Command {
  return program
    .command(name)
    .description(description)
    .usage("-- [options]")
    .addOption(urlOption())
    .addOption(keyOption(LOCAL_KEYS.live))
    .addHelpText("after", HELP);
}

/** A time as ISO 8601, in unix seconds. */
function unixTime(text: string): number {
  const time = Date.parse(text);
  if (Number.isNaN(time)) throw new InvalidArgumentError("It must be a time like 2026-11-22T10:00:00Z.");
  return Math.floor(time / 1_000);
}
