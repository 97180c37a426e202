import { DAY_MS } from "../../domain/window.ts";

/** What a million events cost at Cloudflare ($), one request each and in streams: docs/costs.md has the items. */
const PER_MILLION = { sync: 3.95, stream: 2.24 } as const;

/** A gigabyte for a month ($), in D1 and in Durable Objects. */
const PER_GB = { databases: 0.75, logs: 0.2 } as const;

const MONTH_MS = 365.25 * (DAY_MS / 12);

/** What a deployment holds and takes. */
export type Usage = { readonly entriesPerDay: number; readonly databaseBytes: number; readonly logBytes: number };

/** About what a month costs ($) at a pace, beside the plan and without what it includes; in cents. */
export function monthlyCost({ entriesPerDay, databaseBytes, logBytes }: Usage): {
  readonly ifStreamed: number;
  readonly ifSync: number;
  readonly storage: number;
} {
  const millions = (entriesPerDay * (MONTH_MS / DAY_MS)) / 1_000_000;
  return {
    ifStreamed: inCents(millions * PER_MILLION.stream),
    ifSync: inCents(millions * PER_MILLION.sync),
    storage: inCents((databaseBytes * PER_GB.databases + logBytes * PER_GB.logs) / 1_000_000_000),
  };
}

const inCents = (dollars: number): number => Math.round(dollars * 100) / 100;
