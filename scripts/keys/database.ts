import path from "node:path";
import { z } from "zod";
import { CommandError } from "../command-error.ts";
import { root, runWrangler, stateDir } from "../wrangler.ts";

/** Which database, in wrangler's arguments: all that differs between this computer and Cloudflare. */
export type Database = readonly string[];

/** The database of `npm start`, whether it runs or not. */
export const LOCAL: Database = ["--local", "--persist-to", stateDir];

/** The database of the deployment, or of an environment of it. Throws a CommandError when wrangler.toml has no such. */
export async function remote(env: string | undefined): Promise<Database> {
  if (env === undefined || env === "") return ["--remote"];
  const { experimental_readRawConfig: readRawConfig } = await import("wrangler");
  const { rawConfig } = readRawConfig({ config: path.join(root, "wrangler.toml") });
  // wrangler itself would only warn, and take the top level's database for it.
  if (rawConfig.env?.[env] === undefined) throw new CommandError(`wrangler.toml has no environment '${env}'.`);
  return ["--remote", "--env", env];
}

/** What wrangler prints with --json. */
const Executed = z.array(z.object({ results: z.array(z.record(z.string(), z.unknown())) }));
const Failed = z.object({
  error: z.object({ text: z.string(), notes: z.array(z.object({ text: z.string() })).default([]) }),
});

/** The rows of each statement. */
type Rows = z.output<typeof Executed>[number]["results"][];

/**
 * Runs statements; a database that has no tables yet is given them first. What the statements need of a
 * user's is written with `sqlText`: wrangler takes no parameters. Throws a CommandError with wrangler's words.
 */
export async function execute(database: Database, statements: readonly string[]): Promise<Rows> {
  const command = ["--command", statements.join(";\n")];
  let ran = await d1Execute(database, command);
  if (!ran.ok && ran.message.includes("no such table: api_keys")) {
    ran = await d1Execute(database, ["--file", path.join(root, "schema.sql")]);
    if (ran.ok) ran = await d1Execute(database, command);
  }
  if (!ran.ok) throw new CommandError(`wrangler could not do it: ${ran.message}`);
  return Executed.parse(ran.output).map(({ results }) => results);
}

type Ran = { readonly ok: true; readonly output: unknown } | { readonly ok: false; readonly message: string };

async function d1Execute(database: Database, what: readonly string[]): Promise<Ran> {
  // By its binding, which is the same in every environment.
  const { ok, stdout, stderr } = await runWrangler(["d1", "execute", "DB", ...database, "--yes", "--json", ...what]);
  const output = fromJson(stdout);
  if (ok && output !== undefined) return { ok, output };
  const failed = Failed.safeParse(output);
  if (!failed.success) return { ok: false, message: `${stderr}${stdout}`.trim() };
  const { text, notes } = failed.data.error;
  return { ok: false, message: [text, ...notes.map((note) => note.text)].join(" ") };
}

function fromJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** A text as SQL. Written as its bytes in hex, none of it can be read as anything but the text. */
export const sqlText = (text: string): string => `CAST(x'${Buffer.from(text).toString("hex")}' AS TEXT)`;
