import { aggregationsOf } from "../catalog/meters.ts";
import { eventsDatabase } from "../catalog/placement.ts";
import { DAY_MS, type TimeRange } from "../domain/window.ts";
import type { Env } from "../env.ts";
import { packByBytes } from "../log/groups.ts";
import { logError, logWarning } from "../logger.ts";
import { type Day, nextDays, type Position, type Span, spansOf } from "./days.ts";
import { COUNT_BY_RECEIPT, FIND_SUSPECT, REPAIR } from "./summary-statements.ts";

/** How many events were received in each minute (its start, ms). */
export type CountsByMinute = Readonly<Record<string, number>>;

type SummaryAudit = {
  /** Days of a customer on a meter whose summaries were recomputed. */
  readonly days: number;
  /** Summaries that said something else than their events, and now say the same. */
  readonly repaired: number;
  /** Summaries that say more than their events, from before `lessFrom`; left as they are. */
  readonly suspect: number;
  /** Days of which D1 could not recompute everything. */
  readonly failed: number;
  readonly next: Position;
};

type SummaryAuditOptions = {
  /** About how many events to read. */
  readonly rows: number;
  /** Only days that ended by then (ms); all unless given. */
  readonly until?: number;
  /**
   * Summaries from this time on (ms) follow their events also when that makes them say less. Before it
   * events may have been lost which the log does not have either, so the summary may be the true one.
   */
  readonly lessFrom: number;
};

/**
 * The most spans one statement takes (bytes of JSON), well below what D1 binds: each of them has it read
 * up to a day of events, and it has 30 seconds.
 */
const SPANS_BYTES = 500_000;

type Changed = { meter: string; start: number };

/** Recomputes the summaries of the next days from their events, and repairs those that differ. */
export async function auditSummaries(
  env: Env,
  from: Position,
  { rows, until = Number.POSITIVE_INFINITY, lessFrom }: SummaryAuditOptions,
): Promise<SummaryAudit> {
  const db = eventsDatabase(env);
  const { days, next } = await nextDays(db, from, rows);
  const closed = days.filter(({ day }) => day + DAY_MS <= until);
  const aggregations = await aggregationsOf(env.DB, [...new Set(closed.map(({ meter }) => meter))]);
  const spansOfDay = (day: Day): Span[] => {
    const aggregation = aggregations.get(day.meter);
    return aggregation === undefined ? [] : spansOf(day, aggregation);
  };
  const sum = { repaired: 0, suspect: 0 };
  const failed = new Set<Day>();
  // A big day's hours one after the other, all other days together.
  const together = closed.filter(({ isBig }) => !isBig);
  const runs = [
    { days: together, spans: together.flatMap(spansOfDay) },
    ...closed
      .filter(({ isBig }) => isBig)
      .flatMap((day) => spansOfDay(day).map((span) => ({ days: [day], spans: [span] }))),
  ];
  for (const run of runs) {
    if (run.spans.length === 0) continue;
    try {
      const { repaired, suspect } = await repair(db, run.spans, lessFrom);
      sum.repaired += repaired;
      sum.suspect += suspect;
    } catch (error) {
      // One day that is too much must not keep the audit from all that come after it.
      for (const day of run.days) failed.add(day);
      logError("summaries were not recomputed", error, { spans: run.spans.length, first: run.spans[0]?.start ?? 0 });
    }
  }
  return { days: closed.length - failed.size, ...sum, failed: failed.size, next };
}

async function repair(
  db: D1Database,
  spans: readonly Span[],
  lessFrom: number,
): Promise<{ repaired: number; suspect: number }> {
  const statements = recompute(db, spans, lessFrom);
  const results = await db.batch<Changed>(statements.map(({ statement }) => statement));
  let repaired = 0;
  let suspect = 0;
  for (const [i, { results: changed }] of results.entries()) {
    for (const { meter, start } of changed) {
      if (statements[i]?.repairs)
        logWarning("a summary differed from its events, and was recomputed", { meter, start });
      else logWarning("a summary says more than its events, and was left as it is", { meter, start });
    }
    if (statements[i]?.repairs) repaired += changed.length;
    else suspect += changed.length;
  }
  return { repaired, suspect };
}

/**
 * The statements that recompute the summaries of spans; each gives a row for each summary that it changed,
 * or found and left. See SummaryAuditOptions for `lessFrom`.
 */
export function recompute(
  db: D1Database,
  spans: readonly Span[],
  lessFrom: number,
): { readonly statement: D1PreparedStatement; readonly repairs: boolean }[] {
  return packByBytes(
    spans.map((span) => JSON.stringify(span)),
    SPANS_BYTES,
  ).flatMap(({ entries }) => {
    const bound = (sql: string, repairs: boolean) => ({
      statement: db.prepare(sql).bind(`[${entries}]`, lessFrom),
      repairs,
    });
    return [...FIND_SUSPECT.map((sql) => bound(sql, false)), ...REPAIR.map((sql) => bound(sql, true))];
  });
}

/** How many events are stored between two positions, by the minute in which they were received. */
export async function countStored(
  db: D1Database,
  from: Position,
  to: Position,
  received: TimeRange,
): Promise<CountsByMinute> {
  const { results } = await db
    .prepare(COUNT_BY_RECEIPT)
    .bind(from.meter, from.customer, from.time, to.meter, to.customer, to.time, received.start, received.end)
    .all<{ minute: number; count: number }>();
  return Object.fromEntries(results.map(({ minute, count }) => [String(minute), count]));
}
