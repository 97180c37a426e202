// From counted operations to dollars.
import type { Counts } from "./counted/counts.ts";
import { OBJECT_GB, PRICES } from "./prices.ts";

export type CostLine = {
  readonly name: string;
  /** How many of it. */
  readonly amount: number;
  readonly dollars: number;
};

/** Everything that was counted, priced. The scheduled handler's own runs are not in it. */
export function costLines(counts: Counts): CostLine[] {
  const line = (name: string, amount: number, price: number): CostLine => ({ name, amount, dollars: amount * price });
  return [
    line("Worker requests", counts.httpRequests + counts.consumerRuns, PRICES.workerRequest),
    line("Durable Object requests", counts.meterCalls + counts.logCalls + counts.alarms, PRICES.objectRequest),
    line("rows written in Durable Objects, alarms too", counts.objectRowsWritten, PRICES.objectRowWritten),
    line("rows read in Durable Objects", counts.objectRowsRead, PRICES.objectRowRead),
    line("rows written in D1", counts.databaseRowsWritten, PRICES.databaseRowWritten),
    line("rows read in D1", counts.databaseRowsRead, PRICES.databaseRowRead),
    line("queue operations", counts.queueOperations, PRICES.queueOperation),
  ];
}

/** What a line of Workers Logs for each invocation would cost; wrangler.toml leaves them out (`invocation_logs`). */
export const logDollars = (counts: Counts): number =>
  PRICES.logLine * (counts.httpRequests + counts.consumerRuns + counts.meterCalls + counts.logCalls + counts.alarms);

export const dollarsOf = (lines: readonly CostLine[]): number => lines.reduce((sum, { dollars }) => sum + dollars, 0);

/** The settings that say how long a log stays awake for itself (ms), as wrangler.toml has them. */
export type Timers = { readonly groupCommitMs: number; readonly sendDelayMs: number };

/**
 * How long objects were awake (s), as an estimate: customers' objects while they were called, logs while
 * they were called and while a timer of theirs ran (a commit's wait, the wait before a sending), but
 * no more than all the time. An object that waits for nothing sleeps and costs nothing.
 */
export function awakeSeconds(counts: Counts, timers: Timers, elapsedSeconds: number, shards: number): number {
  const logMs = counts.logBusyMs + counts.commits * timers.groupCommitMs + counts.sends * timers.sendDelayMs;
  return counts.meterBusyMs / 1_000 + Math.min(logMs / 1_000, elapsedSeconds * shards);
}

export const awakeDollars = (seconds: number): number => seconds * OBJECT_GB * PRICES.objectGbSecond;
