import { bind } from "../aggregate/sql/bind.ts";
import { listLate, listSlice, SERIES_OF_CUSTOMER } from "../aggregate/sql/events.ts";
import type { Holding } from "../aggregate/sql/slices.ts";
import { ArchiveReader, findFiles, findLateFiles, readTogether, type WantedFile } from "../archive/read.ts";
import type { Row } from "../archive/rows.ts";
import type { MeteringError } from "../domain/errors.ts";
import { uuidOf } from "../domain/identifiers.ts";
import { LIMITS } from "../domain/limits.ts";
import { err, ok, type Result } from "../domain/result.ts";
import { receiptOf } from "../domain/window.ts";
import type { Env } from "../env.ts";
import {
  type Bounds,
  beyond,
  boundsOf,
  type EventQuery,
  firstOf,
  idsOf,
  isAhead,
  laterThan,
  mayBeOn,
  mayPrecede,
  nearestFirst,
  placeOf,
  type StoredEvent,
} from "./event-order.ts";
import { sourcesOf, twiceIfDeleted, withSlices } from "./sources.ts";

/** The events of a page. */
export type EventPage = {
  readonly events: readonly StoredEvent[];
  /** Whether it ends here because the archive has too many files that may have the next event. */
  readonly isCut: boolean;
};

type EventRow = Pick<StoredEvent, "id" | "customer" | "dimensions" | "timestamp" | "value" | "received"> & {
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
 * The stored events of a customer on a meter in the order of their timestamps; or the late ones of a meter in the order
 * of receipt. Throws when a database or R2 does not answer. Yields `databases_changed`; and, when the page needs events
 * of archived slices, `archived_range_deleted` and, when it found none in as many files as it may read,
 * `archived_range_unaligned`.
 */
export async function listEvents(env: Env, query: EventQuery): Promise<Result<EventPage, MeteringError>> {
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

/** What a database has for a page: events of live slices; and what may have more. */
type LiveEvents = {
  readonly db: D1Database;
  readonly events: readonly StoredEvent[];
  /** Of the customer, when there is one. */
  readonly series: readonly number[] | undefined;
  /** Nothing when no archived slice may have events of the page. */
  readonly archived: ArchivedSource | undefined;
};

type LiveSource = Bounds & { readonly slice: number };
type ArchivedSource = Bounds & { readonly slices: readonly number[] };

async function liveEventsOf(db: D1Database, query: EventQuery): Promise<LiveEvents> {
  const series = query.customer === undefined ? undefined : await seriesOf(db, query.meter.id, query.customer);
  if (series?.length === 0) return { db, events: [], series, archived: undefined };
  const { timestamps } = boundsOf(query);
  return withSlices(db, [timestamps], async ([holding]) => {
    const rows = await liveRows(db, query, series, liveSources(holding, query));
    const events = rows.map(({ identifier, uuid, api_key: apiKey, cancelled_by: cancelledBy, ...row }) =>
      toEvent({ ...row, identifier: identifier ?? uuidOf(uuid ?? ""), apiKey, cancelledBy }),
    );
    return { db, events, series, archived: archivedSource(holding, query) };
  });
}

async function seriesOf(db: D1Database, meter: string, customer: string): Promise<number[]> {
  const { results } = await bind(db, SERIES_OF_CUSTOMER, { meter, customer }).all<{ id: number }>();
  return results.map(({ id }) => id);
}

/** Events of a slice were received before its end; how long before has no limit, since one of them may have been a dead letter. */
const receivedIn = (slices: readonly number[]): Bounds["received"] => ({
  start: 0,
  end: Math.max(...slices.map((slice) => receiptOf(slice).end)),
});

/** Of some slices those that may have events that were received when a page's were. */
const withReceipts = (slices: readonly number[], query: EventQuery): number[] =>
  slices.filter((slice) => receiptOf(slice).end > boundsOf(query).received.start);

const liveSources = (holding: Holding | undefined, query: EventQuery): LiveSource[] =>
  (holding?.live ?? []).flatMap(({ slice, timestamps }) =>
    timestamps === undefined || withReceipts([slice], query).length === 0
      ? []
      : { slice, timestamps, received: receivedIn([slice]) },
  );

function archivedSource(holding: Holding | undefined, query: EventQuery): ArchivedSource | undefined {
  const slices = withReceipts(holding?.archived?.slices ?? [], query);
  if (holding?.archived === undefined || slices.length === 0) return undefined;
  return { slices, timestamps: holding.archived.timestamps, received: receivedIn(slices) };
}

/** The page's rows of live slices: those next to where it begins first, until no other can have any. */
async function liveRows(
  db: D1Database,
  query: EventQuery,
  series: readonly number[] | undefined,
  slices: readonly LiveSource[],
): Promise<EventRow[]> {
  const waiting = nearestFirst(slices, query);
  let rows: EventRow[] = [];
  while (waiting[0] !== undefined && mayBeOn(rows, waiting[0], query)) {
    const asked = waiting.splice(0, SLICES_AT_ONCE);
    const answers = await db.batch<EventRow>(asked.map(({ slice }) => pageOfSlice(db, slice, query, series)));
    rows = firstOf([...rows, ...answers.flatMap(({ results }) => results)], query);
  }
  return rows;
}

function pageOfSlice(
  db: D1Database,
  slice: number,
  query: EventQuery,
  series: readonly number[] = [],
): D1PreparedStatement {
  const { meter, customer, late, received, cancelled, from, limit } = query;
  const { timestamps } = boundsOf(query);
  const values = {
    ...{ from: timestamps.start, to: timestamps.end, received_from: received.start, received_to: received.end },
    ...{ cancelled: cancelled === undefined ? -1 : Number(cancelled), limit },
  };
  if (late !== undefined) {
    const of = { meter: meter.id, customer: customer ?? null, delay: late };
    return bind(db, listLate(slice, from.order), { ...values, ...of, ...idsOf(query) });
  }
  const isOne = series.length === 1;
  const wanted = isOne ? series[0] : JSON.stringify(series);
  return bind(db, listSlice(slice, from.order, isOne), { ...placeOf(query), ...values, series: wanted });
}

/** Adds to a page of live slices what belongs on it from the archive, which is asked only when it can have any. */
async function withArchive(
  env: Env,
  query: EventQuery,
  live: StoredEvent[],
  databases: readonly LiveEvents[],
): Promise<Result<EventPage, MeteringError>> {
  const archives = databases.flatMap(({ archived, ...rest }) =>
    archived !== undefined && mayBeOn(live, archived, query) ? { ...rest, archived } : [],
  );
  // Test mode's slices are dropped without an archive.
  if (!query.meter.livemode && archives.length > 0) {
    const [last] = nearestFirst(
      archives.map(({ archived }) => archived),
      { ...query, from: { order: "newest_first", place: undefined } },
    );
    if (last !== undefined) return deletedUntil(last, query);
  }
  const found = await Promise.all(archives.map((archive) => filesFor(archive, query)));
  return fillFrom(new ArchiveReader(env), nearestFirst(found.flat(), query), query, live);
}

const deletedUntil = (bounds: Bounds, query: EventQuery): Result<never, MeteringError> =>
  err({ reason: "archived_range_deleted", instead: laterThan(bounds, query) });

/** A file that may have events of a page. */
type Source = WantedFile & Bounds & Pick<LiveEvents, "series">;

/** The files of a database that a page may need: one more than it may read. */
async function filesFor(
  { db, series, archived: { slices } }: LiveEvents & { readonly archived: ArchivedSource },
  query: EventQuery,
): Promise<Source[]> {
  const { meter, customer, late, from } = query;
  const { timestamps: range, received } = boundsOf(query);
  const search = { slices, range, order: from.order, limit: LIMITS.archiveReads + 1 };
  const files =
    late === undefined
      ? (
          await findFiles(db, {
            ...search,
            series: `SELECT id AS series FROM (${SERIES_OF_CUSTOMER})`,
            values: { meter: meter.id, customer },
          })
        ).files
      : await findLateFiles(db, { ...search, meter: meter.id, customer, delay: late, received });
  return files.map((each) => {
    const { minTimestamp, maxTimestamp, minReceived, maxReceived } = each.file;
    return {
      ...{ ...each, series },
      timestamps: { start: minTimestamp, end: maxTimestamp + 1 },
      received: { start: minReceived, end: maxReceived + 1 },
    };
  });
}

/** Reads files, the nearest first, until no other can have events of the page: one, two, four at a time when they are small. */
async function fillFrom(
  reader: ArchiveReader,
  files: readonly Source[],
  query: EventQuery,
  live: StoredEvent[],
): Promise<Result<EventPage, MeteringError>> {
  let page = live;
  let read = 0;
  for (let next = files[0]; next !== undefined && mayBeOn(page, next, query); next = files[read]) {
    if (read >= LIMITS.archiveReads) return cutBefore(next, page, query);
    const some = readTogether(files.slice(read, Math.min(2 * read + 1, LIMITS.archiveReads)));
    const found = await Promise.all(some.map((source) => eventsOfFile(reader, source, query)));
    for (const [i, events] of found.entries()) {
      // A file that was read ahead may turn out not to be needed.
      if (!mayBeOn(page, some[i] ?? next, query)) break;
      if (!events.ok) return events;
      page = firstOf([...page, ...events.value], query);
    }
    read += some.length;
  }
  return ok({ events: page, isCut: false });
}

/** The part of a page that a file which may not be read any more, and those after it, cannot change. */
function cutBefore(next: Source, page: readonly StoredEvent[], query: EventQuery): Result<EventPage, MeteringError> {
  const events = page.filter((event) => !mayPrecede(event, next, query));
  if (events.length > 0) return ok({ events, isCut: true });
  return err({ reason: "archived_range_unaligned", instead: beyond(next, query) });
}

/** A file's events of a page. */
async function eventsOfFile(
  reader: ArchiveReader,
  source: Source,
  query: EventQuery,
): Promise<Result<StoredEvent[], MeteringError>> {
  const { customer, cancelled, received } = query;
  const series = source.series && new Set(source.series);
  const isWanted = (row: Row): boolean =>
    isAhead(row, query) &&
    (series?.has(row.series) ?? true) &&
    row.received >= received.start &&
    row.received < received.end &&
    (cancelled === undefined || cancelled === (row.cancelled !== null));
  let page: Row[] = [];
  const read = await reader.readRows(source, (rows) => {
    page = firstOf([...page, ...rows.filter(isWanted)], query);
  });
  if (!read.ok) return deletedUntil(source, query);
  // Files may name a customer that is being erased.
  return ok(page.map((row) => toEvent({ ...row, customer: customer ?? row.customer })));
}

/** An event of a slice or of a file. */
const toEvent = (row: Omit<Row, "series" | "meter">): StoredEvent => ({
  id: row.id,
  customer: row.customer,
  dimensions: row.dimensions ?? "",
  timestamp: row.timestamp,
  received: row.received,
  identifier: row.identifier,
  value: row.value,
  payload: row.payload === null ? undefined : JSON.parse(row.payload),
  apiKey: row.apiKey,
  cancelled: row.cancelled ?? undefined,
  cancelledBy: row.cancelledBy ?? undefined,
});
