import { bind } from "../aggregate/sql/bind.ts";
import { QUARTER_HOUR_MS } from "../domain/window.ts";
import type { Budget } from "./budget.ts";

/** Where a walk through a database's sums stands: in a series, at a time (ms). */
export type Key = { readonly series: number; readonly time: number };

export const BEGINNING: Key = { series: 0, time: 0 };

/** After every time (ms). */
const END = Number.MAX_SAFE_INTEGER;

/** A part of a series: the windows that begin from `from` to `to` (ms, half open). */
export type Part = {
  readonly series: number;
  readonly meter: string;
  readonly customer: string;
  readonly from: number;
  readonly to: number;
};

/** What is looked at together, and where the next portion begins; nothing after the last. */
export type Portion = { readonly parts: readonly Part[]; readonly next: Key | undefined };

/** What a portion holds at most: series, windows, and events about. A statement has 30 seconds. */
const MOST_SERIES = 500;
const MOST_WINDOWS = 2_000;
const MOST_EVENTS = 50_000;

/** About how many rows are read for each of them, when the budget is small. */
const ROWS = { series: 16, window: 16, event: 4 } as const;

/** How many events a window with a survivor is taken to have: nothing counts them. */
const EVENTS_A_SURVIVOR = 20;

const SERIES = "SELECT id, meter, customer FROM series WHERE id >= ?1 ORDER BY id LIMIT ?2";

/** The next windows of series in the order of their key, and how many events each has. */
const windowsIn = (table: string, time: string, unit: number, events: string): string => `
  SELECT series.id AS series, ${time} * ${unit} AS time, ${events} AS events
  FROM series CROSS JOIN ${table} ON ${table}.series = series.id
  WHERE series.id BETWEEN :first AND :last
    AND ${time} >= IIF(series.id = :first, MAX(:time, :floor), :floor) / ${unit}
  ORDER BY series.id, ${time}
  LIMIT :most`;

const WINDOWS = [
  windowsIn("sums", "quarter_hour", QUARTER_HOUR_MS, "count"),
  windowsIn("survivors", "window_start", 1, String(EVENTS_A_SURVIVOR)),
] as const;

type Window = Key & { readonly events: number };

/**
 * The next portion of a database's series from a key on, as large as the budget allows. Sums and
 * survivors before `floor` (ms) are passed by. The portions of a walk have every event of every series once.
 */
export async function nextPortion(db: D1Database, from: Key, floor: number, budget: Budget): Promise<Portion> {
  const within = (most: number, rowsOfOne: number) => Math.min(most, Math.max(2, Math.floor(budget.rows / rowsOfOne)));
  const most = { series: within(MOST_SERIES, ROWS.series), windows: within(MOST_WINDOWS, ROWS.window) };
  const [found] = await budget.run<{ id: number; meter: string; customer: string }>(db, [
    db.prepare(SERIES).bind(from.series, most.series),
  ]);
  const series = found?.results ?? [];
  const last = series.at(-1)?.id;
  if (last === undefined) return { parts: [], next: undefined };
  const values = { first: from.series, last, time: from.time, floor, most: most.windows };
  const windows = await budget.run<Window>(
    db,
    WINDOWS.map((sql) => bind(db, sql, values)),
  );
  const ends = windows.flatMap(({ results }) => (results.length < most.windows ? [] : results.slice(-1)));
  const end = endBy(windows.flatMap(({ results }) => results).sort(inOrder), within(MOST_EVENTS, ROWS.event));
  if (end !== undefined) ends.push(end);
  if (series.length === most.series) ends.push({ series: last + 1, time: 0, events: 0 });
  const [next] = ends.sort(inOrder);
  const parts = series.map(({ id, ...pair }) => ({
    series: id,
    ...pair,
    from: id === from.series ? from.time : 0,
    to: next === undefined || id < next.series ? END : id === next.series ? next.time : 0,
  }));
  return {
    parts: parts.filter((part) => part.from < part.to),
    next: next && { series: next.series, time: next.time },
  };
}

/** The first window that is too much, but not the very first. */
function endBy(windows: readonly Window[], events: number): Window | undefined {
  let sum = 0;
  return windows.find((window, index) => {
    sum += window.events;
    return index > 0 && sum > events;
  });
}

const inOrder = (a: Key, b: Key): number => a.series - b.series || a.time - b.time;
