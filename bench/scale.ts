// What the counted operations and measured loads come to at other rates: by calculation, not by trying.
// Times are those of this machine; Cloudflare's are others, so the shares are what to read.
import { awakeDollars, costLines, dollarsOf } from "./cost.ts";
import type { CountedCase } from "./counted-case.ts";
import { MONTH_SECONDS, PRICES } from "./prices.ts";
import type { Table } from "./results.ts";
import type { Settings } from "./settings.ts";
import { STREAM_EVENTS } from "./targets.ts";

const RATES = [1_000, 10_000, 100_000];

/** Cloudflare's limits, by their documentation of November 2026, and this project's own (units a second, or bytes). */
export const LIMITS = {
  /** Soft; an object that stores something takes half of it. */
  objectRequests: 1_000,
  /** Transactions that write, of one object. */
  objectCommits: 500,
  /** Of one object (LOG_HIGH_WATER_MB; Cloudflare's own is 10 GB). */
  objectBytes: 8_000_000_000,
  /** A database runs one statement at a time, and so does an object (ms of each second). */
  busyMs: 1_000,
  databaseBytes: 10_000_000_000,
  /** Of one queue. */
  messages: 5_000,
  messageBytes: 120_000,
} as const;

/** How long a log keeps an event: 24 hours, and until its slice of 12 ends (s). */
const LOG_SECONDS = 36 * 3_600;

const GB = 1_000_000_000;

type Cases = { readonly sync: CountedCase; readonly stream: CountedCase; readonly settings: Settings };

/** How events arrive, and what was measured of one. */
type Shape = {
  readonly name: string;
  readonly counted: CountedCase;
  /** Events of a request. */
  readonly perRequest: number;
};

/** What one log does at a rate (a second). */
type ShardLoad = {
  readonly calls: number;
  readonly commits: number;
  readonly groups: number;
  readonly messages: number;
};

/**
 * A request's events go to as many logs as it has events, at most to all. A log commits at most once per
 * GROUP_COMMIT_MS, and sends at most once per SEND_DELAY_MS unless a message is full.
 */
function shardLoad({ counted, perRequest }: Shape, rate: number, shards: number, settings: Settings): ShardLoad {
  const events = rate / shards;
  const calls = (rate / perRequest) * (Math.min(perRequest, shards) / shards);
  const commits = Math.min(calls, 1_000 / settings.groupCommitMs);
  const bytes = events * messageBytesOf(counted);
  const groups = Math.max(commits, bytes / LIMITS.messageBytes);
  const messages = Math.max(Math.min(groups, 1_000 / settings.sendDelayMs), bytes / LIMITS.messageBytes);
  return { calls, commits, groups, messages };
}

/** An event's share of a message: most of what the log keeps of it. */
const messageBytesOf = ({ logBytes, events }: CountedCase): number => logBytes / events;

/** What is at its limit when it is 1. */
type Use = { readonly of: string; readonly share: number };

function uses(shape: Shape, rate: number, shards: number, databases: number, settings: Settings): Use[] {
  const { counts, events, logBytes } = shape.counted;
  const { calls, commits, messages } = shardLoad(shape, rate, shards, settings);
  const ofShard = rate / shards;
  return [
    { of: "a log's requests", share: calls / LIMITS.objectRequests },
    { of: "a log's commits", share: commits / LIMITS.objectCommits },
    { of: "a log's time in transactions", share: (ofShard * counts.commitMs) / events / LIMITS.busyMs },
    { of: "a log's storage", share: (ofShard * LOG_SECONDS * logBytes) / events / LIMITS.objectBytes },
    { of: "a database's time in statements", share: (rate * counts.databaseMs) / events / databases / LIMITS.busyMs },
    { of: "the queue's messages", share: (messages * shards) / LIMITS.messages },
  ];
}

const most = (of: readonly Use[]): Use => of.reduce((a, b) => (b.share > a.share ? b : a));

/** The fewest logs of which none is past a limit. */
function shardsFor(shape: Shape, rate: number, settings: Settings): number {
  const ofLogs = (shards: number): Use[] => uses(shape, rate, shards, 1, settings).slice(0, 4);
  let shards = 1;
  while (most(ofLogs(shards)).share > 1) shards++;
  return shards;
}

/**
 * Dollars a month. Per event as counted, but for the rows of groups and their confirmations, which are
 * as many as commits, and for the calls of a request, which are as many as logs take a part of it; per log what its alarms and the minutes cost; awake are all logs always.
 */
function monthly(shape: Shape, rate: number, shards: number, settings: Settings): number {
  const { counts, events, eachMinute, seconds, cpuMs } = shape.counted;
  const { groups, calls } = shardLoad(shape, rate, shards, settings);
  const countedCalls = Math.min(shape.perRequest, settings.shards) / shape.perRequest;
  const moreCalls = (calls * shards - rate * countedCalls) * PRICES.objectRequest;
  const perEvent = dollarsOf(costLines(counts)) / events;
  const countedGroups = (2 * counts.groups + counts.alarmsSet) * PRICES.objectRowWritten;
  const perGroup = 2 * groups * shards * PRICES.objectRowWritten;
  const alarms = (counts.alarmsSet / seconds / settings.shards) * shards * PRICES.objectRowWritten;
  const minutes = (dollarsOf(costLines(eachMinute)) / 60 / settings.shards) * shards;
  const awake = awakeDollars(shards + (rate * counts.meterBusyMs) / events / 1_000);
  const cpu = (rate * cpuMs * PRICES.workerCpuMs) / events;
  const perSecond = rate * (perEvent - countedGroups / events) + perGroup + moreCalls + alarms + minutes + awake + cpu;
  return perSecond * MONTH_SECONDS;
}

export function extrapolate({ sync, stream, settings }: Cases): Table[] {
  const shapes: Shape[] = [
    { name: "sync", counted: sync, perRequest: 1 },
    { name: "stream", counted: stream, perRequest: STREAM_EVENTS },
  ];
  return [limitsTable(shapes, settings), ratesTable(shapes, settings)];
}

/** At what rate each part is at its limit as things are configured. */
function limitsTable(shapes: readonly Shape[], settings: Settings): Table {
  const rate = 1_000;
  const columns = shapes.map((shape) => uses(shape, rate, settings.shards, 1, settings));
  return {
    title: `Scale, calculated: events a second at which each part is at its limit, ${settings.shards} shards, one database`,
    columns: ["", ...shapes.map(({ name }) => name)],
    rows: (columns[0] ?? []).map(({ of }, i) => [of, ...shapes.map((shape) => reachedAt(shape, i, settings))]),
    notes: [
      "Limits: an object takes 1,000 requests and 500 transactions a second, and keeps 8 GB (LOG_HIGH_WATER_MB) over 36 hours; a database and an object run one statement at a time; a queue takes 5,000 messages a second.",
      "Times are measured here, in the log's transactions and in D1's statements; a log's storage is what its events take.",
    ],
  };
}

/** The rate at which a use is 1; found by halving, since not every use grows evenly. */
function reachedAt(shape: Shape, use: number, settings: Settings): string {
  const share = (rate: number): number => uses(shape, rate, settings.shards, 1, settings)[use]?.share ?? 0;
  let [low, high] = [1, 1e9];
  if (share(high) < 1) return "never";
  while (high / low > 1.001) {
    const middle = Math.sqrt(low * high);
    if (share(middle) < 1) low = middle;
    else high = middle;
  }
  return Math.round(low).toLocaleString("en");
}

function ratesTable(shapes: readonly Shape[], settings: Settings): Table {
  return {
    title: "Scale, calculated: what it takes, and what it costs a month",
    columns: [
      "events/s",
      "",
      `first at its limit with ${settings.shards} shards, one database`,
      "shards",
      "databases, by time",
      "new databases a month, by size",
      "operations and objects, $",
      "a month's events stored, $ a month",
    ],
    rows: RATES.flatMap((rate) => shapes.map((shape) => rateRow(shape, rate, settings))),
    notes: [
      "Prices beyond what the plan includes. Operations: as counted, with CPU and awake objects as estimated above.",
      "Stored: a month's events in D1, to be paid for as long as they are kept, and 36 hours of them in the logs.",
    ],
  };
}

function rateRow(shape: Shape, rate: number, settings: Settings): (string | number)[] {
  const { counts, events, databaseBytes, logBytes } = shape.counted;
  const first = most(uses(shape, rate, settings.shards, 1, settings));
  const shards = Math.max(settings.shards, shardsFor(shape, rate, settings));
  const monthBytes = (rate * MONTH_SECONDS * databaseBytes) / events;
  const stored =
    (monthBytes / GB) * PRICES.databaseGbMonth + ((rate * LOG_SECONDS * logBytes) / events / GB) * PRICES.objectGbMonth;
  return [
    rate.toLocaleString("en"),
    shape.name,
    `${first.of} (${Math.round(100 * first.share)} %)`,
    shards,
    Math.ceil((rate * counts.databaseMs) / events / LIMITS.busyMs),
    Math.ceil(monthBytes / LIMITS.databaseBytes),
    Math.round(monthly(shape, rate, shards, settings)).toLocaleString("en"),
    Math.round(stored).toLocaleString("en"),
  ];
}
