import type { Env } from "../env.ts";
import { logWarning } from "../log.ts";
import { DAY_MS, type TimeRange } from "../metering/windows.ts";
import { eventsDatabase } from "../storage/databases.ts";
import { aggregationsOf } from "../storage/meters.ts";
import { type AuditedDay, type Day, nextDays, type Place } from "./days.ts";
import { COUNT_BY_RECEIPT, RECOMPUTE } from "./summary-statements.ts";

/** How many events were received in each minute (its start, ms). */
export type CountsByMinute = Readonly<Record<string, number>>;

export type SummaryAudit = {
  /** Days of a customer on a meter whose summaries were recomputed. */
  readonly days: number;
  /** Summaries that said something else than their events, and now say the same. */
  readonly repaired: number;
  readonly next: Place;
};

/**
 * Recomputes the summaries of the next days from their events, and repairs those that differ. `rows`:
 * about how many events to read; `until` (ms): only days that ended by then.
 */
export async function auditSummaries(
  env: Env,
  from: Place,
  rows: number,
  until: number = Number.POSITIVE_INFINITY,
): Promise<SummaryAudit> {
  const db = eventsDatabase(env);
  const { days, next } = await nextDays(db, from, rows);
  const closed = days.filter(({ day }) => day + DAY_MS <= until);
  const audited = await withAggregations(env, closed);
  if (audited.length === 0) return { days: 0, repaired: 0, next };
  const wrong = (await db.batch<{ meter: string; start: number }>(recompute(db, audited))).flatMap(
    ({ results }) => results,
  );
  for (const { meter, start } of wrong) {
    logWarning("a summary differed from its events, and was recomputed", { meter, start });
  }
  return { days: audited.length, repaired: wrong.length, next };
}

/** The statements that recompute the summaries of days; each gives a row for each summary that it changed. */
export const recompute = (db: D1Database, days: readonly AuditedDay[]): D1PreparedStatement[] =>
  RECOMPUTE.map((sql) => db.prepare(sql).bind(JSON.stringify(days)));

/** How many events are stored between two places, by the minute in which they were received. */
export async function countStored(
  db: D1Database,
  from: Place,
  to: Place,
  received: TimeRange,
): Promise<CountsByMinute> {
  const { results } = await db
    .prepare(COUNT_BY_RECEIPT)
    .bind(from.meter, from.customer, from.time, to.meter, to.customer, to.time, received.start, received.end)
    .all<{ minute: number; count: number }>();
  return Object.fromEntries(results.map(({ minute, count }) => [String(minute), count]));
}

async function withAggregations({ DB }: Env, days: readonly Day[]): Promise<AuditedDay[]> {
  if (days.length === 0) return [];
  const aggregations = await aggregationsOf(DB, [...new Set(days.map(({ meter }) => meter))]);
  return days.flatMap((day) => {
    const aggregation = aggregations.get(day.meter);
    return aggregation === undefined ? [] : [{ ...day, aggregation }];
  });
}
