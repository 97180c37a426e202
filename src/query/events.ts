import type { Payload } from "../domain/event.ts";
import type { TimeRange } from "../domain/window.ts";

/** An event as D1 stores it. Times in ms. */
export type StoredEvent = {
  readonly id: string;
  readonly customer: string;
  readonly timestamp: number;
  readonly received: number;
  readonly identifier: string;
  readonly value: number;
  readonly dimensions: Payload | undefined;
  readonly cancelled: number | undefined;
};

/** Where an event stands among those of its customer and meter. */
export type EventPlace = Pick<StoredEvent, "timestamp" | "id">;

export type EventQuery = {
  readonly meter: string;
  readonly customer: string;
  readonly range: TimeRange;
  /** Only cancelled events, or only those that count. */
  readonly cancelled: boolean | undefined;
  /** Newest first, those before a place; or oldest first, those after it. */
  readonly from: { readonly order: "newest_first" | "oldest_first"; readonly place: EventPlace | undefined };
  /** Rows. */
  readonly limit: number;
};

type EventRow = Omit<StoredEvent, "dimensions" | "cancelled"> & { dimensions: string | null; cancelled: number | null };

const EVENTS = `
  SELECT id, customer, timestamp, received, identifier, value, dimensions, cancelled
  FROM events
  WHERE meter = ?1 AND customer = ?2 AND timestamp >= ?3 AND timestamp < ?4
    AND (?5 IS NULL OR (cancelled IS NOT NULL) = ?5)`;

// The table's key has this order, so a page costs what it shows, wherever it begins.
const LIST = {
  newest_first: `${EVENTS} AND (timestamp, id) < (?6, ?7) ORDER BY timestamp DESC, id DESC LIMIT ?8`,
  oldest_first: `${EVENTS} AND (timestamp, id) > (?6, ?7) ORDER BY timestamp, id LIMIT ?8`,
};

/** The stored events of a customer on a meter, in the order of their timestamps. */
export async function listEvents(db: D1Database, query: EventQuery): Promise<StoredEvent[]> {
  const { meter, customer, range, cancelled, from, limit } = query;
  const place = from.place ?? { timestamp: from.order === "newest_first" ? Number.MAX_SAFE_INTEGER : 0, id: "" };
  const { results } = await db
    .prepare(LIST[from.order])
    .bind(
      meter,
      customer,
      range.start,
      range.end,
      cancelled === undefined ? null : Number(cancelled),
      place.timestamp,
      place.id,
      limit,
    )
    .all<EventRow>();
  return results.map((row) => ({
    ...row,
    dimensions: row.dimensions === null ? undefined : JSON.parse(row.dimensions),
    cancelled: row.cancelled ?? undefined,
  }));
}
