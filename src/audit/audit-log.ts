import { HOUR_MS, MINUTE_MS } from "../domain/window.ts";
import { type Env, settingsOf } from "../env.ts";
import { IDS_PER_MS } from "../log/partitions.ts";
import { eventLog, logOfMode, shardsOf } from "../log/shards.ts";
import { logError, loggedAs } from "../logger.ts";
import { Budget } from "./budget.ts";
import { auditPage } from "./log-page.ts";
import { readProgress, saveProgress } from "./progress.ts";

/** How old a group is before it is compared (ms): by then nothing about it is under way. */
export const SETTLED_MS = 2 * MINUTE_MS;

/** How long the audit of a shard may lag (ms): then it leaves out what it has not compared. */
const LONGEST_LAG_MS = 6 * HOUR_MS;

/** Where the audit of a shard stands. */
type Position = {
  /** The last group that was compared or left out. */
  readonly after: number;
  /** Since when (ms) there was more to compare than each run could; absent when the last run compared all. */
  readonly behindSince?: number | undefined;
};

/**
 * A minute's comparison of a mode's log with its databases: each shard's groups in their order, from where the last
 * run ended to the first that a database has not confirmed, within AUDIT_ROWS_A_MINUTE. Has the log send again what a
 * database lacks, and corrects what it holds differently. A shard that lags by six hours, because there is more than
 * the budget allows, or a database does not answer or confirm, leaves out what it has not compared. `now` in ms.
 */
export async function auditLog(env: Env, livemode: boolean, now: number): Promise<void> {
  const budget = new Budget(settingsOf(env).AUDIT_ROWS_A_MINUTE);
  await budget.divide(shardsOf(await logOfMode(env, livemode)), now, (shard, own) =>
    auditShard(env, shard, now, own).catch(loggedAs("a shard was not audited", { shard })),
  );
}

async function auditShard(env: Env, shard: string, now: number, budget: Budget): Promise<void> {
  const name = `log ${shard}`;
  const { after, behindSince } = (await readProgress<Position>(env.DB, name)) ?? { after: 0 };
  const oldestWaiting = (await eventLog(env, shard).oldestWaiting()) ?? Number.POSITIVE_INFINITY;
  // A group that waits for its database holds up those after it, but not without end.
  const before = Math.min(now - SETTLED_MS, Math.max(oldestWaiting, now - LONGEST_LAG_MS));
  const lagsTooLong = behindSince !== undefined && now - behindSince > LONGEST_LAG_MS;
  const run = { last: after, groups: 0, checked: 0, repaired: 0 };
  let isDone = lagsTooLong;
  try {
    while (!isDone && !budget.isSpent) {
      const page = await auditPage(env, shard, run.last, before, budget);
      run.last = page.last ?? run.last;
      run.groups += page.groups;
      run.checked += page.checked;
      run.repaired += page.missing + page.altered;
      isDone = page.last === undefined;
    }
  } finally {
    // Also when a later page failed: what was found is not looked for again.
    const leavesOut = isDone && (lagsTooLong || oldestWaiting < before);
    const skipped = leavesOut ? (await eventLog(env, shard).countGroups(after, before)) - run.groups : 0;
    const position: Position = {
      after: leavesOut ? Math.max(run.last, before * IDS_PER_MS - 1) : run.last,
      ...(isDone ? {} : { behindSince: behindSince ?? now }),
    };
    if (skipped > 0) {
      const reason = lagsTooLong ? "it lagged for six hours" : "a database has not confirmed them for six hours";
      logError("groups were left out of the audit", reason, { shard, groups: skipped });
    }
    if (position.after !== after || isDone !== (behindSince === undefined)) {
      await saveProgress(env.DB, { name, position, checked: run.checked, repaired: run.repaired, skipped, now });
    }
  }
}
