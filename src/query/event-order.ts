// The two orders of a list of events: by timestamp, and by receipt for those that came late.
import type { Order } from "../aggregate/sql/events.ts";
import { CLOCKS_MS } from "../aggregate/sql/slices.ts";
import type { OtherRange } from "../domain/errors.ts";
import type { AdmittedEvent } from "../domain/event.ts";
import { idsFrom, timeOfId } from "../domain/identifiers.ts";
import type { Meter } from "../domain/meter.ts";
import { ceilTo, floorTo, SECOND_MS, type TimeRange } from "../domain/window.ts";

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

/** Where an event stands in either order. */
export type EventPlace = Pick<StoredEvent, "timestamp" | "id">;

export type EventQuery = {
  readonly meter: Meter;
  /** Of timestamps. */
  readonly range: TimeRange;
  /** Of receipt. */
  readonly received: TimeRange;
  /** Only cancelled events, or only those that count. */
  readonly cancelled: boolean | undefined;
  /** Newest first, those before a place; or oldest first, those after it. */
  readonly from: { readonly order: Order; readonly place: EventPlace | undefined };
  /** Rows. */
  readonly limit: number;
} & Whose;

/** Whose events, and in which order. */
export type Whose =
  /** A customer's, in the order of their timestamps. */
  | { readonly customer: string; readonly late: undefined }
  /**
   * A customer's, or all that there are, in the order of receipt: those that were received so long after their
   * timestamps or longer (ms; LATE_MS or more).
   */
  | { readonly customer: string | undefined; readonly late: number };

/** What holds the times (ms, half open) of all events of a slice or a file. */
export type Bounds = { readonly timestamps: TimeRange; readonly received: TimeRange };

/** The order of events, the one with the smaller place first. An event's id has its place in receipt order. */
const compare = ({ late }: EventQuery, a: EventPlace, b: EventPlace): number =>
  (late === undefined ? a.timestamp - b.timestamp : 0) || (a.id < b.id ? -1 : 1);

/** The first events of a page. */
export const firstOf = <T extends EventPlace>(events: readonly T[], query: EventQuery): T[] =>
  events
    .toSorted((a, b) => (query.from.order === "newest_first" ? compare(query, b, a) : compare(query, a, b)))
    .slice(0, query.limit);

/** The time by which an event is in order (ms). */
const timeOf = ({ late }: EventQuery, { timestamp, id }: EventPlace): number =>
  late === undefined ? timestamp : timeOfId(id);

/**
 * The times by which events of some bounds may be in order (ms, half open): the places of ids are by the clocks of those
 * who made them, their receipt by the log's.
 */
const timesOf = ({ late }: EventQuery, { timestamps, received }: Bounds): TimeRange =>
  late === undefined ? timestamps : { start: received.start - CLOCKS_MS, end: received.end + CLOCKS_MS };

/** Whether what has some bounds may have events that come before another one on a page. */
export function mayPrecede(event: EventPlace, bounds: Bounds, query: EventQuery): boolean {
  const { start, end } = timesOf(query, bounds);
  return query.from.order === "newest_first" ? end > timeOf(query, event) : start <= timeOf(query, event);
}

/** Whether what has some bounds may have events that belong on a page. */
export function mayBeOn(page: readonly EventPlace[], bounds: Bounds, query: EventQuery): boolean {
  const last = page[query.limit - 1];
  return last === undefined || mayPrecede(last, bounds, query);
}

/** Sources of events, in the order in which a page may need them. */
export const nearestFirst = <T extends Bounds>(sources: readonly T[], query: EventQuery): T[] =>
  sources.toSorted((a, b) => {
    const [one, other] = [timesOf(query, a), timesOf(query, b)];
    return query.from.order === "newest_first" ? other.end - one.end : one.start - other.start;
  });

/** Where a page begins: before or after all events, unless it follows one. */
export const placeOf = ({ from: { order, place } }: EventQuery): EventPlace =>
  place ?? (order === "newest_first" ? { timestamp: Number.MAX_SAFE_INTEGER, id: "~" } : { timestamp: 0, id: "" });

/** Whether an event comes after the place where a page begins. */
export const isAhead = (event: EventPlace, query: EventQuery): boolean =>
  query.from.order === "newest_first"
    ? compare(query, event, placeOf(query)) < 0
    : compare(query, placeOf(query), event) < 0;

/** What a page may show: its place bounds it, so that it does not read what earlier pages showed. */
export function boundsOf(query: EventQuery): Bounds {
  const { range, received, late, from } = query;
  if (from.place === undefined) return { timestamps: range, received };
  if (late === undefined) return { timestamps: cutAt(from.place.timestamp, range, from.order), received };
  const time = timeOfId(from.place.id);
  const clocks = from.order === "newest_first" ? CLOCKS_MS : -CLOCKS_MS;
  return { timestamps: range, received: cutAt(time + clocks, received, from.order) };
}

/** The part of a range that comes after a time (ms) or with it, in the direction of paging. */
const cutAt = (time: number, { start, end }: TimeRange, order: Order): TimeRange =>
  order === "newest_first" ? { start, end: Math.min(end, time + 1) } : { start: Math.max(start, time), end };

/** Between which ids the events of a page are, in the order of receipt. */
export function idsOf(query: EventQuery): { readonly after: string; readonly before: string } {
  const { received, from } = query;
  const { id } = placeOf(query);
  const [after, before] = [idsFrom(received.start - CLOCKS_MS), idsFrom(received.end + CLOCKS_MS)];
  if (from.order === "newest_first") return id < before ? { after, before: id } : { after, before };
  return id > after ? { after: id, before } : { after, before };
}

/** What to ask for instead, when there are none of what comes after some bounds any more. */
export const laterThan = (bounds: Bounds, query: EventQuery): OtherRange =>
  query.late === undefined
    ? { of: "timestamp", from: bounds.timestamps.end }
    : { of: "receipt", from: bounds.received.end };

/** What to ask for instead, when nothing was found up to some bounds: whole seconds, so that nothing is left out. */
export function beyond(bounds: Bounds, query: EventQuery): OtherRange {
  const of = query.late === undefined ? "timestamp" : "receipt";
  const { start, end } = query.late === undefined ? bounds.timestamps : bounds.received;
  return query.from.order === "newest_first"
    ? { of, before: ceilTo(end, SECOND_MS) }
    : { of, from: floorTo(start, SECOND_MS) };
}
