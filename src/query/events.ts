import { bind } from "../aggregate/sql/bind.ts";
import { listSlice, type Order, SERIES_OF_CUSTOMER } from "../aggregate/sql/events.ts";
import { holding, type LiveSlice } from "../aggregate/sql/slices.ts";
import type { MeteringError } from "../domain/errors.ts";
import type { AdmittedEvent } from "../domain/event.ts";
import { uuidOf } from "../domain/identifiers.ts";
import type { Meter } from "../domain/meter.ts";
import { ok, type Result } from "../domain/result.ts";
import type { TimeRange } from "../domain/window.ts";
import type { Env } from "../env.ts";
import { sourcesOf, withSlices } from "./sources.ts";

/** An event as D1 stores it. Times in ms. */
export type StoredEvent = Omit<AdmittedEvent, "meter" | "aggregation" | "timestamp"> & {
  readonly id: string;
  readonly identifier: string;
  readonly timestamp: number;
  readonly received: number;
  /** The number of the API key that reported it. */
  readonly apiKey: number;
  readonly cancelled: number | undefined;
  /** The number of the API key that cancelled it. */
  readonly cancelledBy: number | undefined;
};

/** Where an event stands among those of its customer and meter. */
export type EventPlace = Pick<StoredEvent, "timestamp" | "id">;

export type EventQuery = {
  readonly meter: Meter;
  readonly customer: string;
  readonly range: TimeRange;
  /** Only cancelled events, or only those that count. */
  readonly cancelled: boolean | undefined;
  /** Newest first, those before a place; or oldest first, those after it. */
  readonly from: { readonly order: Order; readonly place: EventPlace | undefined };
  /** Rows. */
  readonly limit: number;
};

type EventRow = EventPlace &
  Pick<StoredEvent, "value" | "received"> & {
    series: number;
    identifier: string | null;
    uuid: string | null;
    payload: string | null;
    api_key: number;
    cancelled: number | null;
    cancelled_by: number | null;
  };

/** Slices that are asked at once. A page is nearly always in the first few. */
const SLICES_AT_ONCE = 6;

/** The stored events of a customer on a meter, in the order of their timestamps. Throws when a database does not answer. */
export async function listEvents(env: Env, query: EventQuery): Promise<Result<StoredEvent[], MeteringError>> {
  const sources = await sourcesOf(env, query.meter, query.customer);
  if (!sources.ok) return sources;
  const found = await Promise.all(sources.value.map((db) => eventsOf(db, query)));
  return ok(firstOf(found.flat(), query));
}

const firstOf = <T extends EventPlace>(events: readonly T[], { from, limit }: EventQuery): T[] =>
  events.toSorted((a, b) => (from.order === "newest_first" ? compare(b, a) : compare(a, b))).slice(0, limit);

const compare = (a: EventPlace, b: EventPlace): number => a.timestamp - b.timestamp || (a.id < b.id ? -1 : 1);

async function eventsOf(db: D1Database, query: EventQuery): Promise<StoredEvent[]> {
  const { meter, customer } = query;
  const { results } = await bind(db, SERIES_OF_CUSTOMER, { meter: meter.id, customer }).all<{
    id: number;
    dimensions: string;
  }>();
  if (results.length === 0) return [];
  const dimensions = new Map(results.map((series) => [series.id, series.dimensions]));
  const rows = await withSlices(db, (slices) => pageOf(db, query, [...dimensions.keys()], slices));
  return rows.map((row) => toEvent(row, customer, dimensions.get(row.series) ?? ""));
}

/** The page's rows, from the slices that it may be in: those next to where it begins first, until no other can have any. */
async function pageOf(
  db: D1Database,
  query: EventQuery,
  series: readonly number[],
  slices: readonly LiveSlice[],
): Promise<EventRow[]> {
  const { from, limit } = query;
  const isNewestFirst = from.order === "newest_first";
  const place = from.place ?? { timestamp: isNewestFirst ? Number.MAX_SAFE_INTEGER : 0, id: "" };
  // Also the place bounds the time, so that a page does not read what earlier pages showed.
  const range = isNewestFirst
    ? { start: query.range.start, end: Math.min(query.range.end, place.timestamp + 1) }
    : { start: Math.max(query.range.start, place.timestamp), end: query.range.end };
  const values = {
    series: series.length === 1 ? series[0] : JSON.stringify(series),
    from: range.start,
    to: range.end,
    ...place,
    cancelled: query.cancelled === undefined ? -1 : Number(query.cancelled),
    limit,
  };
  const waiting = holding(slices, range).toSorted((a, b) =>
    isNewestFirst ? newest(b) - newest(a) : oldest(a) - oldest(b),
  );
  let rows: EventRow[] = [];
  while (waiting.length > 0) {
    const asked = waiting.splice(0, SLICES_AT_ONCE);
    const answers = await db.batch<EventRow>(
      asked.map(({ slice }) => bind(db, listSlice(slice, from.order, series.length === 1), values)),
    );
    rows = firstOf([...rows, ...answers.flatMap(({ results }) => results)], query);
    const [next] = waiting;
    const last = rows[limit - 1];
    if (next === undefined || last === undefined) continue;
    if (isNewestFirst ? newest(next) <= last.timestamp : oldest(next) > last.timestamp) break;
  }
  return rows;
}

/** A slice's timestamps lie from `oldest` to before `newest` (ms). */
const newest = ({ timestamps }: LiveSlice): number => timestamps?.end ?? 0;
const oldest = ({ timestamps }: LiveSlice): number => timestamps?.start ?? 0;

const toEvent = (row: EventRow, customer: string, dimensions: string): StoredEvent => ({
  id: row.id,
  customer,
  dimensions,
  timestamp: row.timestamp,
  received: row.received,
  identifier: row.identifier ?? uuidOf(row.uuid ?? ""),
  value: row.value,
  payload: row.payload === null ? undefined : JSON.parse(row.payload),
  apiKey: row.api_key,
  cancelled: row.cancelled ?? undefined,
  cancelledBy: row.cancelled_by ?? undefined,
});
