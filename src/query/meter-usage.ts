// What a customer used on several meters.
import { bind } from "../aggregate/sql/bind.ts";
import { METERS_OF_CUSTOMER } from "../aggregate/sql/usage.ts";
import { findMeter } from "../catalog/meters.ts";
import type { MeteringError } from "../domain/errors.ts";
import type { Meter } from "../domain/meter.ts";
import { ok, type Result } from "../domain/result.ts";
import { compareBytes } from "../domain/text.ts";
import { type Run, runsWithin, type TimeRange } from "../domain/window.ts";
import type { Env } from "../env.ts";
import { allSources } from "./sources.ts";
import { type CustomerQuery, readUsageOf } from "./summaries.ts";
import { addedUp, type UsageRow } from "./usage.ts";

/** What is asked of one of the meters. */
type OfMeter = Pick<CustomerQuery, "meter" | "filters" | "keys">;

/** A row, and the place of its meter among those asked for. */
export type MeterUsageRow = UsageRow & { readonly place: number };

export type MeterUsageQuery = {
  readonly customer: string;
  readonly runs: readonly Run[];
  readonly meters: readonly OfMeter[];
  /** Whether their values are added up; then nothing is asked of each but its meter. */
  readonly together: boolean;
  /** Only rows after this one, or before it: of later windows, meters and groups. */
  readonly beyond?: { readonly row: MeterUsageRow; readonly backwards: boolean } | undefined;
  /** Rows. */
  readonly limit: number;
};

/** Rows in the order of windows, meters and groups; backwards in the opposite one. Fails as `readUsageOf` does. */
export async function readMeterUsage(
  env: Env,
  query: MeterUsageQuery,
): Promise<Result<MeterUsageRow[], MeteringError>> {
  const { customer, meters, together, beyond, limit } = query;
  const backwards = beyond?.backwards ?? false;
  const order = {
    windows: backwards ? "newest_first" : "oldest_first",
    groups: backwards ? "descending" : "ascending",
  } as const;
  const found = await Promise.all(
    meters.map((asked, place) => readUsageOf(env, { ...asked, customer, ...restOf(query, place), order, limit })),
  );
  const rows: MeterUsageRow[] = [];
  for (const [place, ofMeter] of found.entries()) {
    if (!ofMeter.ok) return ofMeter;
    rows.push(...ofMeter.value.map((row) => ({ ...row, place })));
  }
  const all = together ? addedUp(rows, "sum").map((row) => ({ ...row, place: 0 })) : rows;
  const direction = backwards ? -1 : 1;
  return ok(all.sort((one, other) => direction * compare(one, other)).slice(0, limit));
}

const compare = (one: MeterUsageRow, other: MeterUsageRow): number =>
  one.start - other.start || one.place - other.place || compareBytes(one.group, other.group);

/** What is left of a meter's rows. */
function restOf({ runs, together, beyond }: MeterUsageQuery, place: number): Pick<CustomerQuery, "runs" | "after"> {
  if (beyond === undefined) return { runs };
  const { row, backwards } = beyond;
  const isOwn = !together && place === row.place;
  const hasSameWindow = isOwn || (!together && (backwards ? place < row.place : place > row.place));
  const rest: TimeRange = backwards
    ? { start: Number.NEGATIVE_INFINITY, end: hasSameWindow ? row.end : row.start }
    : { start: hasSameWindow ? row.start : row.end, end: Number.POSITIVE_INFINITY };
  return { runs: runsWithin(runs, rest), after: isOwn ? row : undefined };
}

/** The meters on which a customer has usage: so many, or one more when there are more. Yields `databases_changed`. */
export async function metersOf(
  env: Env,
  livemode: boolean,
  customer: string,
  most: number,
): Promise<Result<Meter[], MeteringError>> {
  const databases = await allSources(env, livemode);
  if (!databases.ok) return databases;
  const found = await Promise.all(
    databases.value.map((db) => bind(db, METERS_OF_CUSTOMER, { customer }).all<{ meter: string }>()),
  );
  const ids = [...new Set(found.flatMap(({ results }) => results.map(({ meter }) => meter)))].slice(0, most + 1);
  const meters = await Promise.all(ids.map((id) => findMeter(env.DB, livemode, id)));
  return ok(meters.filter((meter) => meter !== undefined));
}
