// From counted operations to dollars.
import type { Counts } from "./counted/counting.ts";
import type { CountedCase } from "./counted-case.ts";
import type { Settings } from "./sides.ts";

const MILLION = 1_000_000;

export const PRICES_AS_OF = "November 2026";

/**
 * What Cloudflare charges on the Workers paid plan beyond what it includes, for one of each, in US dollars. Source:
 * developers.cloudflare.com, the pricing pages of Workers, Durable Objects, D1 and Queues, as of November 2026.
 */
export const PRICES = {
  /** A Worker's request; a run of a queue consumer or a schedule counts as one. */
  workerRequest: 0.3 / MILLION,
  /** A millisecond of a Worker's CPU. */
  workerCpuMs: 0.02 / MILLION,
  /** A call of a Durable Object, or a run of its alarm. */
  objectRequest: 0.15 / MILLION,
  /** A gigabyte-second of a Durable Object that is awake, at 128 MB each. */
  objectGbSecond: 12.5 / MILLION,
  objectRowRead: 0.001 / MILLION,
  objectRowWritten: 1 / MILLION,
  /** A gigabyte stored for a month. */
  objectGbMonth: 0.2,
  databaseRowRead: 0.001 / MILLION,
  databaseRowWritten: 1 / MILLION,
  databaseGbMonth: 0.75,
  /** A write, read or delete of a message, per 64 KB. */
  queueOperation: 0.4 / MILLION,
} as const;

/** What an awake object takes of memory, as it is billed (GB). */
const OBJECT_GB = 0.128;

export const MONTH_SECONDS = 30 * 86_400;

type CostLine = { readonly name: string; readonly amount: number; readonly dollars: number };

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

export const dollarsOf = (lines: readonly { readonly dollars: number }[]): number =>
  lines.reduce((sum, { dollars }) => sum + dollars, 0);

/**
 * How long objects were awake (s), as an estimate: customers' objects while they were called, logs while they were
 * called and while a timer of theirs ran (a commit's wait, the wait before a sending), but no more than all the time.
 * An object that waits for nothing sleeps and costs nothing.
 */
export function awakeSeconds(
  { counts, events, seconds }: Pick<CountedCase, "counts" | "events" | "seconds">,
  { shards, groupCommitMs, sendIntervalMs }: Settings,
): number {
  const waitMs = sendIntervalMs(events / seconds / shards);
  const logMs = counts.logBusyMs + counts.commits * groupCommitMs + counts.sends * waitMs;
  return counts.meterBusyMs / 1_000 + Math.min(logMs / 1_000, seconds * shards);
}

export const awakeDollars = (seconds: number): number => seconds * OBJECT_GB * PRICES.objectGbSecond;
