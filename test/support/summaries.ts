import type { Order } from "../../src/aggregate/sql/events.ts";
import type { MeteringError } from "../../src/domain/errors.ts";
import type { Meter } from "../../src/domain/meter.ts";
import { ok, type Result } from "../../src/domain/result.ts";
import type { TimeRange } from "../../src/domain/window.ts";
import type { Env } from "../../src/env.ts";
import { readUsageOf } from "../../src/query/summaries.ts";

type Query = {
  readonly meter: Meter;
  readonly customer: string;
  readonly range: TimeRange;
  readonly windowLength: number;
  readonly order: Order;
  readonly limit: number;
};

/** What a customer used in a window. */
export type Summary = TimeRange & { readonly value: bigint };

/** What a customer used, by windows of one length (ms). */
export async function readSummaries(
  env: Env,
  { range, windowLength: length, order: windows, ...query }: Query,
): Promise<Result<Summary[], MeteringError>> {
  const order = { windows, groups: "ascending" } as const;
  const found = await readUsageOf(env, { ...query, runs: [{ ...range, length }], order, filters: [], keys: [] });
  return found.ok ? ok(found.value.map(({ start, end, value }) => ({ start, end, value }))) : found;
}
