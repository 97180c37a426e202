// What was used on a meter, by windows: partial results of databases, slices and files, added up.
import { bind } from "../aggregate/sql/bind.ts";
import { quarterOf } from "../aggregate/sql/slices.ts";
import { readSums, seriesInSums, sumSlice } from "../aggregate/sql/sums.ts";
import {
  greatestOfSlice,
  outranks,
  rankOf,
  readSurvivors,
  seriesInSurvivors,
  WINDOW_MS,
} from "../aggregate/sql/survivors.ts";
import type { RowOrder, Shape } from "../aggregate/sql/usage.ts";
import type { Counted } from "../archive/file.ts";
import { ArchiveReader, findFiles, type WantedFile } from "../archive/read.ts";
import type { MeteringError } from "../domain/errors.ts";
import { LIMITS } from "../domain/limits.ts";
import { type Aggregation, aggregationOf, type Formula, type Meter } from "../domain/meter.ts";
import { err, ok, type Result } from "../domain/result.ts";
import { compareBytes } from "../domain/text.ts";
import { fromLimbs } from "../domain/value.ts";
import {
  ceilTo,
  floorTo,
  QUARTER_HOUR_MS,
  type Run,
  runsWithin,
  splitAtQuarterHours,
  type TimeRange,
  windowAt,
  windowsIn,
} from "../domain/window.ts";
import type { Env } from "../env.ts";
import { withSlices } from "./sources.ts";

/** Only usage whose dimension has one of some values. */
export type DimensionFilter = { readonly key: string; readonly values: readonly string[] };

/** What is asked of a meter. */
export type UsageQuery = {
  readonly meter: Meter;
  /** From one to another, in the order of their bytes. */
  readonly customers: { readonly first: string; readonly last: string };
  /** The windows: side by side, in their order. Their bounds may be any times. */
  readonly runs: readonly Run[];
  readonly filters: readonly DimensionFilter[];
  /** Dimensions whose values tell rows apart. */
  readonly keys: readonly string[];
  /** Whether customers tell rows apart; unless they do, their values are added up. */
  readonly byCustomer: boolean;
};

/** What was used in a window. */
export type UsageRow = TimeRange & {
  /** "" where customers are added up. */
  readonly customer: string;
  /** The values of the keys, as a JSON array; null where usage is past the limit of combinations. */
  readonly group: string;
  readonly value: bigint;
};

/** The first rows in an order: of the window of `after` those of later groups alone. */
export type UsagePage = {
  readonly order: RowOrder;
  readonly after?: Pick<UsageRow, "start" | "group"> | undefined;
  /** Rows. */
  readonly limit: number;
};

/** Where a part of usage belongs. */
type Place = { readonly start: number; readonly customer: string; readonly grp: string };

/** What a part of the events of a window adds up to. */
type Sum = Place & { readonly count: bigint; readonly sum: bigint };

/** An event that stands for its window. Of those of one place only the greatest (rank, id) counts. */
type Survivor = Place & {
  readonly rank: number;
  readonly timestamp: number;
  readonly id: string;
  readonly value: number;
};

/** How a kind of meter's usage is read, and made of its parts. */
type Kind<Part> = {
  /** Of whole quarter hours. */
  readonly whole: (shape: Shape, order: RowOrder, isOneWindow: boolean) => string;
  readonly ofSlice: (slice: number, shape: Shape, order: RowOrder) => string;
  readonly series: (shape: Shape) => string;
  readonly read: (row: never) => Part;
  /** What an archived event comes to. */
  readonly ofEvent: (event: Counted, place: Place) => Part;
  /** What two parts of one place come to. */
  readonly together: (one: Part, other: Part) => Part;
  /** Rows of parts, of which each place has one. */
  readonly toRows: (parts: readonly Part[], query: UsageQuery) => UsageRow[];
};

type SumRow = Place & { count: string; sum_high: string; sum_low: string };

const SUMS: Kind<Sum> = {
  whole: readSums,
  ofSlice: sumSlice,
  series: seriesInSums,
  read: ({ count, sum_high, sum_low, ...place }: SumRow) => ({
    ...place,
    count: BigInt(count),
    sum: fromLimbs(sum_high, sum_low),
  }),
  ofEvent: ({ value }, place) => ({ ...place, count: 1n, sum: BigInt(value) }),
  together: (one, other) => ({ ...one, count: one.count + other.count, sum: one.sum + other.sum }),
  toRows: (parts, { meter, runs }) =>
    parts.flatMap(({ start, customer, grp, count, sum }) => {
      const window = windowAt(runs, start);
      return window === undefined
        ? []
        : { ...window, customer, group: grp, value: meter.formula === "count" ? count : sum };
    }),
};

const survivorsOf = (aggregation: Exclude<Aggregation, "additive">): Kind<Survivor> => ({
  whole: readSurvivors,
  ofSlice: greatestOfSlice(aggregation),
  series: seriesInSurvivors,
  read: (row: Survivor) => row,
  ofEvent: ({ timestamp, id, value }, place) => ({
    ...{ ...place, rank: rankOf(aggregation, { timestamp, value }) },
    ...{ timestamp, id, value },
  }),
  together: (one, other) => (outranks(one, other) ? one : other),
  // A survivor counts in the window that holds its timestamp: one that cuts a window of the meter's own never falls
  // back to other events of it.
  toRows: (parts, { meter, runs, byCustomer }) => {
    const placed = parts.flatMap((part) => {
      const window = windowAt(runs, part.timestamp);
      return window === undefined ? [] : { ...part, ...window };
    });
    const rows = [...Map.groupBy(placed, keyOf).values()].flatMap((ofOne): UsageRow[] => {
      const [first] = ofOne;
      if (first === undefined) return [];
      const { start, end, customer, grp } = first;
      return [{ start, end, customer, group: grp, value: aggregated(meter, ofOne) }];
    });
    return byCustomer
      ? rows
      : addedUp(
          rows.map((row) => ({ ...row, customer: "" })),
          meter.formula,
        );
  },
});

function aggregated({ formula }: Meter, survivors: readonly Survivor[]): bigint {
  if (formula === "count") return BigInt(survivors.length);
  if (formula !== "last") return survivors.map(({ value }) => BigInt(value)).reduce(combined(formula));
  const latest = survivors
    .map((survivor) => ({ ...survivor, rank: survivor.timestamp }))
    .reduce((one, other) => (outranks(one, other) ? one : other));
  return BigInt(latest.value);
}

const keyOf = ({ start, customer, grp }: Place): string => `${start} ${grp} ${customer}`;

/** What two values of a formula come to together, as of two customers: of `max` and `min` one of them, else their sum. */
const combined =
  (formula: Formula) =>
  (one: bigint, other: bigint): bigint => {
    if (formula === "max") return one > other ? one : other;
    if (formula === "min") return one < other ? one : other;
    return one + other;
  };

/** Rows of one window, customer and group as one. */
export function addedUp(rows: readonly UsageRow[], formula: Formula): UsageRow[] {
  const sums = new Map<string, UsageRow>();
  for (const row of rows) {
    const key = keyOf({ ...row, grp: row.group });
    const known = sums.get(key);
    sums.set(key, known === undefined ? row : { ...row, value: combined(formula)(known.value, row.value) });
  }
  return [...sums.values()];
}

/** Parts of usage, which may be read at different times as long as each is of other quarter hours or edges. */
export type Parts = readonly Place[];

/** How a meter's usage is read. Its parts are told from those of other kinds by nothing but the meter. */
function kindOf(meter: Meter): Kind<Place> {
  const aggregation = aggregationOf(meter);
  return (aggregation === "additive" ? SUMS : survivorsOf(aggregation)) as unknown as Kind<Place>;
}

/** What parts come to. */
export const rowsOf = (query: UsageQuery, parts: Parts): UsageRow[] => {
  const kind = kindOf(query.meter);
  return kind.toRows(together(kind, parts), query);
};

/** Parts of one place as one. */
function together(kind: Kind<Place>, parts: Parts): Place[] {
  const byPlace = new Map<string, Place>();
  for (const part of parts) {
    const known = byPlace.get(keyOf(part));
    byPlace.set(keyOf(part), known === undefined ? part : kind.together(known, part));
  }
  return [...byPlace.values()];
}

/** Places rows of a page in its order. */
export const compareRows =
  ({ windows, groups }: RowOrder) =>
  (one: UsageRow, other: UsageRow): number =>
    (windows === "newest_first" ? other.start - one.start : one.start - other.start) ||
    (groups === "ascending" ? compareBytes(one.group, other.group) : compareBytes(other.group, one.group));

/**
 * A page of what one customer used, one row per window and group that has events. Each database and each statement
 * gives its part: the first rows in the page's order and as many as are asked for, so that a row which is on the page
 * has all its parts. Throws when a database or R2 does not answer: a smaller sum would be a wrong one. Yields
 * `archived_range_unaligned` and `archived_range_deleted` when events of archived slices are needed, and
 * `usage_too_large`.
 */
export async function readUsage(
  env: Env,
  databases: readonly D1Database[],
  query: UsageQuery,
  page: UsagePage,
): Promise<Result<UsageRow[], MeteringError>> {
  if (ownWindowOf(query.meter) !== undefined) return readOwnWindows(databases, query, page);
  const [whole, edges] = await Promise.all([readWhole(databases, query, page), readEdges(env, databases, query, page)]);
  if (!whole.ok) return whole;
  return edges.ok ? ok(cut(rowsOf(query, [...whole.value, ...edges.value]), page)) : edges;
}

/** The rows of a page. */
function cut(rows: readonly UsageRow[], { order, after, limit }: UsagePage): UsageRow[] {
  const direction = order.groups === "ascending" ? 1 : -1;
  const isAfter = ({ start, group }: UsageRow): boolean =>
    start !== after?.start || direction * compareBytes(group, after.group) > 0;
  return rows.filter(isAfter).sort(compareRows(order)).slice(0, limit);
}

/**
 * Of a meter with windows of its own, any number of survivors may be in one window of the page. So it is read by as many
 * windows as may fill it, and by more while they do not.
 */
async function readOwnWindows(
  databases: readonly D1Database[],
  query: UsageQuery,
  page: UsagePage,
): Promise<Result<UsageRow[], MeteringError>> {
  const newestFirst = page.order.windows === "newest_first";
  let rest = rangeOf(query.runs);
  let rows: UsageRow[] = [];
  for (let most = page.limit; rest.start < rest.end && rows.length < page.limit; most *= 4) {
    const range = firstWindows(query.runs, rest, most, newestFirst);
    const part = { ...query, runs: runsWithin(query.runs, range) };
    const found = await readWhole(databases, part, { ...page, after: undefined, limit: ALL_ROWS });
    if (!found.ok) return found;
    rows = [...rows, ...cut(rowsOf(part, found.value), page)];
    rest = newestFirst ? { start: rest.start, end: range.start } : { start: range.end, end: rest.end };
  }
  return ok(rows.slice(0, page.limit));
}

/** The range of the first so many windows of a part of some runs. */
function firstWindows(runs: readonly Run[], part: TimeRange, most: number, newestFirst: boolean): TimeRange {
  let left = most;
  let { start, end } = newestFirst ? { start: part.end, end: part.end } : { start: part.start, end: part.start };
  const inOrder = runsWithin(runs, part);
  for (const run of newestFirst ? inOrder.toReversed() : inOrder) {
    if (left <= 0) break;
    const windows = Math.min(left, (run.end - run.start) / run.length);
    if (newestFirst) start = run.end - windows * run.length;
    else end = run.start + windows * run.length;
    left -= windows;
  }
  return { start, end };
}

const rangeOf = (runs: readonly Run[]): TimeRange => ({ start: runs[0]?.start ?? 0, end: runs.at(-1)?.end ?? 0 });

/** As many rows as a statement gives at most, and one more. */
const ALL_ROWS = LIMITS.usageRows + 1;

/** A page that has all rows. */
export const ALL: UsagePage = { order: { windows: "oldest_first", groups: "ascending" }, limit: ALL_ROWS };

/** Windows as statements take them: of the quarter hours of a range, or of its times. */
type BoundRun = readonly [first: number, last: number, origin: number, length: number];

/** A part of a window that has no whole quarter hour, or is next to those. */
type Edge = TimeRange & { readonly window: TimeRange };

/** Cuts windows where quarter hours begin. */
function splitRuns(runs: readonly Run[]): { readonly whole: BoundRun[]; readonly edges: Edge[] } {
  const whole: BoundRun[] = [];
  const edges: Edge[] = [];
  for (const run of runs) {
    if (run.start % QUARTER_HOUR_MS === 0 && run.length % QUARTER_HOUR_MS === 0) {
      whole.push([quarterOf(run.start), quarterOf(run.end), run.start, run.length]);
      continue;
    }
    for (const window of windowsIn(run)) {
      const parts = splitAtQuarterHours(window);
      const { start, end } = parts.whole;
      if (start < end) whole.push([quarterOf(start), quarterOf(end), window.start, window.end - window.start]);
      edges.push(...parts.edges.map((edge) => ({ ...edge, window })));
    }
  }
  return { whole, edges };
}

/** What statements are bound to, and their shape. */
function boundBy({ meter, customers, filters, keys, ...query }: UsageQuery, { after, limit }: UsagePage) {
  const survives = aggregationOf(meter) !== "additive";
  return {
    // Survivors are compared customer by customer.
    shape: { filtered: filters.length > 0, grouped: keys.length > 0, byCustomer: query.byCustomer || survives },
    values: {
      ...{ meter: meter.id, ...customers, keys: JSON.stringify(keys) },
      filters: JSON.stringify(filters.map(({ key, values }) => [key, values])),
      ...{ after_start: after?.start ?? null, after_group: after?.group ?? "", limit },
    },
  };
}

/** The length of a meter's own windows (ms), of which each has one survivor that was received last. */
function ownWindowOf(meter: Meter): number | undefined {
  const aggregation = aggregationOf(meter);
  return aggregation === "additive" || meter.eventTimeWindow === null ? undefined : WINDOW_MS[aggregation];
}

/**
 * What databases have of whole quarter hours, or of a meter's own windows, also of those that the range cuts. Yields
 * `usage_too_large` when it is too much.
 */
export async function readWhole(
  databases: readonly D1Database[],
  query: UsageQuery,
  page: UsagePage,
): Promise<Result<Parts, MeteringError>> {
  const { start, end } = rangeOf(query.runs);
  const isSum = aggregationOf(query.meter) === "additive";
  const ownLength = ownWindowOf(query.meter);
  const whole = ownLength === undefined ? splitRuns(query.runs).whole : [];
  const toMs = ([first, last, ...rest]: BoundRun): BoundRun => [
    ...([first * QUARTER_HOUR_MS, last * QUARTER_HOUR_MS] as const),
    ...rest,
  ];
  const runs: BoundRun[] =
    ownLength !== undefined ? [[floorTo(start, ownLength), end, 0, ownLength]] : isSum ? whole : whole.map(toMs);
  const [only, ...others] = runs;
  if (only === undefined) return ok([]);
  const { shape, values } = boundBy(query, page);
  const isOneWindow = ownLength === undefined && others.length === 0 && end - start === query.runs[0]?.length;
  const kind = kindOf(query.meter);
  const sql = kind.whole(shape, page.order, isOneWindow);
  const found = await Promise.all(
    databases.map((db) => bind(db, sql, { ...values, runs: JSON.stringify(runs) }).all<never>()),
  );
  const rows = found.flatMap(({ results }) => results);
  return rows.length > LIMITS.usageRows ? err({ reason: "usage_too_large" }) : ok(rows.map(kind.read));
}

/** What the slices and files of databases have of the edges of windows, which only events tell. */
export async function readEdges(
  env: Env,
  databases: readonly D1Database[],
  query: UsageQuery,
  page: UsagePage,
): Promise<Result<Parts, MeteringError>> {
  const { edges } = splitRuns(query.runs);
  if (edges.length === 0 || ownWindowOf(query.meter) !== undefined) return ok([]);
  const kind = kindOf(query.meter);
  const found = await Promise.all(databases.map((db) => edgesOf(db, query, page, edges, kind)));
  const instead = { of: "summary", aligned: nearestQuarterHours(rangeOf(query.runs)) } as const;
  const files = found.flatMap((each) => each.files);
  const live = found.flatMap((each) => each.live);
  if (live.length > LIMITS.usageRows) return err({ reason: "usage_too_large" });
  const series = found.reduce((sum, each) => sum + each.archivedSeries, 0);
  // Test mode's slices are dropped without an archive.
  const isDeleted = !query.meter.livemode && series > 0;
  if (isDeleted) return err({ reason: "archived_range_deleted", instead });
  if (series > LIMITS.usageRows) return err({ reason: "usage_too_large" });
  if (files.length > LIMITS.archiveReads) return err({ reason: "archived_range_unaligned", instead });
  let archived: readonly Place[] = [];
  const read = await new ArchiveReader(env).readCounted(files, (events, { window, places }) => {
    const parts = events.flatMap((event) => {
      const place = places.get(event.series);
      return place === undefined ? [] : kind.ofEvent(event, { start: window.start, ...place });
    });
    archived = together(kind, [...archived, ...parts]);
  });
  if (!read.ok) return err({ reason: "archived_range_deleted", instead });
  return ok([...live, ...archived]);
}

/** The least range of whole quarter hours that holds another. */
const nearestQuarterHours = ({ start, end }: TimeRange): TimeRange => ({
  start: floorTo(start, QUARTER_HOUR_MS),
  end: ceilTo(end, QUARTER_HOUR_MS),
});

/** A file that may have events of an edge, and whose each of its series is. */
type EdgeFile = WantedFile & {
  readonly window: TimeRange;
  readonly places: ReadonlyMap<number, Omit<Place, "start">>;
};

/** What a database has of edges: parts of live slices; files; and how many series archived slices may have there, in sum over the edges. */
type EdgesOfOne = {
  readonly live: readonly Place[];
  readonly files: readonly EdgeFile[];
  readonly archivedSeries: number;
};

function edgesOf(
  db: D1Database,
  query: UsageQuery,
  page: UsagePage,
  edges: readonly Edge[],
  kind: Kind<Place>,
): Promise<EdgesOfOne> {
  const { shape, values } = boundBy(query, page);
  return withSlices(db, edges, async (holdings) => {
    const bySlice = Map.groupBy(
      holdings.flatMap(({ live }, i) => live.map(({ slice }) => ({ slice, run: boundTo(edges[i]) }))),
      ({ slice }) => slice,
    );
    const statements = [...bySlice].map(([slice, own]) =>
      bind(db, kind.ofSlice(slice, shape, page.order), { ...values, runs: JSON.stringify(own.map(({ run }) => run)) }),
    );
    const live = statements.length === 0 ? [] : (await db.batch<never>(statements)).flatMap(({ results }) => results);
    const searches = holdings.flatMap(({ range, archived }, i) => {
      const window = edges[i]?.window;
      return archived === undefined || window === undefined ? [] : { range, slices: archived.slices, window };
    });
    const found = await Promise.all(
      searches.map(async ({ window, ...search }) => {
        const wanted = { ...search, series: kind.series(shape), values, order: page.order.windows };
        const { series, files } = await findFiles<{ series: number; customer: string; grp: string }>(db, {
          ...{ ...wanted, limit: LIMITS.archiveReads + 1 },
        });
        const named = shape.byCustomer ? series : series.map((each) => ({ ...each, customer: "" }));
        const places = new Map(named.map(({ series: id, customer, grp }) => [id, { customer, grp }]));
        return { files: files.map((file) => ({ ...file, window, places })), archivedSeries: series.length };
      }),
    );
    return {
      live: live.map(kind.read),
      files: found.flatMap(({ files }) => files),
      archivedSeries: found.reduce((sum, each) => sum + each.archivedSeries, 0),
    };
  });
}

const boundTo = (edge: Edge | undefined): BoundRun =>
  edge === undefined ? [0, 0, 0, 1] : [edge.start, edge.end, edge.window.start, edge.window.end - edge.window.start];
