import type { Env } from "../env.ts";

/**
 * The database that holds events and summaries: the one place that decides it. When one database
 * is not enough, the choice is made here from what never changes about an event: its received time,
 * meter and customer. `commitOnce`, which redrives dead letters too, then needs another way for them:
 * it commits a change and its Idempotency-Key in one transaction, and that is on `env.DB`.
 */
export const eventsDatabase = (env: Env): D1Database => env.DB;

/** What a look-up needs of a database, or of a session with one. */
export type Queryable = Pick<D1Database, "prepare">;

/**
 * Looks keys up at the replica nearest to this isolate, and what that does not have at the primary: a
 * replica may lag by seconds, so what it has is believed, and that there is no such key is the primary's
 * own word. Without replicas both are the same database.
 */
export async function fromReplica<V>(
  db: D1Database,
  keys: readonly string[],
  load: (db: Queryable, keys: readonly string[]) => Promise<Map<string, V>>,
): Promise<Map<string, V>> {
  const found = await load(db.withSession("first-unconstrained"), keys);
  const missing = keys.filter((key) => !found.has(key));
  if (missing.length === 0) return found;
  return new Map([...found, ...(await load(db, missing))]);
}
