// What Cloudflare charges on the Workers paid plan beyond what it includes, in US dollars.
// Source: developers.cloudflare.com, the pricing pages of Workers, Workers Logs, Durable Objects, D1 and Queues, as of November 2026.

const MILLION = 1_000_000;

export const PRICES_AS_OF = "November 2026";

/** For one of each. */
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
  /** A line of Workers Logs. */
  logLine: 0.6 / MILLION,
} as const;

/** What an awake object takes of memory, as it is billed (GB). */
export const OBJECT_GB = 0.128;

export const MONTH_SECONDS = 30 * 86_400;
