import type { MeteringError } from "../domain/errors.ts";
import type { Meter } from "../domain/meter.ts";
import type { Result } from "../domain/result.ts";
import type { Run } from "../domain/window.ts";
import type { Env } from "../env.ts";
import { sourcesOf, twiceIfDeleted } from "./sources.ts";
import { readUsage, type UsagePage, type UsageQuery, type UsageRow } from "./usage.ts";

/** What a customer used on a meter, and which part of it. */
export type CustomerQuery = Pick<UsageQuery, "filters" | "keys"> &
  UsagePage & {
    readonly meter: Meter;
    readonly customer: string;
    readonly runs: readonly Run[];
  };

/** A page of a customer's usage, as `readUsage` gives it. Yields `databases_changed` too. */
export async function readUsageOf(
  env: Env,
  { meter, customer, runs, filters, keys, ...page }: CustomerQuery,
): Promise<Result<UsageRow[], MeteringError>> {
  const sources = await sourcesOf(env, meter, customer);
  if (!sources.ok) return sources;
  const customers = { first: customer, last: customer };
  const query = { meter, customers, runs, filters, keys, byCustomer: false };
  return twiceIfDeleted(() => readUsage(env, sources.value, query, page));
}
