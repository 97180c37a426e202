import { sizeOf } from "../aggregate/fill.ts";
import { eventsDatabases } from "../catalog/databases.ts";
import { UNIQUENESS_MS } from "../domain/limits.ts";
import { DAY_MS } from "../domain/window.ts";
import { type Env, settingsOf } from "../env.ts";
import { loggedAs } from "../logger.ts";
import { Budget } from "./budget.ts";
import { BEGINNING, type Key } from "./portions.ts";
import { readProgress, saveProgress } from "./progress.ts";
import { auditPortion } from "./sums-portion.ts";
import { NO_EVENTS, type Tally, tallied, warnOfLargest } from "./tally.ts";

/** From one walk's beginning to the next one's (ms), at least. */
const WALK_MS = DAY_MS;

/** Where the walk through a database's sums stands. */
type Position = {
  /** ms */
  readonly startedAt: number;
  /** Absent once the walk is complete, both. */
  readonly next?: Key | undefined;
  readonly tally?: Tally | undefined;
};

/**
 * From when on (ms) sums follow their events also when that makes them say less. Before it events may have been lost
 * which the log does not have either, so the sum may be the true one.
 */
export const logReach = (now: number): number => now - UNIQUENESS_MS;

/**
 * A minute's comparison of a mode's sums and survivors with their events, within AUDIT_ROWS_A_MINUTE: of each events
 * database from where the last run ended, and all of it once a day at most. Repairs what differs, and warns of a customer
 * whose events of one meter fill much of a database. `now` in ms.
 */
export async function auditSums(env: Env, livemode: boolean, now: number): Promise<void> {
  const budget = new Budget(settingsOf(env).AUDIT_ROWS_A_MINUTE);
  await budget.divide(eventsDatabases(env, livemode), now, (database, own) =>
    auditDatabase(env, database, now, own).catch(loggedAs("sums were not audited", { database: database.name })),
  );
}

async function auditDatabase(
  env: Env,
  { name, db }: { readonly name: string; readonly db: D1Database },
  now: number,
  budget: Budget,
): Promise<void> {
  const progress = `sums ${name}`;
  const walk = await readProgress<Position>(env.DB, progress);
  const isOver = walk === undefined || (walk.next === undefined && now - walk.startedAt >= WALK_MS);
  const { startedAt, next: start, ...before } = isOver ? { startedAt: now, next: BEGINNING } : walk;
  if (start === undefined) return;
  let next: Key | undefined = start;
  let tally = before.tally ?? NO_EVENTS;
  let checked = 0;
  let repaired = 0;
  try {
    while (next !== undefined && !budget.isSpent) {
      const found = await auditPortion(env, db, next, { database: name, lessFrom: logReach(now) }, budget);
      checked += found.checked;
      repaired += found.repaired;
      tally = tallied(tally, found.parts, found.events);
      next = found.next;
    }
  } finally {
    // Also when a later portion failed: what was compared is not compared again today.
    const position: Position = next === undefined ? { startedAt } : { startedAt, next, tally };
    await saveProgress(env.DB, { name: progress, position, checked, repaired, now });
  }
  if (next !== undefined) return;
  const highWater = settingsOf(env).DATABASE_HIGH_WATER_MB * 1_000_000;
  warnOfLargest(name, tally, { now: await sizeOf(db), highWater });
}
