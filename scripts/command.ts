// What every command line of the project has in common.
import { Command, InvalidArgumentError, Option } from "commander";
import { CommandError } from "./command-error.ts";

/** `npm run NAME`. A wrong command line ends it with exit code 2 and one line that begins with the name. */
export const commandLine = (name: string, description: string, help: string): Command =>
  new Command(`npm run ${name} --`)
    .description(description)
    .addHelpText("after", `\n${help.trim()}\n`)
    .allowExcessArguments(false)
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error:/, `${name}:`)) })
    .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : 2));

/** Runs a command. A CommandError is one line that begins with `name`, and exit code `failed`. */
export async function run(name: string, failed: number, what: () => Promise<unknown>): Promise<void> {
  try {
    await what();
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    console.error(`${name}: ${error.message}`);
    process.exitCode = failed;
  }
}

/** Reads a text that a pattern describes; `problem` says what it must be. */
export const matching =
  <T>(pattern: RegExp, problem: string, read: (text: string) => T) =>
  (text: string): T => {
    if (!pattern.test(text)) throw new InvalidArgumentError(problem);
    return read(text);
  };

export const positiveInteger = matching(/^[1-9]\d{0,8}$/, "It must be a positive integer.", Number);

/** A URL without a slash at its end. */
export function address(text: string): string {
  const url = URL.parse(text);
  if (url === null || !/^https?:$/.test(url.protocol)) {
    throw new InvalidArgumentError("It must be a URL like https://meter.example.com.");
  }
  return url.origin + url.pathname.replace(/\/+$/, "");
}

/** `--url`: which server; the local one unless given. */
export const urlOption = (): Option =>
  new Option("--url <url>", "server").default("http://127.0.0.1:8787").argParser(address);

/** `--key`: an API key of that server; also from the environment, where other users do not see it. */
export const keyOption = (local: string): Option =>
  new Option("--key <key>", "API key")
    .env("EDGEMETER_API_KEY")
    .default(local)
    .argParser(matching(/^[\x21-\x7e]+$/, "It must be an API key like sk_test_….", String));

/** `--url` of a deployment: where the Worker is reached. */
export const addressOption = (): Option =>
  new Option("--url <url>", "where it is reached (default: its workers.dev address)").argParser(address);

/** `--wait`: how long its address may take to answer, in ms. */
export const waitOption = (): Option =>
  new Option("--wait <seconds>", "how long its address may take to answer")
    .default(120_000, "120")
    .argParser(matching(/^\d{1,4}$/, "It must be a number of seconds.", (text) => Number(text) * 1_000));
