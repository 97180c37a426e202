import { isAllowed } from "../catalog/rate-limits.ts";
import { MINUTE_MS, SECOND_MS } from "../domain/window.ts";
import type { Env } from "../env.ts";

/** How long the database is not asked again about a key that it does not know (ms); README.md names it. */
const UNKNOWN_MS = 5 * SECOND_MS;

/** How long an isolate believes that an address is past its limit (ms). */
const REFUSED_MS = 5 * SECOND_MS;

/** Keys of an address that this isolate asks about in a minute before it counts them in advance. */
const FREE_KEYS = 10;

/** What the limit says about a look-up: it is counted already, is to be counted if the key is unknown, or may not be. */
type Leave = "counted" | "count_if_unknown" | "refused";

/**
 * What an isolate remembers of keys that it does not know, and of who presents them, so that guessing
 * keys does not become work for the database. The limit counts unknown keys. A key that works costs
 * nothing, however many isolates meet it for the first time, unless its address tries many others.
 */
export class UnknownKeys {
  readonly #unknown = new ShortMemory<true>(UNKNOWN_MS);
  readonly #refused = new ShortMemory<true>(REFUSED_MS);
  /** The keys that each address presented, and whether each is counted. */
  readonly #asked = new ShortMemory<Map<string, boolean>>(MINUTE_MS);

  /** Whether the database has just said that it has no such key. `now` in ms. */
  isUnknown(name: string, now: number): boolean {
    return this.#unknown.get(name, now) !== undefined;
  }

  /** Whether the database may be asked about a key for a caller. */
  async mayAsk({ UNKNOWN_KEYS_LIMIT }: Env, address: string | undefined, name: string, now: number): Promise<Leave> {
    // Every request from outside has an address; without one it comes from the account's own Workers.
    if (address === undefined) return "counted";
    const block = addressBlock(address);
    if (this.#refused.get(block, now)) return "refused";
    const asked = this.#asked.get(block, now) ?? this.#asked.set(block, new Map(), now);
    if (asked.has(name) || asked.size < FREE_KEYS) {
      const isCounted = asked.get(name) ?? false;
      asked.set(name, isCounted);
      return isCounted ? "counted" : "count_if_unknown";
    }
    return (await this.#count(UNKNOWN_KEYS_LIMIT, block, now)) ? "counted" : "refused";
  }

  /** Notes that the database has no such key; whether its caller is still within the limit. */
  async note(
    { UNKNOWN_KEYS_LIMIT }: Env,
    address: string | undefined,
    name: string,
    leave: Leave,
    now: number,
  ): Promise<boolean> {
    this.#unknown.set(name, true, now);
    if (leave === "counted" || address === undefined) return true;
    const block = addressBlock(address);
    // One key counts once, however often a client presents it within the minute.
    this.#asked.get(block, now)?.set(name, true);
    return this.#count(UNKNOWN_KEYS_LIMIT, block, now);
  }

  async #count(limit: RateLimit | undefined, block: string, now: number): Promise<boolean> {
    const allowed = await isAllowed(limit, block);
    if (!allowed) this.#refused.set(block, true, now);
    return allowed;
  }
}

/** Entries of a memory at most. */
const CAPACITY = 10_000;

/** Keeps values for a while from when they were set; past the capacity the oldest go first. */
class ShortMemory<V> {
  readonly #lifetime: number;
  readonly #entries = new Map<string, { value: V; setAt: number }>();

  constructor(lifetimeMs: number) {
    this.#lifetime = lifetimeMs;
  }

  get(key: string, now: number): V | undefined {
    const entry = this.#entries.get(key);
    return entry !== undefined && now - entry.setAt < this.#lifetime ? entry.value : undefined;
  }

  set(key: string, value: V, now: number): V {
    // Deleted first, so that the map's order is the order of setting.
    this.#entries.delete(key);
    this.#entries.set(key, { value, setAt: now });
    const [oldest] = this.#entries.keys();
    if (this.#entries.size > CAPACITY && oldest !== undefined) this.#entries.delete(oldest);
    return value;
  }
}

/** What a client's address counts as: an IPv6 address with its /64, since one subscriber has all of it. */
export function addressBlock(address: string): string {
  if (!address.includes(":")) return address;
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1];
  if (mapped !== undefined) return mapped;
  const [head = "", tail] = address.split("::");
  const [before, after] = [head, tail ?? ""].map((part) => (part === "" ? [] : part.split(":")));
  const zeros = tail === undefined ? 0 : Math.max(0, 8 - (before?.length ?? 0) - (after?.length ?? 0));
  const groups = [...(before ?? []), ...Array<string>(zeros).fill("0"), ...(after ?? [])];
  return `${groups
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(":")}::/64`;
}
