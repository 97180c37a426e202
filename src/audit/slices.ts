import { holding, type LiveSlice, type SliceState } from "../aggregate/sql/slices.ts";
import { TIMESTAMP_AHEAD_MS } from "../domain/limits.ts";
import { receiptOf, type TimeRange } from "../domain/window.ts";
import type { Budget } from "./budget.ts";

/**
 * The slices that have their tables, and the newest that has none any more: one row, however many there were. The search
 * for it begins at the newest slice and passes by live ones only.
 */
const SLICES = `
  SELECT slice, state, min_timestamp, max_timestamp FROM slices WHERE state <> 'archived'
  UNION ALL
  SELECT * FROM (
    SELECT slice, state, min_timestamp, max_timestamp FROM slices WHERE state = 'archived' ORDER BY slice DESC LIMIT 1
  )
  ORDER BY slice`;

const STATES = "SELECT slice, state FROM slices WHERE slice IN (SELECT value FROM json_each(?1))";

type SliceRow = { slice: number; state: SliceState; min_timestamp: number | null; max_timestamp: number | null };

/** How often a transaction is repeated because the slices changed meanwhile, which they hardly ever do. */
const ATTEMPTS = 5;

/** A database's slices as one moment knows them. */
export type Slices = {
  /** Those that have their tables. */
  readonly live: readonly LiveSlice[];
  /** From when on (ms) all events are in live slices, by their timestamps. */
  readonly completeFrom: number;
};

export async function readSlices(db: D1Database, budget: Budget): Promise<Slices> {
  const [found] = await budget.run<SliceRow>(db, [db.prepare(SLICES)]);
  return toSlices(found?.results ?? []);
}

/** The states of those of some slices that a database has or had. */
export async function readStates(
  db: D1Database,
  slices: readonly number[],
  budget: Budget,
): Promise<ReadonlyMap<number, SliceState>> {
  type StateRow = Pick<SliceRow, "slice" | "state">;
  const [found] = await budget.run<StateRow>(db, [db.prepare(STATES).bind(JSON.stringify(slices))]);
  return new Map(found?.results.map(({ slice, state }) => [slice, state]));
}

function toSlices(rows: readonly SliceRow[]): Slices {
  const archived = rows.find(({ state }) => state === "archived");
  return {
    live: rows
      .filter(({ state }) => state !== "archived")
      .map(({ slice, min_timestamp: start, max_timestamp: end }) => ({
        slice,
        timestamps: start === null || end === null ? undefined : { start, end },
      })),
    completeFrom: archived === undefined ? 0 : receiptOf(archived.slice).end + TIMESTAMP_AHEAD_MS,
  };
}

/**
 * Runs the statements that are made for the slices that may hold events of a range, in a transaction at whose end they
 * are still the same: what is stored meanwhile comes before all of it or after it. Repeats it with other slices when
 * they are not. Throws when they change again and again.
 */
export async function overSlices<T>(
  db: D1Database,
  range: TimeRange,
  budget: Budget,
  statements: (slices: readonly number[], completeFrom: number) => D1PreparedStatement[],
): Promise<D1Result<T>[]> {
  const within = ({ live, completeFrom }: Slices) => ({
    slices: holding(live, range).map(({ slice }) => slice),
    completeFrom,
  });
  let expected = within(await readSlices(db, budget));
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const own = statements(expected.slices, expected.completeFrom);
    const results = await budget.run<T | SliceRow>(db, [...own, db.prepare(SLICES)]);
    const found = within(toSlices(results.pop()?.results as SliceRow[]));
    if (JSON.stringify(found) === JSON.stringify(expected)) return results as D1Result<T>[];
    expected = found;
  }
  throw new Error("the slices changed during each attempt");
}
