import type { Aggregation } from "../metering/meters.ts";
import { DAY_MS } from "../metering/windows.ts";
import { NEXT_DAYS_BY_TABLE } from "./summary-statements.ts";

/** A UTC day of a customer on a meter: what summaries are recomputed by. `day` is its start (ms). */
export type Day = { readonly meter: string; readonly customer: string; readonly day: number };

export type AuditedDay = Day & { readonly aggregation: Aggregation };

/** Where a walk through all days stands: in the order of the tables' keys; `time` in ms. */
export type Place = { readonly meter: string; readonly customer: string; readonly time: number };

export const BEGINNING: Place = { meter: "", customer: "", time: 0 };

/** After every place. U+10FFFF sorts after all other text. */
export const END: Place = { meter: "\u{10ffff}", customer: "", time: 0 };

/**
 * The days that have events or summaries from a place on, in order, as far as `rows` rows of each
 * table reach, and where to go on; at the end that is END.
 */
export async function nextDays(
  db: D1Database,
  { meter, customer, time }: Place,
  rows: number,
): Promise<{ days: Day[]; next: Place }> {
  const tables = await db.batch<Day & { count: number }>(
    NEXT_DAYS_BY_TABLE.map((sql) => db.prepare(sql).bind(meter, customer, time, rows)),
  );
  const found = tables.map(({ results }) => results.map(({ meter, customer, day }) => ({ meter, customer, day })));
  // A table that has more reaches only as far as the last day that was read of it.
  const bounds = tables.flatMap(({ results }, table) => {
    const isFull = results.reduce((sum, { count }) => sum + count, 0) === rows;
    const last = found[table]?.at(-1);
    return isFull && last !== undefined ? [last] : [];
  });
  const [bound] = bounds.sort(byPlace);
  const days = new Map(
    found
      .flat()
      .filter((day) => bound === undefined || byPlace(day, bound) <= 0)
      .map((day) => [JSON.stringify(day), day]),
  );
  return {
    days: [...days.values()].sort(byPlace),
    next: bound === undefined ? END : { meter: bound.meter, customer: bound.customer, time: bound.day + DAY_MS },
  };
}

/** SQLite's order of text is that of its UTF-8, not JavaScript's. */
const byPlace = (a: Day, b: Day): number =>
  compareText(a.meter, b.meter) || compareText(a.customer, b.customer) || a.day - b.day;

const compareText = (a: string, b: string): number => Buffer.compare(Buffer.from(a), Buffer.from(b));
