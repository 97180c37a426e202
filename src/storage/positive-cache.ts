import type { Execution } from "../env.ts";
import { withTimeout } from "../timeout.ts";

/** Loads the current values of keys; a key without a value is left out. Throws when the database does not answer. */
export type Load<V> = (keys: readonly string[]) => Promise<ReadonlyMap<string, V>>;

type Entry<V> = { value: V; checkedAt: number };

/** A cached value is used without a question for this long (ms); README.md names it. */
export const FRESH_MS = 10_000;

/** From this age on (ms) it is looked up again in the background, so that busy keys never wait. */
const REFRESH_MS = 5_000;

/** At least so long from one look-up of all entries to the next (ms). */
const REFRESH_PAUSE_MS = 2_500;

/** While the database fails, a value this old is still used (ms). */
const STALE_MS = 3_600_000;

/** How long a request waits for the database before it takes a stale value (ms). */
const PATIENCE_MS = 1_000;

/** How long anything waits for the database when there is no value to take instead (ms). */
const LONG_PATIENCE_MS = 8_000;

/** How long a look-up in the background may take (ms). */
const BACKGROUND_PATIENCE_MS = 4_000;

/**
 * A failure of the database is believed for this long (ms): requests take stale values without
 * asking. Longer than the patience above, so that a database that hangs is not waited for again.
 */
const FAILURE_MS = 7_000;

/** Keys that one query looks up: what D1 binds may have 2 MB. */
const QUERY_KEYS = 1_000;

/** Entries at most. */
const CAPACITY = 20_000;

/**
 * Keeps what exists: valid API keys, active meters. What does not exist is never kept, so "no such"
 * is always the database's own word. One background query looks up all entries again.
 *
 * Lives as long as its isolate. Promises are not shared between requests, since the runtime ends a
 * request's I/O with it.
 */
export class PositiveCache<V> {
  readonly #entries = new Map<string, Entry<V>>();
  #refreshedAt = Number.NEGATIVE_INFINITY;
  #failedAt = Number.NEGATIVE_INFINITY;

  /** The value of a key, or nothing when the database says that there is none. Throws when nobody can know. */
  async get(key: string, load: Load<V>, execution: Execution): Promise<V | undefined> {
    const now = Date.now();
    const entry = this.#entries.get(key);
    if (entry === undefined) {
      await withTimeout(this.#look([key], load), LONG_PATIENCE_MS);
      return this.#entries.get(key)?.value;
    }
    const age = now - entry.checkedAt;
    if (age < FRESH_MS) {
      if (age > REFRESH_MS) this.#refresh(now, load, execution);
      return entry.value;
    }
    if (age < STALE_MS && now - this.#failedAt < FAILURE_MS) {
      this.#refresh(now, load, execution);
      return entry.value;
    }
    try {
      await withTimeout(this.#look([key], load), PATIENCE_MS);
      return this.#entries.get(key)?.value;
    } catch (error) {
      if (age >= STALE_MS) throw error;
      this.#failedAt = Date.now();
      return entry.value;
    }
  }

  /** The values of several keys, without those that have none; what is not cached is loaded at once. Throws as `get` does. */
  async getAll(keys: readonly string[], load: Load<V>, execution: Execution): Promise<Map<string, V>> {
    const missing = keys.filter((key) => !this.#entries.has(key));
    if (missing.length > 1) await withTimeout(this.#look(missing, load), LONG_PATIENCE_MS);
    const looked = new Set(missing.length > 1 ? missing : []);
    const found = new Map<string, V>();
    for (const key of keys) {
      const value = looked.has(key) ? this.#entries.get(key)?.value : await this.get(key, load, execution);
      if (value !== undefined) found.set(key, value);
    }
    return found;
  }

  /** Forgets a key whose value this isolate has just changed. */
  delete(key: string): void {
    this.#entries.delete(key);
  }

  #refresh(now: number, load: Load<V>, execution: Execution): void {
    if (now - this.#refreshedAt < REFRESH_PAUSE_MS) return;
    this.#refreshedAt = now;
    execution.waitUntil(
      withTimeout(this.#lookAtAll(load), BACKGROUND_PATIENCE_MS).catch(() => {
        this.#failedAt = Date.now();
      }),
    );
  }

  async #lookAtAll(load: Load<V>): Promise<void> {
    const keys = [...this.#entries.keys()];
    for (let i = 0; i < keys.length; i += QUERY_KEYS) await this.#look(keys.slice(i, i + QUERY_KEYS), load);
  }

  /** Asks the database, and keeps exactly what it says. */
  async #look(keys: readonly string[], load: Load<V>): Promise<void> {
    const checkedAt = Date.now();
    const found = await load(keys);
    for (const key of keys) {
      const value = found.get(key);
      // Deleted first, so that the map's order is the order of checking and the oldest goes first.
      this.#entries.delete(key);
      if (value !== undefined) this.#entries.set(key, { value, checkedAt });
    }
    for (const key of this.#entries.keys()) {
      if (this.#entries.size <= CAPACITY) break;
      this.#entries.delete(key);
    }
  }
}
