import { bind } from "../aggregate/sql/bind.ts";
import { listSlice, type Order, SERIES_OF_CUSTOMER } from "../aggregate/sql/events.ts";
import type { ArchivedSlices, LiveSlice } from "../aggregate/sql/slices.ts";
import { ArchiveReader, findFiles, readTogether, type WantedFile } from "../archive/read.ts";
import type { Row } from "../archive/rows.ts";
import type { MeteringError, OtherRange } from "../domain/errors.ts";
import type { AdmittedEvent } from "../domain/event.ts";
import { uuidOf } from "../domain/identifiers.ts";
import { LIMITS } from "../domain/limits.ts";
import type { Meter } from "../domain/meter.ts";
import { err, ok, type Result } from "../domain/result.ts";
import type { TimeRange } from "../domain/window.ts";
import type { Env } from "../env.ts";
import { sourcesOf, twiceIfDeleted, withSlices } from "./sources.ts";

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

/**
 * The stored events of a customer on a meter, in the order of their timestamps. Throws when a database or R2 does not
 * answer. Yields `databases_changed`; and, when the page needs events of archived slices, `archived_range_unaligned` and
 * `archived_range_deleted`.
 */
export async function listEvents(env: Env, query: EventQuery): Promise<Result<StoredEvent[], MeteringError>> {
  const sources = await sourcesOf(env, query.meter, query.customer);
  if (!sources.ok) return sources;
  return twiceIfDeleted(async () => {
    const found = await Promise.all(sources.value.map((db) => liveEventsOf(db, query)));
    const live = firstOf(
      found.flatMap(({ events }) => events),
      query,
    );
    return withArchive(env, query, live, found);
  });
}

const firstOf = <T extends EventPlace>(events: readonly T[], { from, limit }: EventQuery): T[] =>
  events.toSorted((a, b) => (from.order === "newest_first" ? compare(b, a) : compare(a, b))).slice(0, limit);

const compare = (a: EventPlace, b: EventPlace): number => a.timestamp - b.timestamp || (a.id < b.id ? -1 : 1);

/** Whether what has timestamps of a range (ms, half open) may have events that belong on a page. */
function mayBeOn(page: readonly EventPlace[], { start, end }: TimeRange, { from, limit }: EventQuery): boolean {
  const last = page[limit - 1];
  if (last === undefined) return true;
  return from.order === "newest_first" ? end > last.timestamp : start <= last.timestamp;
}

/** Where a page begins: before or after all events, unless it follows one. */
const placeOf = ({ from: { order, place } }: EventQuery): EventPlace =>
  place ?? { timestamp: order === "newest_first" ? Number.MAX_SAFE_INTEGER : 0, id: "" };

/** The timestamps (ms) that a page may show: its place bounds them, so that it does not read what earlier pages showed. */
function rangeOf(query: EventQuery): TimeRange {
  const { start, end } = query.range;
  const { timestamp } = placeOf(query);
  return query.from.order === "newest_first"
    ? { start, end: Math.min(end, timestamp + 1) }
    : { start: Math.max(start, timestamp), end };
}

/** What a database has for a page: events of live slices; and what may have more. */
type LiveEvents = {
  readonly db: D1Database;
  readonly events: readonly StoredEvent[];
  /** By the series of the customer. */
  readonly dimensions: ReadonlyMap<number, string>;
  /** Nothing when no archived slice may hold the page's timestamps. */
  readonly archived: ArchivedSlices | undefined;
};

async function liveEventsOf(db: D1Database, query: EventQuery): Promise<LiveEvents> {
  const { meter, customer } = query;
  const { results } = await bind(db, SERIES_OF_CUSTOMER, { meter: meter.id, customer }).all<{
    id: number;
    dimensions: string;
  }>();
  const dimensions = new Map(results.map((series) => [series.id, series.dimensions]));
  if (dimensions.size === 0) return { db, events: [], dimensions, archived: undefined };
  return withSlices(db, [rangeOf(query)], async ([holding]) => {
    const rows = await liveRows(db, query, [...dimensions.keys()], holding?.live ?? []);
    const events = rows.map(({ identifier, uuid, api_key: apiKey, cancelled_by: cancelledBy, ...row }) =>
      toEvent({ ...row, identifier: identifier ?? uuidOf(uuid ?? ""), apiKey, cancelledBy }, customer, dimensions),
    );
    return { db, events, dimensions, archived: holding?.archived };
  });
}

/** The page's rows of live slices: those next to where it begins first, until no other can have any. */
async function liveRows(
  db: D1Database,
  query: EventQuery,
  series: readonly number[],
  slices: readonly LiveSlice[],
): Promise<EventRow[]> {
  const { from, limit } = query;
  const { start, end } = rangeOf(query);
  const values = {
    series: series.length === 1 ? series[0] : JSON.stringify(series),
    from: start,
    to: end,
    ...placeOf(query),
    cancelled: query.cancelled === undefined ? -1 : Number(query.cancelled),
    limit,
  };
  const waiting = nearestFirst(
    slices.flatMap(({ slice, timestamps }) => (timestamps === undefined ? [] : { slice, timestamps })),
    query,
  );
  let rows: EventRow[] = [];
  while (waiting[0] !== undefined && mayBeOn(rows, waiting[0].timestamps, query)) {
    const asked = waiting.splice(0, SLICES_AT_ONCE);
    const answers = await db.batch<EventRow>(
      asked.map(({ slice }) => bind(db, listSlice(slice, from.order, series.length === 1), values)),
    );
    rows = firstOf([...rows, ...answers.flatMap(({ results }) => results)], query);
  }
  return rows;
}

/** What has timestamps (ms, half open), in the order in which a page may need it. */
const nearestFirst = <T extends { readonly timestamps: TimeRange }>(sources: readonly T[], { from }: EventQuery): T[] =>
  sources.toSorted((a, b) =>
    from.order === "newest_first" ? b.timestamps.end - a.timestamps.end : a.timestamps.start - b.timestamps.start,
  );

/** Adds to a page of live slices what belongs on it from the archive, which is asked only when it can have any. */
async function withArchive(
  env: Env,
  query: EventQuery,
  live: StoredEvent[],
  databases: readonly LiveEvents[],
): Promise<Result<StoredEvent[], MeteringError>> {
  const archives = databases.flatMap(({ archived, ...rest }) =>
    archived !== undefined && mayBeOn(live, archived.timestamps, query) ? { ...rest, archived } : [],
  );
  // Test mode's slices are dropped without an archive.
  if (!query.meter.livemode && archives.length > 0) {
    return deletedUntil(Math.max(...archives.map(({ archived }) => archived.timestamps.end)));
  }
  const found = await Promise.all(archives.map((archive) => filesFor(archive, query)));
  return fillFrom(new ArchiveReader(env), nearestFirst(found.flat(), query), query, live);
}

const deletedUntil = (from: number): Result<never, MeteringError> =>
  err({ reason: "archived_range_deleted", instead: { of: "events", from } });

/** A file that may have events of a page. */
type Source = WantedFile & Pick<LiveEvents, "dimensions"> & { readonly timestamps: TimeRange };

/** The files of a database that a page may need: one more than it may read. */
async function filesFor(
  { db, dimensions, archived }: LiveEvents & { readonly archived: ArchivedSlices },
  query: EventQuery,
): Promise<Source[]> {
  const { files } = await findFiles(db, {
    slices: archived.slices,
    series: `SELECT id AS series FROM (${SERIES_OF_CUSTOMER})`,
    values: { meter: query.meter.id, customer: query.customer },
    range: rangeOf(query),
    order: query.from.order,
    limit: LIMITS.archiveReads + 1,
  });
  return files.map((each) => {
    const { minTimestamp: start, maxTimestamp } = each.file;
    return { ...each, dimensions, timestamps: { start, end: maxTimestamp + 1 } };
  });
}

/** Reads files, the nearest first, until no other can have events of the page: one, two, four at a time when they are small. */
async function fillFrom(
  reader: ArchiveReader,
  files: readonly Source[],
  query: EventQuery,
  live: StoredEvent[],
): Promise<Result<StoredEvent[], MeteringError>> {
  let page = live;
  let read = 0;
  for (let next = files[0]; next !== undefined && mayBeOn(page, next.timestamps, query); next = files[read]) {
    if (read >= LIMITS.archiveReads) return err({ reason: "archived_range_unaligned", instead: upTo(next, query) });
    const some = readTogether(files.slice(read, Math.min(2 * read + 1, LIMITS.archiveReads)));
    const found = await Promise.all(some.map((source) => eventsOfFile(reader, source, query)));
    for (const [i, events] of found.entries()) {
      // A file that was read ahead may turn out not to be needed.
      if (!mayBeOn(page, some[i]?.timestamps ?? next.timestamps, query)) break;
      if (!events.ok) return events;
      page = firstOf([...page, ...events.value], query);
    }
    read += some.length;
  }
  return ok(page);
}

/** The part of a page's range that comes before a file. */
const upTo = ({ timestamps: { start, end } }: Source, { from }: EventQuery): OtherRange =>
  from.order === "newest_first" ? { of: "events", from: end } : { of: "events", before: start };

/** A file's events of a page. */
async function eventsOfFile(
  reader: ArchiveReader,
  source: Source,
  query: EventQuery,
): Promise<Result<StoredEvent[], MeteringError>> {
  const place = placeOf(query);
  const isAhead = (row: Row): boolean =>
    query.from.order === "newest_first" ? compare(row, place) < 0 : compare(place, row) < 0;
  const isWanted = (row: Row): boolean =>
    isAhead(row) && (query.cancelled === undefined || query.cancelled === (row.cancelled !== null));
  let page: Row[] = [];
  const read = await reader.readRows(source, (rows) => {
    page = firstOf([...page, ...rows.filter(isWanted)], query);
  });
  if (!read.ok) return deletedUntil(source.timestamps.end);
  return ok(page.map((row) => toEvent(row, query.customer, source.dimensions)));
}

/** An event of a slice or of a file. */
const toEvent = (
  row: Omit<Row, "meter" | "customer" | "dimensions">,
  customer: string,
  dimensions: ReadonlyMap<number, string>,
): StoredEvent => ({
  id: row.id,
  customer,
  dimensions: dimensions.get(row.series) ?? "",
  timestamp: row.timestamp,
  received: row.received,
  identifier: row.identifier,
  value: row.value,
  payload: row.payload === null ? undefined : JSON.parse(row.payload),
  apiKey: row.apiKey,
  cancelled: row.cancelled ?? undefined,
  cancelledBy: row.cancelledBy ?? undefined,
});
