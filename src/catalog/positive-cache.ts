import type { Execution } from "../env.ts";
import { withTimeout } from "../timeout.ts";

/** Where values are loaded from: a replica nearby, which may lag, or the primary. */
export type Place = "nearest" | "primary";

/** Loads the current values of keys; a key without a value is left out. Throws when the database does not answer. */
export type Load<V> = (keys: readonly string[], place: Place) => Promise<ReadonlyMap<string, V>>;

/** A value, or that a key had one: then the primary alone is asked, since a replica may have it still. */
type Entry<V> = { readonly value: V | undefined; readonly checkedAt: number };

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
 * A failure of the database is believed for this long (ms): requests take stale values without waiting.
 * So a value that is too old is used at most this long after the database is back, and a second
 * more when the last query was never answered. OPERATIONS.md names it.
 */
const FAILURE_MS = 2_000;

/**
 * At least so long from one look-up to the next while the database fails (ms). With the patience above, a
 * database that hangs is asked again before its last failure is forgotten, and no request waits for it twice.
 */
const FAILURE_PAUSE_MS = 1_000;

/** Keys that one query looks up: what D1 binds may have 2 MB. */
const QUERY_KEYS = 1_000;

/** Entries at most. */
const CAPACITY = 20_000;

/**
 * Keeps what exists: valid API keys, active meters. What does not exist is never kept, so "no such"
 * is always the database's own word. One background query looks up all entries again.
 *
 * A replica is believed when a key is met for the first time, and the primary is asked behind it at once: until
 * it has confirmed the value, that counts as half way to being too old. Everything after that is the primary's word.
 *
 * Lives as long as its isolate. Promises are not shared between requests, since the runtime ends a
 * request's I/O with it.
 */
export class PositiveCache<V> {
  readonly #entries = new Map<string, Entry<V>>();
  #refreshedAt = Number.NEGATIVE_INFINITY;
  #failedAt = Number.NEGATIVE_INFINITY;
  /** How often this isolate has changed a value. */
  #changes = 0;

  /** Whether a key has a value here that may be used, at the latest while the database fails. */
  has(key: string): boolean {
    const entry = this.#entries.get(key);
    return entry?.value !== undefined && Date.now() - entry.checkedAt < STALE_MS;
  }

  /** The value of a key that was checked so recently that nothing needs doing: what a busy key nearly always has. */
  recent(key: string): V | undefined {
    const entry = this.#entries.get(key);
    return entry !== undefined && Date.now() - entry.checkedAt < REFRESH_MS ? entry.value : undefined;
  }

  /** The value of a key, or nothing when the database says that there is none. Throws when the database does not answer and nothing is cached. */
  async get(key: string, load: Load<V>, execution: Execution): Promise<V | undefined> {
    return this.recent(key) ?? (await this.getAll([key], load, execution)).get(key);
  }

  /** The values of several keys, without those that have none; what must be looked up is looked up at once. Throws as `get` does. */
  async getAll(keys: readonly string[], load: Load<V>, execution: Execution): Promise<Map<string, V>> {
    const now = Date.now();
    const found = new Map<string, V>();
    const [unknown, gone, old]: [string[], string[], string[]] = [[], [], []];
    let isAgeing = false;
    for (const key of keys) {
      const { value, checkedAt } = this.#entries.get(key) ?? { value: undefined, checkedAt: undefined };
      if (checkedAt === undefined) unknown.push(key);
      else if (value === undefined) gone.push(key);
      else if (!this.#isUsable(now - checkedAt, now)) old.push(key);
      else {
        found.set(key, value);
        isAgeing ||= now - checkedAt >= REFRESH_MS;
      }
    }
    if (isAgeing) this.#refresh(load, execution);
    if (found.size === keys.length) return found;
    const looked = await Promise.all([
      this.#meet(unknown, load, execution),
      withTimeout(this.#look(gone, load, "primary"), LONG_PATIENCE_MS),
      this.#lookAgain(old, load),
    ]);
    return new Map([...found, ...looked.flatMap((values) => [...values])]);
  }

  #isUsable(age: number, now: number): boolean {
    return age < FRESH_MS || (age < STALE_MS && this.#isFailing(now));
  }

  /** Looks up keys that this isolate has not met. */
  async #meet(keys: readonly string[], load: Load<V>, execution: Execution): Promise<ReadonlyMap<string, V>> {
    const found = await withTimeout(this.#look(keys, load, "nearest"), LONG_PATIENCE_MS);
    const met = keys.filter((key) => found.has(key));
    if (met.length > 0) this.#inBackground(this.#look(met, load, "primary"), BACKGROUND_PATIENCE_MS, execution);
    return found;
  }

  /** Looks up keys whose values are too old; those are used still when the database does not answer. */
  async #lookAgain(keys: readonly string[], load: Load<V>): Promise<ReadonlyMap<string, V>> {
    const entries = keys.map((key) => [key, this.#entries.get(key)] as const);
    const now = Date.now();
    try {
      return await withTimeout(this.#look(keys, load, "primary"), PATIENCE_MS);
    } catch (error) {
      this.#failedAt = Date.now();
      const stale = new Map<string, V>();
      for (const [key, entry] of entries) {
        if (entry?.value === undefined || now - entry.checkedAt >= STALE_MS) throw error;
        stale.set(key, entry.value);
      }
      return stale;
    }
  }

  /** Forgets a key whose value this isolate has just changed, also what is being looked up of it meanwhile. */
  delete(key: string): void {
    this.#changes++;
    this.#entries.set(key, { value: undefined, checkedAt: Date.now() });
  }

  #isFailing(now: number): boolean {
    return now - this.#failedAt < FAILURE_MS;
  }

  #refresh(load: Load<V>, execution: Execution): void {
    const now = Date.now();
    const isFailing = this.#isFailing(now);
    if (now - this.#refreshedAt < (isFailing ? FAILURE_PAUSE_MS : REFRESH_PAUSE_MS)) return;
    this.#refreshedAt = now;
    this.#inBackground(this.#lookAtAll(load), isFailing ? PATIENCE_MS : BACKGROUND_PATIENCE_MS, execution);
  }

  #inBackground(lookUp: Promise<unknown>, patienceMs: number, execution: Execution): void {
    execution.waitUntil(
      withTimeout(lookUp, patienceMs).catch(() => {
        this.#failedAt = Date.now();
      }),
    );
  }

  async #lookAtAll(load: Load<V>): Promise<void> {
    const keys = [...this.#entries].filter(([, { value }]) => value !== undefined).map(([key]) => key);
    for (let i = 0; i < keys.length; i += QUERY_KEYS) await this.#look(keys.slice(i, i + QUERY_KEYS), load, "primary");
  }

  /** Asks the database, and keeps exactly what it says. */
  async #look(keys: readonly string[], load: Load<V>, place: Place): Promise<ReadonlyMap<string, V>> {
    if (keys.length === 0) return new Map();
    const askedAt = Date.now();
    const changes = this.#changes;
    const found = await load(keys, place);
    this.#failedAt = Number.NEGATIVE_INFINITY;
    // What was found may be from before a change of this isolate's own: it is not kept, and asked for again.
    if (changes !== this.#changes) return found;
    const checkedAt = place === "primary" ? askedAt : askedAt - REFRESH_MS;
    for (const key of new Set([...keys, ...found.keys()])) this.#keep(key, found.get(key), checkedAt);
    for (const key of this.#entries.keys()) {
      if (this.#entries.size <= CAPACITY) break;
      this.#entries.delete(key);
    }
    return found;
  }

  #keep(key: string, value: V | undefined, checkedAt: number): void {
    const known = this.#entries.get(key);
    // A slow look-up does not replace what a later one found.
    if (known !== undefined && known.checkedAt > checkedAt) return;
    if (known === undefined && value === undefined) return;
    // Deleted first, so that the map's order is the order of checking and the oldest goes first.
    this.#entries.delete(key);
    this.#entries.set(key, { value, checkedAt });
  }
}
