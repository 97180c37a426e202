import type { Aggregation } from "../domain/meter.ts";
import { DAY_MS, HOUR_MS } from "../domain/window.ts";
import { NEXT_DAYS_BY_TABLE } from "./summary-statements.ts";

/** A UTC day of a customer on a meter. `day` is its start (ms). */
export type Day = {
  readonly meter: string;
  readonly customer: string;
  readonly day: number;
  /** It has at least as many events as were read at once. */
  readonly isBig: boolean;
};

/** What summaries are recomputed by: whole windows of a customer on a meter, from `start` to `end` (ms, half open). */
export type Span = {
  readonly meter: string;
  readonly customer: string;
  readonly start: number;
  readonly end: number;
  readonly aggregation: Aggregation;
};

/** Where a walk through all days stands: in the order of the tables' keys; `time` in ms. */
export type Position = { readonly meter: string; readonly customer: string; readonly time: number };

export const BEGINNING: Position = { meter: "", customer: "", time: 0 };

/** After every position. U+10FFFF sorts after all other text. */
export const END: Position = { meter: "\u{10ffff}", customer: "", time: 0 };

/**
 * The days that have events or summaries from a position on, in order, as far as `rows` rows of each
 * table reach, and where to go on; at the end that is END.
 */
export async function nextDays(
  db: D1Database,
  { meter, customer, time }: Position,
  rows: number,
): Promise<{ days: Day[]; next: Position }> {
  const tables = await db.batch<Omit<Day, "isBig"> & { count: number }>(
    NEXT_DAYS_BY_TABLE.map((sql) => db.prepare(sql).bind(meter, customer, time, rows)),
  );
  const days = new Map<string, Day>();
  const bounds: Day[] = [];
  for (const { results } of tables) {
    for (const { count, ...day } of results) {
      const name = JSON.stringify(day);
      days.set(name, { ...day, isBig: count >= rows || (days.get(name)?.isBig ?? false) });
    }
    // A table that has more reaches only as far as the last day that was read of it.
    const last = results.at(-1);
    const isFull = results.reduce((sum, { count }) => sum + count, 0) === rows;
    if (isFull && last !== undefined) bounds.push({ ...last, isBig: false });
  }
  const [bound] = bounds.sort(inOrder);
  return {
    days: [...days.values()].filter((day) => bound === undefined || inOrder(day, bound) <= 0).sort(inOrder),
    next: bound === undefined ? END : { meter: bound.meter, customer: bound.customer, time: bound.day + DAY_MS },
  };
}

/** A day's spans: one, or when it is big its hours, so that no statement has all of it to read. */
export function spansOf({ meter, customer, day, isBig }: Day, aggregation: Aggregation): Span[] {
  const length = isBig && aggregation !== "last_received_of_day" ? HOUR_MS : DAY_MS;
  return Array.from({ length: DAY_MS / length }, (_, i) => {
    const start = day + i * length;
    return { meter, customer, start, end: start + length, aggregation };
  });
}

/** SQLite's order of text is that of its UTF-8, not JavaScript's. */
const inOrder = (a: Day, b: Day): number =>
  compareText(a.meter, b.meter) || compareText(a.customer, b.customer) || a.day - b.day;

const compareText = (a: string, b: string): number => Buffer.compare(Buffer.from(a), Buffer.from(b));
