// The one event that stands for its window, of meters that keep one.
import type { Aggregation } from "../../domain/meter.ts";
import { GREATEST_VALUE } from "../../domain/value.ts";
import { DAY_MS, HOUR_MS, QUARTER_HOUR_MS } from "../../domain/window.ts";
import { entries } from "./entries.ts";
import { freshEntries, tableOf } from "./events.ts";
import {
  afterGroup,
  groupOf,
  inOrder,
  MOST_SERIES,
  type RowOrder,
  RUNS,
  type Shape,
  wantedSeries,
  windowStart,
} from "./usage.ts";

/** The length of a surviving event's window (ms), by its meter's aggregation. */
export const WINDOW_MS: Record<Exclude<Aggregation, "additive">, number> = {
  latest_of_quarter_hour: QUARTER_HOUR_MS,
  greatest_of_quarter_hour: QUARTER_HOUR_MS,
  least_of_quarter_hour: QUARTER_HOUR_MS,
  last_received_of_hour: HOUR_MS,
  last_received_of_day: DAY_MS,
};

/** The same in SQL. */
export const WINDOW_LENGTH = `CASE aggregation ${Object.entries(WINDOW_MS)
  .map(([aggregation, length]) => `WHEN '${aggregation}' THEN ${length}`)
  .join(" ")} END`;

/** The start of the window (ms) that an event is in. */
const WINDOW_START = `timestamp - timestamp % ${WINDOW_LENGTH}`;

/** What a window keeps the greatest of, before receipt order: an integer from 0 on, 0 where receipt alone decides. */
const RANKS: Record<keyof typeof WINDOW_MS, string> = {
  latest_of_quarter_hour: "timestamp",
  greatest_of_quarter_hour: "value",
  least_of_quarter_hour: `${GREATEST_VALUE} - value`,
  last_received_of_hour: "0",
  last_received_of_day: "0",
};

const RANK = `CASE aggregation ${Object.entries(RANKS)
  .map(([aggregation, rank]) => `WHEN '${aggregation}' THEN ${rank}`)
  .join(" ")} END`;

/** An event's rank, as the statements have it. */
export function rankOf(
  aggregation: keyof typeof WINDOW_MS,
  { timestamp, value }: { readonly timestamp: number; readonly value: number },
): number {
  if (aggregation === "latest_of_quarter_hour") return timestamp;
  if (aggregation === "greatest_of_quarter_hour") return value;
  return aggregation === "least_of_quarter_hour" ? GREATEST_VALUE - value : 0;
}

type Ranked = { readonly rank: number; readonly id: string };

/** Whether of two events of a window the first stands for it: the same order as in the statements. */
export const outranks = (one: Ranked, other: Ranked): boolean =>
  one.rank > other.rank || (one.rank === other.rank && one.id > other.id);

/** What sorts as text by rank, then by id. */
const asText = (rank: string, id: string): string => `printf('%016d', ${rank}) || ${id}`;

/**
 * Of some events, the one that each window keeps: the greatest (rank, id), whatever the order of arrival. Ids sort in
 * receipt order. `events` gives series, aggregation, timestamp, id and value; `more` may be aggregates of the window. In
 * SQLite the plain columns of a group are those of the row that has its MAX.
 */
export const best = (events: string, more = ""): string => `
  SELECT series, ${WINDOW_START} AS window_start, ${RANK} AS rank, timestamp, id, value${more}
  FROM (${events})
  GROUP BY series, window_start
  HAVING MAX(${asText(RANK, "id")}) IS NOT NULL`;

/** Lets rows of `best` take the windows in which they are the greatest. The same order as theirs decides. */
export const KEEP = `
  ON CONFLICT (series, window_start) DO UPDATE SET
    rank = excluded.rank,
    timestamp = excluded.timestamp,
    id = excluded.id,
    value = excluded.value
  WHERE (excluded.rank, excluded.id) > (survivors.rank, survivors.id)`;

const INTO = "INSERT INTO survivors (series, window_start, rank, timestamp, id, value)";

export const keepSurvivors = (slice: number): string => `
  WITH ${freshEntries(slice)}
  ${INTO}
  ${best("SELECT * FROM fresh WHERE aggregation <> 'additive'")}
  ${KEEP}`;

/** Those entries (?1) whose meters keep survivors, which are cancelled or corrected, and their windows. */
const CHANGED = `${entries("timestamp", "id", "aggregation")},
  changed AS (
    SELECT DISTINCT series, ${WINDOW_START} AS window_start, aggregation, id FROM entries WHERE aggregation <> 'additive'
  )`;

/**
 * Vacates the windows whose survivor is cancelled, and only those: it takes the lowest rank there is, so that every
 * other event of the window comes before it. From then on new events compete for the window as always.
 */
export const VACATE_CANCELLED = `
  WITH ${CHANGED}
  UPDATE survivors SET rank = -1, timestamp = window_start, id = '', value = 0, vacated = 1
  WHERE (series, window_start, id) IN (SELECT series, window_start, id FROM changed)`;

/**
 * Forgets bases that are cancelled or corrected after all, which only a repair of a sealed slice does. The slice is read
 * for bases again when it is exported again.
 */
export const FORGET_BASES = `
  WITH ${CHANGED}
  UPDATE survivors SET base_rank = NULL, base_timestamp = NULL, base_id = NULL, base_value = NULL
  WHERE (series, window_start, base_id) IN (SELECT series, window_start, id FROM changed)`;

/** The windows of cancelled events that are vacated: their slices are to be looked through, once this is committed. */
export const FIND_VACATED = `
  WITH ${CHANGED}
  SELECT DISTINCT series, window_start, aggregation
  FROM changed JOIN survivors USING (series, window_start)
  WHERE vacated = 1`;

/** The windows of corrected events, which are to be looked through again: a value may decide who stands for them. */
export const FIND_CORRECTED = `
  WITH ${CHANGED}
  SELECT DISTINCT series, window_start AS start, aggregation FROM changed`;

/**
 * Of each window, customer and group the greatest (rank, id) of some survivors, which have their series joined. Those of
 * a series come first: as with sums, that needs no sorting when there is one window.
 */
const greatest = (
  shape: Shape,
  order: RowOrder,
  isOneWindow: boolean,
  [start, rank, from]: readonly [start: string, rank: string, from: string],
): string => `
  WITH ${RUNS}
  SELECT start, customer, grp, rank, timestamp, id, value FROM (
    SELECT *, ${groupOf(shape)} AS grp FROM (
      SELECT series.customer, series.dimensions, ${start} AS start, ${rank} AS rank, timestamp, kept.id, value
      ${from}
      GROUP BY series.customer, series.dimensions${isOneWindow ? "" : ", start"}
      HAVING MAX(${asText(rank, "kept.id")}) IS NOT NULL
    )
  )
  WHERE ${afterGroup(order)}
  GROUP BY start, customer, grp
  HAVING MAX(${asText("rank", "id")}) IS NOT NULL
  ORDER BY ${inOrder(order)}
  LIMIT :limit`;

/** The survivors of :runs, by windows of these; from and to starts of their own windows (ms). */
export const readSurvivors = (shape: Shape, order: RowOrder, isOneWindow: boolean): string =>
  greatest(shape, order, isOneWindow, [
    windowStart("window_start"),
    "rank",
    `FROM series CROSS JOIN runs CROSS JOIN survivors AS kept
      WHERE ${wantedSeries(shape)}
        AND kept.series = series.id AND window_start >= runs.first AND window_start < runs.last AND kept.id <> ''`,
  ]);

/** What a slice's events of :runs keep of these, as survivors; from and to times (ms). */
export const greatestOfSlice =
  (aggregation: keyof typeof WINDOW_MS) =>
  (slice: number, shape: Shape, order: RowOrder): string =>
    greatest(shape, order, false, [
      windowStart("timestamp"),
      RANKS[aggregation],
      `FROM series CROSS JOIN runs CROSS JOIN ${tableOf(slice)} AS kept
      WHERE ${wantedSeries(shape)}
        AND kept.series = series.id AND timestamp >= runs.first AND timestamp < runs.last AND cancelled IS NULL`,
    ]);

/** The series whose quarter hours of :from to :to (ms, half open) have a survivor, and what they are. */
export const seriesInSurvivors = (shape: Shape): string => `
  SELECT series.id AS series, series.customer, ${groupOf(shape)} AS grp FROM series
  WHERE ${wantedSeries(shape)} AND EXISTS (
    SELECT 1 FROM survivors
    WHERE survivors.series = series.id AND window_start > :from - ${QUARTER_HOUR_MS} AND window_start < :to
  )
  ${MOST_SERIES}`;

/** The windows of ?1, a JSON array of [series, start, aggregation]. */
const WANTED = `
  wanted AS (
    SELECT value ->> 0 AS series, value ->> 1 AS window_start, value ->> 2 AS aggregation FROM json_each(?1)
  )`;

/** Lets a slice's events compete for windows (?1). */
export const restoreFrom = (slice: number): string => `
  WITH ${WANTED}
  ${INTO}
  ${best(`
    SELECT stored.series, aggregation, stored.timestamp, stored.id, stored.value
    FROM wanted CROSS JOIN ${tableOf(slice)} AS stored
    WHERE stored.series = wanted.series
      AND stored.timestamp >= window_start AND stored.timestamp < window_start + ${WINDOW_LENGTH}
      AND stored.cancelled IS NULL`)}
  ${KEEP}`;

/** Keeps, per window, the greatest of what can be cancelled no more: rows as `best` gives them. */
const keepBases = (rows: string): string => `
  INSERT INTO survivors (
    series, window_start, rank, timestamp, id, value, base_rank, base_timestamp, base_id, base_value
  )
  SELECT series, window_start, rank, timestamp, id, value, rank, timestamp, id, value FROM (${rows})
  WHERE true
  ON CONFLICT (series, window_start) DO UPDATE SET
    base_rank = excluded.base_rank,
    base_timestamp = excluded.base_timestamp,
    base_id = excluded.base_id,
    base_value = excluded.base_value
  WHERE base_id IS NULL OR (excluded.base_rank, excluded.base_id) >= (base_rank, base_id)`;

/** Keeps bases that are given: ?1, a JSON array of [series, start (ms), rank, timestamp (ms), id, value]. */
export const KEEP_BASES = keepBases(`
  SELECT value ->> 0 AS series, value ->> 1 AS window_start, value ->> 2 AS rank, value ->> 3 AS timestamp,
    value ->> 4 AS id, value ->> 5 AS value
  FROM json_each(?1)`);

/**
 * Keeps the bases of a slice's events, which `events` gives with their series joined, of the meters that keep survivors:
 * :aggregations, a JSON object of aggregations by meter.
 */
export const keepBasesOf = (events: string): string =>
  keepBases(
    best(`
  SELECT stored.series, :aggregations ->> ('$."' || meter || '"') AS aggregation, timestamp, stored.id, stored.value
  ${events}
    AND meter IN (SELECT key FROM json_each(:aggregations)) AND stored.cancelled IS NULL`),
  );

/**
 * Of windows by their starts, how many have the survivor that some events say, and how many an event that comes before
 * it: ?1, as for KEEP_BASES.
 */
export const COMPARE_SURVIVORS = `
  SELECT base.value ->> 1 AS start,
    COUNT(*) FILTER (
      WHERE rank = base.value ->> 2 AND timestamp = base.value ->> 3 AND survivors.id = base.value ->> 4
        AND survivors.value = base.value ->> 5
    ) AS same,
    COUNT(*) FILTER (
      WHERE survivors.id IS NULL OR (rank, survivors.id) < (base.value ->> 2, base.value ->> 4)
    ) AS surpassed
  FROM json_each(?1) AS base
    LEFT JOIN survivors ON survivors.series = base.value ->> 0 AND window_start = base.value ->> 1
  GROUP BY 1`;

/** How many windows of series from :first to :last have a survivor, by their starts from :from to :to (ms, half open). */
export const COUNT_SURVIVORS = `
  SELECT window_start AS start, COUNT(*) AS survivors
  FROM series CROSS JOIN survivors ON survivors.series = series.id
  WHERE series.id BETWEEN :first AND :last AND window_start >= :from AND window_start < :to AND survivors.id <> ''
  GROUP BY 1`;

/** Lets bases stand for their windows (?1, a JSON array of [series, start (ms), …]) where they are the greatest. */
export const TAKE_BASES = `
  WITH ${WANTED}
  UPDATE survivors SET rank = base_rank, timestamp = base_timestamp, id = base_id, value = base_value
  WHERE base_id IS NOT NULL AND (base_rank, base_id) > (rank, id)
    AND (series, window_start) IN (SELECT series, window_start FROM wanted)`;

/**
 * Ends the search for windows (?1): what was dropped competes as well, windows that nothing is left in go, the
 * others are taken.
 */
export const SETTLE_VACATED = [
  TAKE_BASES,
  `WITH ${WANTED}
  DELETE FROM survivors
  WHERE id = '' AND (series, window_start) IN (SELECT series, window_start FROM wanted)`,
  `WITH ${WANTED}
  UPDATE survivors SET vacated = 0
  WHERE vacated = 1 AND (series, window_start) IN (SELECT series, window_start FROM wanted)`,
] as const;

/** Vacates windows (?1) whatever stands for them, to have them searched again. */
export const VACATE = `
  WITH ${WANTED}
  INSERT INTO survivors (series, window_start, rank, timestamp, id, value, vacated)
  SELECT series, window_start, -1, window_start, '', 0, 1 FROM wanted
  WHERE true
  ON CONFLICT (series, window_start) DO UPDATE SET
    rank = -1, timestamp = excluded.timestamp, id = '', value = 0, vacated = 1`;

/**
 * The survivors that a slice's events make in parts of series, and how many `events` each stands for: ?1, a JSON array
 * of [series, from, to (ms, half open), aggregation].
 */
export const survivorsOfSlice = (slice: number): string =>
  best(
    `
  SELECT stored.series, wanted.value ->> 3 AS aggregation, stored.timestamp, stored.id, stored.value
  FROM json_each(?1) AS wanted CROSS JOIN ${tableOf(slice)} AS stored
  WHERE stored.series = wanted.value ->> 0
    AND stored.timestamp >= wanted.value ->> 1 AND stored.timestamp < wanted.value ->> 2
    AND stored.cancelled IS NULL`,
    ", COUNT(*) AS events",
  );
