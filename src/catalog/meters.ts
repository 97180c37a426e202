import { type Aggregation, aggregationOf, type EventTimeWindow, type Formula, type Meter } from "../domain/meter.ts";
import { type Cursor, isBackwards, type Page, pageOf } from "../domain/page.ts";
import type { Execution } from "../env.ts";
import { type Load, PositiveCache } from "./positive-cache.ts";
import type { Queryable } from "./queries.ts";

type MeterRow = {
  id: string;
  livemode: number;
  event_name: string;
  display_name: string;
  formula: Formula;
  event_time_window: EventTimeWindow | null;
  customer_key: string;
  value_key: string;
  dimension_keys: string;
  status: Meter["status"];
  created: number;
  updated: number;
  deactivated_at: number | null;
};

const INSERT_METER = `
  INSERT INTO meters (
    id, livemode, event_name, display_name, formula, event_time_window, customer_key, value_key,
    dimension_keys, status, created, updated, deactivated_at
  ) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)`;

const RENAME_METER = "UPDATE meters SET display_name = ?2, updated = ?3 WHERE id = ?1";

const SET_METER_STATUS = "UPDATE meters SET status = ?2, updated = ?3, deactivated_at = ?4 WHERE id = ?1";

const METER_BY_ID = "SELECT * FROM meters WHERE id = ?1 AND livemode = ?2";

/** Of each name, as [mode, event name], its active meter, else the newest that had it. */
const METERS_BY_NAME = `
  SELECT meters.* FROM json_each(?1) AS name JOIN meters ON meters.id = COALESCE(
    (SELECT id FROM meters WHERE livemode = name.value ->> 0 AND event_name = name.value ->> 1 AND status = 'active'),
    (SELECT MAX(id) FROM meters WHERE livemode = name.value ->> 0 AND event_name = name.value ->> 1)
  )`;

const METER_IDS_BY_NAME = "SELECT id FROM meters WHERE livemode = ?1 AND event_name = ?2";

const METER_KINDS = "SELECT id, formula, event_time_window FROM meters WHERE id IN (SELECT value FROM json_each(?1))";

const SURVIVOR_METERS = `
  SELECT id, formula, event_time_window FROM meters
  WHERE livemode = ?1 AND (formula IN ('last', 'max', 'min') OR event_time_window IS NOT NULL)`;

/** A page of a mode's meters, ?1, with ?2 a cursor or NULL, ?3 how many; of one status, ?4. */
const LISTS = {
  before: "SELECT * FROM meters WHERE livemode = ?1 AND id < COALESCE(?2, '~') ORDER BY id DESC LIMIT ?3",
  after: "SELECT * FROM meters WHERE livemode = ?1 AND id > ?2 ORDER BY id LIMIT ?3",
  before_of_status:
    "SELECT * FROM meters WHERE livemode = ?1 AND status = ?4 AND id < COALESCE(?2, '~') ORDER BY id DESC LIMIT ?3",
  after_of_status: "SELECT * FROM meters WHERE livemode = ?1 AND status = ?4 AND id > ?2 ORDER BY id LIMIT ?3",
} as const;

const cache = new PositiveCache<Meter>();

const cacheKey = (livemode: boolean, eventName: string): string => JSON.stringify([livemode ? 1 : 0, eventName]);

/** The meter that an event with this name reports to; see `findMetersForEvents`. */
export async function findMeterForEvent(
  db: D1Database,
  livemode: boolean,
  eventName: string,
  execution: Execution,
): Promise<Meter | undefined> {
  const recent = cache.recent(cacheKey(livemode, eventName));
  return recent ?? (await findMetersForEvents(db, livemode, [eventName], execution)).get(eventName);
}

/**
 * The meters that events with these names report to: of each name the active one, else an inactive one, else
 * nothing. An active meter may come from the isolate's cache (up to FRESH_MS old); that a meter is
 * inactive or missing is always the primary's own word. Asks for all names at once.
 */
export async function findMetersForEvents(
  db: D1Database,
  livemode: boolean,
  eventNames: readonly string[],
  execution: Execution,
): Promise<Map<string, Meter>> {
  const found = new Map<string, Meter>();
  const keys = eventNames.map((name) => cacheKey(livemode, name));
  const loadActive: Load<Meter> = async (missing, place) => {
    const nearby = place === "primary" ? [] : await loadMeters(db.withSession("first-unconstrained"), missing);
    const active = new Map(nearby.filter(isActive).map((meter) => [keyOf(meter), meter]));
    const unknown = missing.filter((key) => !active.has(key));
    for (const meter of unknown.length === 0 ? [] : await loadMeters(db, unknown)) {
      if (isActive(meter)) active.set(keyOf(meter), meter);
      else found.set(meter.eventName, meter);
    }
    return active;
  };
  for (const meter of (await cache.getAll(keys, loadActive, execution)).values()) found.set(meter.eventName, meter);
  return found;
}

const isActive = ({ status }: Meter): boolean => status === "active";

const keyOf = ({ livemode, eventName }: Meter): string => cacheKey(livemode, eventName);

/** Of the names that these keys of the cache stand for, each one's meter. */
async function loadMeters(db: Queryable, keys: readonly string[]): Promise<Meter[]> {
  const { results } = await db
    .prepare(METERS_BY_NAME)
    .bind(`[${keys.join(",")}]`)
    .all<MeterRow>();
  return results.map(toMeter);
}

/** The ids of all meters, active or not, that have this event name. */
export async function meterIdsOf(db: D1Database, livemode: boolean, eventName: string): Promise<string[]> {
  const { results } = await db
    .prepare(METER_IDS_BY_NAME)
    .bind(livemode ? 1 : 0, eventName)
    .all<{ id: string }>();
  return results.map(({ id }) => id);
}

/** How the meters of these ids add up; without those that do not exist. */
export async function aggregationsOf(db: D1Database, ids: readonly string[]): Promise<Map<string, Aggregation>> {
  const { results } = await db
    .prepare(METER_KINDS)
    .bind(JSON.stringify(ids))
    .all<Pick<MeterRow, "id" | "formula" | "event_time_window">>();
  return new Map(results.map((row) => [row.id, kindOf(row)]));
}

/** How a mode's meters that keep survivors aggregate, by their ids. */
export async function survivorMeters(db: D1Database, livemode: boolean): Promise<Map<string, Aggregation>> {
  const { results } = await db
    .prepare(SURVIVOR_METERS)
    .bind(livemode ? 1 : 0)
    .all<Pick<MeterRow, "id" | "formula" | "event_time_window">>();
  return new Map(results.map((row) => [row.id, kindOf(row)]));
}

const kindOf = ({ formula, event_time_window }: Pick<MeterRow, "formula" | "event_time_window">): Aggregation =>
  aggregationOf({ formula, eventTimeWindow: event_time_window });

/** Whether another active meter has this one's event name now; asks the database, not the cache. */
export async function nameIsTaken(db: D1Database, meter: Meter): Promise<boolean> {
  const [found] = await loadMeters(db, [keyOf(meter)]);
  return found !== undefined && isActive(found) && found.id !== meter.id;
}

export async function findMeter(db: D1Database, livemode: boolean, id: string): Promise<Meter | undefined> {
  const row = await db
    .prepare(METER_BY_ID)
    .bind(id, livemode ? 1 : 0)
    .first<MeterRow>();
  return row === null ? undefined : toMeter(row);
}

/** A page of a mode's meters. */
export async function listMeters(
  db: D1Database,
  livemode: boolean,
  status: Meter["status"] | undefined,
  cursor: Cursor | undefined,
  limit: number,
): Promise<Page<Meter>> {
  const list = LISTS[`${isBackwards(cursor) ? "after" : "before"}${status === undefined ? "" : "_of_status"}`];
  const values = [livemode ? 1 : 0, cursor?.id ?? null, limit + 1, ...(status === undefined ? [] : [status])];
  const { results } = await db
    .prepare(list)
    .bind(...values)
    .all<MeterRow>();
  return pageOf(results.map(toMeter), cursor, limit);
}

/** Statements for `commitOnce`. An active meter whose name is taken makes the transaction fail. */
export function insertMeter(db: D1Database, meter: Meter): D1PreparedStatement {
  return db
    .prepare(INSERT_METER)
    .bind(
      meter.id,
      meter.livemode ? 1 : 0,
      meter.eventName,
      meter.displayName,
      meter.formula,
      meter.eventTimeWindow,
      meter.customerKey,
      meter.valueKey,
      JSON.stringify(meter.dimensionKeys),
      meter.status,
      meter.created,
      meter.updated,
      meter.deactivatedAt,
    );
}

export const saveDisplayName = (db: D1Database, { id, displayName, updated }: Meter): D1PreparedStatement =>
  db.prepare(RENAME_METER).bind(id, displayName, updated);

export const saveStatus = (db: D1Database, { id, status, updated, deactivatedAt }: Meter): D1PreparedStatement =>
  db.prepare(SET_METER_STATUS).bind(id, status, updated, deactivatedAt);

/** This isolate changed a meter: its next event asks the database. */
export const forgetMeter = ({ livemode, eventName }: Meter): void => cache.delete(cacheKey(livemode, eventName));

function toMeter(row: MeterRow): Meter {
  return {
    id: row.id,
    livemode: row.livemode === 1,
    eventName: row.event_name,
    displayName: row.display_name,
    formula: row.formula,
    eventTimeWindow: row.event_time_window,
    customerKey: row.customer_key,
    valueKey: row.value_key,
    dimensionKeys: JSON.parse(row.dimension_keys),
    status: row.status,
    created: row.created,
    updated: row.updated,
    deactivatedAt: row.deactivated_at,
  };
}
