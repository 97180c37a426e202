import { holding, type LiveSlice } from "../aggregate/sql/slices.ts";
import { TIMESTAMP_AHEAD_MS } from "../domain/limits.ts";
import { receiptOf, type TimeRange } from "../domain/window.ts";
import type { Budget } from "./budget.ts";

/** The slices that there are or were. */
const SLICES = "SELECT slice, state, min_timestamp, max_timestamp FROM slices ORDER BY slice";

type SliceRow = { slice: number; state: string; min_timestamp: number | null; max_timestamp: number | null };

/** How often a transaction is repeated because the slices changed meanwhile, which they hardly ever do. */
const ATTEMPTS = 5;

/** A database's slices as one moment knows them. */
export type Slices = {
  /** Those that have their tables. */
  readonly live: readonly LiveSlice[];
  /** Those whose tables are gone. */
  readonly archived: ReadonlySet<number>;
  /** From when on (ms) all events are in live slices, by their timestamps. */
  readonly completeFrom: number;
};

export async function readSlices(db: D1Database, budget: Budget): Promise<Slices> {
  const [found] = await budget.run<SliceRow>(db, [db.prepare(SLICES)]);
  return toSlices(found?.results ?? []);
}

function toSlices(rows: readonly SliceRow[]): Slices {
  const archived = rows.filter(({ state }) => state === "archived").map(({ slice }) => slice);
  return {
    live: rows
      .filter(({ state }) => state !== "archived")
      .map(({ slice, min_timestamp: start, max_timestamp: end }) => ({
        slice,
        timestamps: start === null || end === null ? undefined : { start, end },
      })),
    archived: new Set(archived),
    completeFrom: archived.length === 0 ? 0 : receiptOf(Math.max(...archived)).end + TIMESTAMP_AHEAD_MS,
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
