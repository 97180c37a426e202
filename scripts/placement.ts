import { parsePlacement, writePlacement } from "../src/catalog/deployment.ts";
import { CommandError } from "./command-error.ts";
import { sqlText } from "./sql.ts";

/** SQL that reads the record of a deployment's events databases: its value, once the first event came. */
export const READ_PLACEMENT = "SELECT value FROM deployment WHERE name = 'databases'";

/** How many events databases live mode is bound to. */
export const liveDatabases = (bindings: readonly string[]): number =>
  bindings.filter((binding) => /^EVENTS_\d+$/.test(binding)).length;

/**
 * Whether live mode's events databases are more than a deployment has recorded: nothing recorded is no growth, since
 * the first event records what is bound. Throws a CommandError when they are fewer.
 */
export function grows(recorded: string | undefined, bound: number): recorded is string {
  if (recorded === undefined) return false;
  const newest = parsePlacement(recorded).at(-1)?.databases ?? 0;
  if (bound >= newest) return bound > newest;
  throw new CommandError(
    `events are in ${newest} databases, and wrangler.toml has ${bound}: write EVENTS_${bound}${newest - bound > 1 ? ` to EVENTS_${newest - 1}` : ""} into it again (npm run databases -- ${newest}).`,
  );
}

/** SQL that has new events placed over `databases` from `since` on (ms), unless anybody has changed the record meanwhile. */
export function recordGrowth(recorded: string, databases: number, since: number): string {
  const longer = writePlacement([...parsePlacement(recorded), { databases, since }]);
  return `UPDATE deployment SET value = ${sqlText(longer)} WHERE name = 'databases' AND value = ${sqlText(recorded)}`;
}
