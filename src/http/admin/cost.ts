/**
 * What a million events cost at Cloudflare ($), in dense traffic of one request each and in dense streams: docs/costs.md
 * has the items.
 */
const PER_MILLION = { sync: 3.85, stream: 2.22 } as const;

/** A gigabyte for a month ($), in D1 and in Durable Objects. */
const PER_GB = { databases: 0.75, logs: 0.2 } as const;

/** As docs/costs.md counts. */
const DAYS_A_MONTH = 30;

/** What a deployment holds and takes. */
export type Usage = { readonly entriesPerDay: number; readonly databaseBytes: number; readonly logBytes: number };

/** About what a month costs ($) at a pace, beside the plan and without what it includes; rounded to cents. */
export function monthlyCost({ entriesPerDay, databaseBytes, logBytes }: Usage): {
  readonly ifStreamed: number;
  readonly ifSync: number;
  readonly storage: number;
} {
  const millions = (entriesPerDay * DAYS_A_MONTH) / 1_000_000;
  return {
    ifStreamed: inCents(millions * PER_MILLION.stream),
    ifSync: inCents(millions * PER_MILLION.sync),
    storage: inCents((databaseBytes * PER_GB.databases + logBytes * PER_GB.logs) / 1_000_000_000),
  };
}

const inCents = (dollars: number): number => Math.round(dollars * 100) / 100;
