import { readSteps, writeSteps } from "../src/catalog/deployment.ts";
import { mayFollow } from "../src/domain/shards.ts";
import { CommandError } from "./command-error.ts";
import { sqlText } from "./sql.ts";

/** What of a deployment can become more and never less, by the names of its records: how many wrangler.toml says. */
export type Sizes = {
  /** Live mode's events databases. */
  readonly databases: number;
  /** Shards of live mode's log, and of test mode's. */
  readonly event_log_shards: number;
  readonly test_event_log_shards: number;
};

/** One of them that is to be more than is recorded. */
export type Growth = {
  readonly name: keyof Sizes;
  readonly recorded: string;
  readonly from: number;
  readonly to: number;
};

/** SQL that reads the records of what can grow: they are there once the first event came. */
export const READ_SIZES =
  "SELECT name, value FROM deployment WHERE name IN ('databases', 'event_log_shards', 'test_event_log_shards')";

/** How many of each there are, with these bindings of databases and these variables. */
export const sizesOf = (
  bindings: readonly string[],
  vars: { readonly EVENT_LOG_SHARDS?: unknown; readonly TEST_EVENT_LOG_SHARDS?: unknown },
): Sizes => ({
  databases: liveDatabases(bindings),
  event_log_shards: Number(vars.EVENT_LOG_SHARDS),
  test_event_log_shards: Number(vars.TEST_EVENT_LOG_SHARDS),
});

/** How many events databases live mode is bound to. */
export const liveDatabases = (bindings: readonly string[]): number =>
  bindings.filter((binding) => /^EVENTS_\d+$/.test(binding)).length;

/**
 * What is to be more than a deployment has recorded. What is not recorded does not grow, since the first event records
 * it. Throws a CommandError when there would be fewer, and for a log that cannot grow to such a number.
 */
export function growthsOf(recorded: ReadonlyMap<string, string>, sizes: Sizes): Growth[] {
  const names = ["databases", "event_log_shards", "test_event_log_shards"] as const;
  return names.flatMap((name) => {
    const record = recorded.get(name);
    const from = record === undefined ? undefined : readSteps(record).at(-1)?.[0];
    const to = sizes[name];
    if (record === undefined || from === undefined || from === to) return [];
    refuse(name, from, to);
    return [{ name, recorded: record, from, to }];
  });
}

function refuse(name: keyof Sizes, from: number, to: number): void {
  if (name !== "databases") {
    if (mayFollow(to, [from])) return;
    throw new CommandError(
      `the log has ${from} ${from === 1 ? "shard" : "shards"}, and ${name.toUpperCase()} = "${to}": it grows only, to a multiple (${from * 2}, ${from * 3}, ${from * 4} …).`,
    );
  }
  if (to > from) return;
  throw new CommandError(
    `events are in ${from} databases, and wrangler.toml has ${to}: write EVENTS_${to}${from - to > 1 ? ` to EVENTS_${from - 1}` : ""} into it again (npm run databases -- ${from}).`,
  );
}

/** SQL that records a growth as in force from `since` on (ms), unless anybody has changed the record meanwhile. */
export function recordGrowth({ name, recorded, to }: Omit<Growth, "from">, since: number): string {
  const longer = writeSteps([...readSteps(recorded), [to, since]]);
  return `UPDATE deployment SET value = ${sqlText(longer)} WHERE name = '${name}' AND value = ${sqlText(recorded)}`;
}
