import type { Load } from "./positive-cache.ts";

/** What a look-up needs of a database, or of a session with one. */
export type Queryable = Pick<D1Database, "prepare">;

/** Looks up what a database, or a session with one, has of some keys. */
type LookUp<V> = (db: Queryable, keys: readonly string[]) => Promise<Map<string, V>>;

/**
 * How a cache loads its keys. From the nearest replica, which may lag by seconds, and what that does not have
 * from the primary; or all of them from the primary, whose word is the truth. Without replicas both are the
 * same database.
 */
export const loaderOf =
  <V>(db: D1Database, lookUp: LookUp<V>): Load<V> =>
  async (keys, place) => {
    if (place === "primary") return lookUp(db, keys);
    const found = await lookUp(db.withSession("first-unconstrained"), keys);
    const missing = keys.filter((key) => !found.has(key));
    return missing.length === 0 ? found : new Map([...found, ...(await lookUp(db, missing))]);
  };

/** Rows that one statement deletes, so that it does not hold up others. */
const DELETED_ROWS = 5_000;

/** Statements that one call runs; what is left over waits for the next minute. */
const DELETED_PORTIONS = 20;

/** Deletes rows portion by portion: `portion` makes the statement that deletes up to so many of them. */
export async function deleteInPortions(portion: (rows: number) => D1PreparedStatement): Promise<void> {
  for (let count = 0; count < DELETED_PORTIONS; count++) {
    const { meta } = await portion(DELETED_ROWS).run();
    if (meta.changes < DELETED_ROWS) return;
  }
}
