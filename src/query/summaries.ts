import { bind } from "../aggregate/sql/bind.ts";
import type { Order } from "../aggregate/sql/events.ts";
import { holding, type LiveSlice, quarterOf } from "../aggregate/sql/slices.ts";
import { readSums, sumSlice } from "../aggregate/sql/sums.ts";
import { latestOfSlice, readSurvivors, WINDOW_MS } from "../aggregate/sql/survivors.ts";
import type { MeteringError } from "../domain/errors.ts";
import { aggregationOf, type Meter } from "../domain/meter.ts";
import { ok, type Result } from "../domain/result.ts";
import { fromLimbs } from "../domain/value.ts";
import { floorTo, splitAtQuarterHours, type TimeRange } from "../domain/window.ts";
import type { Env } from "../env.ts";
import { sourcesOf, withSlices } from "./sources.ts";

/** What a customer used on a meter from `start` to `end` (ms, half open). */
export type Summary = TimeRange & { readonly value: bigint };

export type SummaryQuery = {
  readonly meter: Meter;
  readonly customer: string;
  /** Of any bounds, or aligned with `windowLength`. */
  readonly range: TimeRange;
  /** The length of a window (ms); the range's own length for one summary of it all. */
  readonly windowLength: number;
  readonly order: Order;
  /** Windows. */
  readonly limit: number;
};

/** What a part of the events of a window adds up to. */
type PartialSum = { readonly start: number; readonly count: bigint; readonly sum: bigint };

/** An event that stands for its window. Of a stretch of windows, or of a window, only the greatest (rank, id) counts. */
type Survivor = {
  readonly stretch: number;
  readonly rank: number;
  readonly timestamp: number;
  readonly id: string;
  readonly value: number;
};

/**
 * The summaries of a range, one per window that has events. Each database and each statement gives its part, newest
 * or oldest windows first and as many as are asked for, so that a window which is on the page has all its parts.
 * Throws when a database does not answer: a smaller sum would be a wrong one. Yields `databases_changed`.
 */
export async function readSummaries(env: Env, query: SummaryQuery): Promise<Result<Summary[], MeteringError>> {
  const sources = await sourcesOf(env, query.meter, query.customer);
  if (!sources.ok) return sources;
  const values = await (aggregationOf(query.meter) === "additive"
    ? sumsByWindow(sources.value, query)
    : survivorsByWindow(sources.value, query));
  const starts = [...values.keys()].sort((a, b) => (query.order === "newest_first" ? b - a : a - b));
  return ok(
    starts
      .slice(0, query.limit)
      .map((start) => ({ start, end: start + query.windowLength, value: values.get(start) ?? 0n })),
  );
}

async function sumsByWindow(databases: readonly D1Database[], query: SummaryQuery): Promise<Map<number, bigint>> {
  const parts = await Promise.all(databases.map((db) => partialSums(db, query)));
  const values = new Map<number, bigint>();
  for (const { start, count, sum } of parts.flat()) {
    values.set(start, (values.get(start) ?? 0n) + (query.meter.formula === "count" ? count : sum));
  }
  return values;
}

async function partialSums(db: D1Database, query: SummaryQuery): Promise<PartialSum[]> {
  const { meter, customer, range, windowLength: length, order, limit } = query;
  const { whole, edges } = splitAtQuarterHours(range);
  const [from, to] = [quarterOf(whole.start), quarterOf(whole.end)];
  const values = { meter: meter.id, customer, from, to, origin: range.start, length, limit };
  const rows = await readParts<{ start?: number; count: string; sum_high: string; sum_low: string }>(
    db,
    bind(db, readSums(order), values),
    edges,
    (slice, edge) => bind(db, sumSlice(slice), { meter: meter.id, customer, from: edge.start, to: edge.end }),
  );
  return rows.map(({ start = range.start, count, sum_high, sum_low }) => ({
    start,
    count: BigInt(count),
    sum: fromLimbs(sum_high, sum_low),
  }));
}

/**
 * Rows of whole quarter hours, and of the slices that hold an edge of the range. Only a range that is one window has
 * edges within quarter hours.
 */
async function readParts<Row>(
  db: D1Database,
  whole: D1PreparedStatement,
  edges: readonly TimeRange[],
  ofEdge: (slice: number, edge: TimeRange) => D1PreparedStatement,
): Promise<Row[]> {
  const read = async (slices: readonly LiveSlice[]): Promise<Row[]> => {
    const ofEdges = edges.flatMap((edge) => holding(slices, edge).map(({ slice }) => ofEdge(slice, edge)));
    return (await db.batch<Row>([whole, ...ofEdges])).flatMap(({ results }) => results);
  };
  return edges.length === 0 ? read([]) : withSlices(db, read);
}

/**
 * A survivor counts in the range that holds its timestamp: a range that cuts a window never falls back to other
 * events of it. So the greatest of a window is found first, among all databases, and then looked for in the range.
 */
async function survivorsByWindow(databases: readonly D1Database[], query: SummaryQuery): Promise<Map<number, bigint>> {
  const { range, windowLength, meter } = query;
  const found = (await Promise.all(databases.map((db) => survivorsOf(db, query)))).flat();
  const survivors = [...Map.groupBy(found, ({ stretch }) => stretch).values()]
    .map((ofOne) => ofOne.reduce(greater))
    .filter(({ timestamp }) => timestamp >= range.start && timestamp < range.end);
  const byWindow = Map.groupBy(
    survivors,
    ({ timestamp }) => range.start + floorTo(timestamp - range.start, windowLength),
  );
  return new Map([...byWindow].map(([start, ofWindow]) => [start, aggregated(meter, ofWindow)]));
}

function aggregated({ formula }: Meter, survivors: readonly Survivor[]): bigint {
  if (formula === "count") return BigInt(survivors.length);
  if (formula === "sum") return survivors.reduce((sum, { value }) => sum + BigInt(value), 0n);
  const latest = survivors
    .map((survivor) => ({ ...survivor, rank: survivor.timestamp }))
    .reduce<Survivor | undefined>(
      (last, survivor) => (last === undefined ? survivor : greater(last, survivor)),
      undefined,
    );
  return BigInt(latest?.value ?? 0);
}

const greater = (one: Survivor, other: Survivor): Survivor =>
  one.rank > other.rank || (one.rank === other.rank && one.id > other.id) ? one : other;

async function survivorsOf(db: D1Database, query: SummaryQuery): Promise<Survivor[]> {
  const { meter, customer, range, windowLength, order, limit } = query;
  const aggregation = aggregationOf(meter);
  const key = { meter: meter.id, customer };
  if (aggregation === "additive" || aggregation === "latest_of_quarter_hour") {
    const { whole, edges } = splitAtQuarterHours(range);
    const values = { ...key, from: whole.start, to: whole.end, origin: range.start, length: windowLength, limit };
    return readParts(db, bind(db, readSurvivors(order), values), edges, (slice, edge) =>
      bind(db, latestOfSlice(slice), { ...key, from: edge.start, to: edge.end }),
    );
  }
  const length = WINDOW_MS[aggregation];
  // As many as fill the page, and the two that its range may cut.
  const most = limit * Math.ceil(windowLength / length) + 2;
  const values = { ...key, from: floorTo(range.start, length), to: range.end, origin: 0, length, limit: most };
  return (await bind(db, readSurvivors(order), values).all<Survivor>()).results;
}
