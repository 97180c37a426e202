import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import path from "node:path";
import { z } from "zod";
import { CommandError } from "../command-error.ts";
import { runWrangler } from "../wrangler.ts";
import { desiredObjects } from "./desired.ts";
import { READ_OBJECTS, type StoredObject, toObjects } from "./objects.ts";
import { stepsTo } from "./steps.ts";

const Executed = z.tuple([z.object({ results: z.array(z.unknown()) })]);

/** Where a local server's databases lie in its folder. */
const databasesIn = (stateDir: string): string => path.join(stateDir, "v3/d1");

/**
 * Brings the database of a local server to schema.sql, and runs `more` after it. Throws a CommandError
 * when it differs by more than additions, with nothing changed, or with wrangler's words.
 */
export async function prepareLocal(stateDir: string, more: string): Promise<void> {
  // A first start need not ask what is there.
  const live = existsSync(databasesIn(stateDir)) ? await localObjects(stateDir) : [];
  const steps = stepsTo(await desiredObjects(), live);
  const script = path.join(stateDir, "prepare.sql");
  await writeFile(script, steps.map(({ sql }) => `${sql};\n`).join("") + more);
  await execute(stateDir, ["--file", script]);
}

const localObjects = async (stateDir: string): Promise<StoredObject[]> =>
  toObjects(Executed.parse(JSON.parse(await execute(stateDir, ["--json", "--command", READ_OBJECTS])))[0].results);

async function execute(stateDir: string, what: readonly string[]): Promise<string> {
  const database = ["d1", "execute", "DB", "--local", "--yes", "--persist-to", stateDir];
  const { ok, stdout, stderr } = await runWrangler([...database, ...what]);
  if (!ok) throw new CommandError(`the local database could not be prepared.\n${stdout}${stderr}`);
  return stdout;
}
