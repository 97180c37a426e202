import { readFile, writeFile } from "node:fs/promises";
import { CommandError } from "../command-error.ts";
import { liveDatabases } from "../growth.ts";
import { targetOf } from "./target.ts";

/**
 * Writes the blocks of the events databases that a configuration lacks of `wanted` into it, and gives how many it
 * lacked. Throws a CommandError when it has more, and when its last one is no block of its own.
 */
export async function growTo(wanted: number, env: string, file: string): Promise<number> {
  const { worker, databases } = await targetOf(env, file);
  const bound = liveDatabases(databases.map(({ binding }) => binding));
  if (wanted < bound) throw new CommandError(`there are ${bound} already, and no way back once events are in them.`);
  if (wanted > bound) {
    const lines = (await readFile(file, "utf8")).split("\n");
    const header = `[[${env === "" ? "" : `env.${env}.`}d1_databases]]`;
    const added = Array.from({ length: wanted - bound }, (_, index) => blockOf(header, worker, bound + index));
    await writeFile(file, lines.toSpliced(endOf(lines, header, bound - 1), 0, ...added.flat()).join("\n"));
  }
  return wanted - bound;
}

const blockOf = (header: string, worker: string, place: number): string[] => [
  ...["", header, `binding = "EVENTS_${place}"`],
  ...[`database_name = "${worker}-events-${place}"`, 'migrations_dir = "src/migrations/events"'],
];

/** The line after the last setting in the block of an events database. */
function endOf(lines: readonly string[], header: string, place: number): number {
  const binding = new RegExp(`^\\s*binding\\s*=\\s*["']EVENTS_${place}["']`);
  for (const [at, line] of lines.entries()) {
    if (line.trim() !== header) continue;
    const next = lines.findIndex((other, index) => index > at && other.trimStart().startsWith("["));
    const block = lines.slice(0, next === -1 ? lines.length : next);
    if (block.slice(at).some((setting) => binding.test(setting))) {
      return block.findLastIndex((setting) => /^\s*[\w-]+\s*=/.test(setting)) + 1;
    }
  }
  throw new CommandError(`wrangler.toml has no block ${header} of EVENTS_${place} to add others after.`);
}
