import { SUMMARIES } from "../aggregate/sql/statements.ts";
import { aggregationOf, type Meter } from "../domain/meter.ts";
import { fromLimbs } from "../domain/value.ts";
import { DAY_MS, floorTo, HOUR_MS, splitAtHours, type TimeRange } from "../domain/window.ts";

/** What a customer used on a meter from `start` to `end` (ms, half open). */
export type Summary = TimeRange & { readonly value: bigint };

export type SummaryQuery = {
  readonly meter: Meter;
  readonly customer: string;
  /** Of any bounds, or aligned with `windowLength`. */
  readonly range: TimeRange;
  /** The length of a window (ms); the range's own length for one summary of it all. */
  readonly windowLength: number;
  readonly order: "newest_first" | "oldest_first";
  /** Rows. */
  readonly limit: number;
};

type SummaryRow = { start: number; count: string; sum_high: string; sum_low: string; last?: string };

const NOTHING: TimeRange = { start: 0, end: 0 };

/** The summaries of a range, one per window that has events. */
export async function readSummaries(db: D1Database, query: SummaryQuery): Promise<Summary[]> {
  const { meter, customer, range, windowLength, order, limit } = query;
  const { hours, edges } = sourcesOf(meter, range);
  const additive = aggregationOf(meter) === "additive";
  const { results } = await db
    .prepare(SUMMARIES[additive ? "additive" : "survivors"][order])
    .bind(
      meter.id,
      customer,
      hours.start,
      hours.end,
      edges[0].start,
      edges[0].end,
      edges[1].start,
      edges[1].end,
      range.start,
      windowLength,
      limit,
      ...(additive ? [] : [range.start, range.end]),
    )
    .all<SummaryRow>();
  return results.map((row) => ({
    start: row.start,
    end: row.start + windowLength,
    value: aggregatedValue(row, meter),
  }));
}

/** Which rows answer a range: those of windows (by their start), and events at its edges. */
function sourcesOf({ eventTimeWindow }: Meter, range: TimeRange): ReturnType<typeof splitAtHours> {
  if (eventTimeWindow === null) return splitAtHours(range);
  const length = eventTimeWindow === "day" ? DAY_MS : HOUR_MS;
  return { hours: { start: floorTo(range.start, length), end: range.end }, edges: [NOTHING, NOTHING] };
}

function aggregatedValue(row: SummaryRow, { formula }: Meter): bigint {
  switch (formula) {
    case "count":
      return BigInt(row.count);
    case "sum":
      return fromLimbs(row.sum_high, row.sum_low);
    case "last":
      return BigInt(row.last ?? 0);
  }
}
