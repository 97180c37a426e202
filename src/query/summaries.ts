import { bind } from "../aggregate/sql/bind.ts";
import type { Order } from "../aggregate/sql/events.ts";
import { type Holding, quarterOf } from "../aggregate/sql/slices.ts";
import { readSums, SERIES_IN_SUMS, sumSlice } from "../aggregate/sql/sums.ts";
import { latestOfSlice, readSurvivors, SERIES_IN_SURVIVORS, WINDOW_MS } from "../aggregate/sql/survivors.ts";
import type { Counted } from "../archive/file.ts";
import { ArchiveReader, type FoundFiles, findFiles } from "../archive/read.ts";
import type { MeteringError } from "../domain/errors.ts";
import { LIMITS } from "../domain/limits.ts";
import { aggregationOf, type Meter } from "../domain/meter.ts";
import { err, ok, type Result } from "../domain/result.ts";
import { fromLimbs } from "../domain/value.ts";
import { ceilTo, floorTo, QUARTER_HOUR_MS, splitAtQuarterHours, type TimeRange } from "../domain/window.ts";
import type { Env } from "../env.ts";
import { sourcesOf, twiceIfDeleted, withSlices } from "./sources.ts";

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
 * Throws when a database or R2 does not answer: a smaller sum would be a wrong one. Yields `databases_changed`; and, when
 * events of archived slices are needed, `archived_range_unaligned` and `archived_range_deleted`.
 */
export async function readSummaries(env: Env, query: SummaryQuery): Promise<Result<Summary[], MeteringError>> {
  const sources = await sourcesOf(env, query.meter, query.customer);
  if (!sources.ok) return sources;
  const read = aggregationOf(query.meter) === "additive" ? sumsByWindow : survivorsByWindow;
  const values = await twiceIfDeleted(() => read(env, sources.value, query));
  if (!values.ok) return values;
  const starts = [...values.value.keys()].sort((a, b) => (query.order === "newest_first" ? b - a : a - b));
  return ok(
    starts
      .slice(0, query.limit)
      .map((start) => ({ start, end: start + query.windowLength, value: values.value.get(start) ?? 0n })),
  );
}

/** A value of each window. */
type Values = Map<number, bigint>;

/** What is asked of each database for a range: SQL, with :meter and :customer. */
type Parts<Archived> = {
  /** Of its whole quarter hours. */
  readonly whole: { readonly sql: string; readonly values: Readonly<Record<string, unknown>> };
  /** Of a slice, from :from to :to (ms, half open). */
  readonly ofSlice: (slice: number) => string;
  /** The series that count in the quarter hours of :from to :to (ms, half open). */
  readonly series: string;
  /** What some archived events come to, at least one: no event of a file is kept. */
  readonly ofArchived: (events: readonly Counted[]) => Archived;
};

async function sumsByWindow(
  env: Env,
  databases: readonly D1Database[],
  query: SummaryQuery,
): Promise<Result<Values, MeteringError>> {
  const { range, windowLength: length, order, limit, meter } = query;
  const { whole } = splitAtQuarterHours(range);
  const values = { from: quarterOf(whole.start), to: quarterOf(whole.end), origin: range.start, length, limit };
  const ofArchived = (events: readonly Counted[]): PartialSum => ({
    start: range.start,
    count: BigInt(events.length),
    sum: events.reduce((sum, { value }) => sum + BigInt(value), 0n),
  });
  type SumRow = { start?: number; count: string; sum_high: string; sum_low: string };
  const found = await readParts<SumRow, PartialSum>(env, databases, query, {
    whole: { sql: readSums(order), values },
    ...{ ofSlice: sumSlice, series: SERIES_IN_SUMS, ofArchived },
  });
  if (!found.ok) return found;
  const { rows, archived } = found.value;
  const parts: PartialSum[] = [
    ...rows.map(({ start = range.start, count, sum_high, sum_low }) => ({
      start,
      count: BigInt(count),
      sum: fromLimbs(sum_high, sum_low),
    })),
    ...archived,
  ];
  const sums: Values = new Map();
  for (const { start, count, sum } of parts) {
    sums.set(start, (sums.get(start) ?? 0n) + (meter.formula === "count" ? count : sum));
  }
  return ok(sums);
}

/** Rows of whole quarter hours and of live slices; and what the events of archived slices come to, of the edges of a range. */
type Found<Part, Archived> = { readonly rows: readonly Part[]; readonly archived: readonly Archived[] };

/**
 * What all databases say of a range: of its whole quarter hours, and of the slices that hold an edge of it. Only a range
 * that is one window has edges within quarter hours.
 */
async function readParts<Part, Archived>(
  env: Env,
  databases: readonly D1Database[],
  query: SummaryQuery,
  parts: Parts<Archived>,
): Promise<Result<Found<Part, Archived>, MeteringError>> {
  const found = await Promise.all(databases.map((db) => partsOf<Part>(db, query, parts)));
  const searched = found.flatMap((each) => each.archived);
  const files = searched.flatMap((each) => each.files);
  const instead = { of: "summary", aligned: nearestQuarterHours(query.range) } as const;
  // Test mode's slices are dropped without an archive.
  const isDeleted = !query.meter.livemode && searched.some(({ series }) => series.length > 0);
  if (isDeleted) return err({ reason: "archived_range_deleted", instead });
  if (files.length > LIMITS.archiveReads) return err({ reason: "archived_range_unaligned", instead });
  const archived: Archived[] = [];
  const read = await new ArchiveReader(env).readCounted(files, (events) => {
    if (events.length > 0) archived.push(parts.ofArchived(events));
  });
  if (!read.ok) return err({ reason: "archived_range_deleted", instead });
  return ok({ rows: found.flatMap((each) => each.rows), archived });
}

async function partsOf<Part>(
  db: D1Database,
  query: SummaryQuery,
  parts: Omit<Parts<unknown>, "ofArchived">,
): Promise<PartsOfOne<Part>> {
  const { meter, customer, range, order } = query;
  const { edges } = splitAtQuarterHours(range);
  const key = { meter: meter.id, customer };
  const whole = bind(db, parts.whole.sql, { ...key, ...parts.whole.values });
  const read = async (holding: readonly Holding[]): Promise<PartsOfOne<Part>> => {
    const ofEdges = holding.flatMap(({ range: { start, end }, live }) =>
      live.map(({ slice }) => bind(db, parts.ofSlice(slice), { ...key, from: start, to: end })),
    );
    const rows = (await db.batch<Part>([whole, ...ofEdges])).flatMap(({ results }) => results);
    const searches = holding.flatMap(({ range: edge, archived }) =>
      archived === undefined
        ? []
        : { range: edge, slices: archived.slices, series: parts.series, key, order, limit: LIMITS.archiveReads + 1 },
    );
    return { rows, archived: await Promise.all(searches.map((search) => findFiles(db, search))) };
  };
  return edges.length === 0 ? read([]) : withSlices(db, edges, read);
}

/** The least range of whole quarter hours that holds another. */
const nearestQuarterHours = ({ start, end }: TimeRange): TimeRange => ({
  start: floorTo(start, QUARTER_HOUR_MS),
  end: ceilTo(end, QUARTER_HOUR_MS),
});

/** What a database says; and of each edge that archived slices may hold timestamps of, where its events are. */
type PartsOfOne<Part> = { readonly rows: readonly Part[]; readonly archived: readonly FoundFiles[] };

/**
 * A survivor counts in the range that holds its timestamp: a range that cuts a window never falls back to other
 * events of it. So the greatest of a window is found first, among all databases, and then looked for in the range.
 */
async function survivorsByWindow(
  env: Env,
  databases: readonly D1Database[],
  query: SummaryQuery,
): Promise<Result<Values, MeteringError>> {
  const { range, windowLength, meter } = query;
  const found = await readSurvivorsOf(env, databases, query);
  if (!found.ok) return found;
  const survivors = [...Map.groupBy(found.value, ({ stretch }) => stretch).values()]
    .map((ofOne) => ofOne.reduce(greater))
    .filter(({ timestamp }) => timestamp >= range.start && timestamp < range.end);
  const byWindow = Map.groupBy(
    survivors,
    ({ timestamp }) => range.start + floorTo(timestamp - range.start, windowLength),
  );
  return ok(new Map([...byWindow].map(([start, ofWindow]) => [start, aggregated(meter, ofWindow)])));
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

async function readSurvivorsOf(
  env: Env,
  databases: readonly D1Database[],
  query: SummaryQuery,
): Promise<Result<Survivor[], MeteringError>> {
  const { meter, customer, range, windowLength, order, limit } = query;
  const aggregation = aggregationOf(meter);
  if (aggregation === "additive" || aggregation === "latest_of_quarter_hour") {
    const { whole } = splitAtQuarterHours(range);
    const values = { from: whole.start, to: whole.end, origin: range.start, length: windowLength, limit };
    const found = await readParts<Survivor, Survivor>(env, databases, query, {
      whole: { sql: readSurvivors(order), values },
      ...{ ofSlice: latestOfSlice, series: SERIES_IN_SURVIVORS },
      ofArchived: (events) => events.map((event) => ({ ...event, stretch: 0, rank: event.timestamp })).reduce(greater),
    });
    if (!found.ok) return found;
    return ok([...found.value.rows, ...found.value.archived]);
  }
  const length = WINDOW_MS[aggregation];
  // As many as fill the page, and the two that its range may cut.
  const most = limit * Math.ceil(windowLength / length) + 2;
  const key = { meter: meter.id, customer };
  const values = { ...key, from: floorTo(range.start, length), to: range.end, origin: 0, length, limit: most };
  const found = databases.map((db) => bind(db, readSurvivors(order), values).all<Survivor>());
  return ok((await Promise.all(found)).flatMap(({ results }) => results));
}
