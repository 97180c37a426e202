// What the counted operations and measured loads come to at other rates: by calculation, not by trying.
// Times are those of this machine; Cloudflare's are others, so the shares are what to read.
import { MONTH_SECONDS, PRICES } from "./cost.ts";
import type { CountedCase } from "./counted-case.ts";
import type { Table } from "./results.ts";
import type { Settings } from "./sides.ts";

const RATES = [1_000, 10_000, 100_000];

/** Cloudflare's limits, by their documentation of November 2026, and this project's own (units a second, or bytes). */
const LIMITS = {
  /** Soft; an object that stores something takes half of it. */
  objectRequests: 1_000,
  /** Transactions that write, of one object. */
  objectCommits: 500,
  /** Of one object (LOG_HIGH_WATER_MB; Cloudflare's own is 10 GB). */
  objectBytes: 8_000_000_000,
  /** A database runs one statement at a time, and so does an object (ms of each second). */
  busyMs: 1_000,
  /** DATABASE_HIGH_WATER_MB. */
  databaseBytes: 8_000_000_000,
  /** Of one queue. */
  messages: 5_000,
  messageBytes: 120_000,
} as const;

/** How long a log keeps an event: 24 hours, and until its partition of 12 ends (s). */
const LOG_SECONDS = 36 * 3_600;

const GB = 1_000_000_000;

/** What was counted of events, and what a million costs, with estimates. */
export type Shape = { readonly counted: CountedCase; readonly dollars: number };

/**
 * How much of each limit is used, with one database. A request's events go to as many logs as it has events, at most to
 * all. A log commits at most once per GROUP_COMMIT_MS, and sends at most once per interval unless a message is full.
 */
function uses({ counted }: Shape, rate: number, shards: number, settings: Settings) {
  const { counts, events, logBytes, perRequest } = counted;
  const calls = (rate / perRequest) * (Math.min(perRequest, shards) / shards);
  const commits = Math.min(calls, 1_000 / settings.groupCommitMs);
  const perShard = rate / shards / events;
  // An event's share of a message is most of what the log keeps of it.
  const messages = Math.max(
    Math.min(commits, 1_000 / settings.sendIntervalMs(rate / shards)),
    (perShard * logBytes) / LIMITS.messageBytes,
  );
  return [
    { of: "a log's requests", share: calls / LIMITS.objectRequests },
    { of: "a log's commits", share: commits / LIMITS.objectCommits },
    { of: "a log's time in transactions", share: (perShard * counts.commitMs) / LIMITS.busyMs },
    { of: "a log's storage", share: (perShard * LOG_SECONDS * logBytes) / LIMITS.objectBytes },
    { of: "a database's time in statements", share: (rate * counts.databaseMs) / events / LIMITS.busyMs },
    { of: "the queue's messages", share: (messages * shards) / LIMITS.messages },
  ];
}

/** The fewest logs, but not fewer than there are, of which none is past a limit. */
function shardsFor(shape: Shape, rate: number, settings: Settings): number {
  const past = (shards: number) =>
    uses(shape, rate, shards, settings)
      .slice(0, 4)
      .some(({ share }) => share > 1);
  let { shards } = settings;
  while (past(shards)) shards++;
  return shards;
}

export const extrapolate = (shapes: readonly Shape[], settings: Settings): Table => ({
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
    "Limits: an object takes 1,000 requests and 500 transactions a second, and keeps 8 GB (LOG_HIGH_WATER_MB) over 36 hours; a database and an object run one statement at a time; a queue takes 5,000 messages a second.",
    "Times are measured here, in the log's transactions and in D1's statements; a log's storage is what its events take.",
    "Prices beyond what the plan includes. Operations: a million as counted and estimated above, at any rate. Stored: a month's events in D1, to be paid for as long as they are kept, and 36 hours of them in the logs.",
  ],
});

const count = (number: number): string => Math.round(number).toLocaleString("en");

function rateRow(shape: Shape, rate: number, settings: Settings): string[] {
  const { name, counts, events, databaseBytes, logBytes } = shape.counted;
  const first = uses(shape, rate, settings.shards, settings).reduce((a, b) => (b.share > a.share ? b : a));
  const shards = shardsFor(shape, rate, settings);
  const monthGb = (rate * MONTH_SECONDS * databaseBytes) / events / GB;
  const logGb = (rate * LOG_SECONDS * logBytes) / events / GB;
  return [
    count(rate),
    name,
    `${first.of} (${Math.round(100 * first.share)} %)`,
    String(shards),
    String(Math.ceil((rate * counts.databaseMs) / events / LIMITS.busyMs)),
    String(Math.ceil((monthGb * GB) / LIMITS.databaseBytes)),
    count((rate * MONTH_SECONDS * shape.dollars) / 1e6),
    count(monthGb * PRICES.databaseGbMonth + logGb * PRICES.objectGbMonth),
  ];
}
