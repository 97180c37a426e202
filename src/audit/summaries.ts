// The two kinds of what is kept of a window's events: how each is read, made again, compared and repaired.
import { addSlice, CLEAR_SUMS, sumsOfSlice } from "../aggregate/sql/sums.ts";
import {
  outranks,
  restoreFrom,
  SETTLE_VACATED,
  survivorsOfSlice,
  VACATE,
  WINDOW_MS,
} from "../aggregate/sql/survivors.ts";
import type { Aggregation } from "../domain/meter.ts";
import { fromLimbs } from "../domain/value.ts";
import { QUARTER_HOUR_MS, type TimeRange } from "../domain/window.ts";

/** A window of a series that is kept; `start` in ms. */
export type Window = { readonly series: number; readonly start: number; readonly aggregation: Aggregation };

/** `V`: what is kept of a window, `Row`: how D1 gives it. */
export type Summaries<Row, V> = {
  /** Reads what is kept of parts of series: ?1, a JSON array of [series, from, to (ms, half open), aggregation]. */
  readonly kept: string;
  /** Likewise what a slice's events make. */
  readonly madeBy: (slice: number) => string;
  readonly read: (row: Row) => V;
  /** How many events made a row of `madeBy`. */
  readonly eventsOf: (row: Row) => number;
  /** What two slices make together. */
  readonly together: (one: V, other: V) => V;
  readonly isSame: (kept: V | undefined, made: V | undefined) => boolean;
  /** Whether what is kept of a window can only come from events that are not there. */
  readonly saysMore: (kept: V | undefined, made: V | undefined) => boolean;
  /** For one transaction: make what is kept of windows again, from the events of slices. */
  readonly remake: (db: D1Database, windows: readonly Window[], slices: readonly number[]) => D1PreparedStatement[];
};

/** How long a window of an aggregation is (ms). */
export const windowOf = (aggregation: Aggregation): number =>
  aggregation === "additive" ? QUARTER_HOUR_MS : WINDOW_MS[aggregation];

/** The least range that holds windows. */
export const rangeOfWindows = (windows: readonly Window[]): TimeRange => ({
  start: Math.min(...windows.map(({ start }) => start)),
  end: Math.max(...windows.map(({ start, aggregation }) => start + windowOf(aggregation))),
});

type Sum = { readonly count: number; readonly sum: bigint };

type SumRow = { count: number; high: string; low: string };

/** As text, since limbs that are added may leave what JavaScript counts exactly. */
const sumRows = (rows: string): string => `
  SELECT series, quarter_hour * ${QUARTER_HOUR_MS} AS start, count,
    CAST(sum_high AS TEXT) AS high, CAST(sum_low AS TEXT) AS low
  FROM ${rows}`;

export const SUMS: Summaries<SumRow, Sum> = {
  kept: sumRows(`json_each(?1) AS wanted CROSS JOIN sums
  WHERE series = wanted.value ->> 0
    AND quarter_hour >= (wanted.value ->> 1) / ${QUARTER_HOUR_MS}
    AND quarter_hour < (wanted.value ->> 2) / ${QUARTER_HOUR_MS}`),
  madeBy: (slice) => sumRows(`(${sumsOfSlice(slice)})`),
  read: ({ count, high, low }) => ({ count, sum: fromLimbs(high, low) }),
  eventsOf: ({ count }) => count,
  together: (one, other) => ({ count: one.count + other.count, sum: one.sum + other.sum }),
  isSame: (kept = NOTHING, made = NOTHING) => kept.count === made.count && kept.sum === made.sum,
  saysMore: (kept = NOTHING, made = NOTHING) => kept.count > made.count,
  remake: (db, windows, slices) => {
    const wanted = JSON.stringify(windows.map(({ series, start }) => [series, start / QUARTER_HOUR_MS]));
    return [CLEAR_SUMS, ...slices.map(addSlice)].map((sql) => db.prepare(sql).bind(wanted));
  },
};

const NOTHING: Sum = { count: 0, sum: 0n };

type Survivor = { readonly rank: number; readonly timestamp: number; readonly id: string; readonly value: number };

type SurvivorRow = Survivor & { events: number };

const survivorRows = (events: string, rows: string): string => `
  SELECT series, window_start AS start, rank, timestamp, survivors.id, survivors.value, ${events} AS events FROM ${rows}`;

export const SURVIVORS: Summaries<SurvivorRow, Survivor> = {
  kept: survivorRows(
    "1",
    `json_each(?1) AS wanted CROSS JOIN survivors
  WHERE series = wanted.value ->> 0
    AND window_start >= wanted.value ->> 1 AND window_start < wanted.value ->> 2`,
  ),
  madeBy: (slice) => survivorRows("events", `(${survivorsOfSlice(slice)}) AS survivors`),
  read: (row) => row,
  eventsOf: ({ events }) => events,
  together: (one, other) => (outranks(one, other) ? one : other),
  isSame: (kept, made) =>
    kept?.rank === made?.rank &&
    kept?.timestamp === made?.timestamp &&
    kept?.id === made?.id &&
    kept?.value === made?.value,
  // A window that is vacated has a lower rank than any event.
  saysMore: (kept, made) => kept !== undefined && kept.rank >= 0 && (made === undefined || outranks(kept, made)),
  remake: (db, windows, slices) => {
    const wanted = JSON.stringify(windows.map(({ series, start, aggregation }) => [series, start, aggregation]));
    return [VACATE, ...slices.map(restoreFrom), ...SETTLE_VACATED].map((sql) => db.prepare(sql).bind(wanted));
  },
};
