import { UNIQUENESS_MS } from "../domain/limits.ts";
import { ancestorsOf, longerShards, ownerOf, type Shards } from "../domain/shards.ts";
import { logError } from "../logger.ts";
import { withTimeout } from "../timeout.ts";
import { CLOCKS_MS } from "./entries.ts";

/** What is stored by name: the longest history of shards that a call has brought, and until when to ask each ancestor. */
const SHARDS = "shards";
const ANCESTORS = "ancestors";

/** How long an ancestor is waited for (ms): it answers at once, or something is wrong. */
const PATIENCE_MS = 3_000;

/** How often an ancestor is called before a call of this shard fails. */
const ATTEMPTS = 3;

/** Which keys are a shard's own, and which other shards may hold them still. */
export class Inheritance {
  readonly #kv: SyncKvStorage;
  readonly #place: number;
  #shards: Shards | undefined;
  /** Until when (ms) each ancestor, by its place, is to be asked: a day after it gave its keys up. */
  #until: Readonly<Record<number, number>>;
  #takingOver: Promise<void> | undefined;

  constructor(kv: SyncKvStorage, place: number) {
    this.#kv = kv;
    this.#place = place;
    this.#shards = kv.get<Shards>(SHARDS);
    this.#until = kv.get<Record<number, number>>(ANCESTORS) ?? {};
  }

  /** The longest history that a call has brought. */
  get shards(): Shards {
    return this.#shards ?? [];
  }

  /**
   * Takes a longer history over. From then on this shard refuses keys that are not its own by it. Throws for one that
   * does not continue what this shard knows: its keys would be looked for in the wrong shards.
   */
  adopt(shards: Shards): void {
    if (shards.length === 0) return;
    if (longerShards(this.shards, shards) === this.shards) return;
    if (!this.shards.every((count, index) => count === shards[index])) {
      logError("a log's shards were recorded otherwise before", "history_differs", { place: this.#place });
      throw new Error("a log's shards were recorded otherwise before");
    }
    this.#kv.put(SHARDS, shards);
    this.#shards = shards;
  }

  /** Whether a unique key is this shard's. */
  owns(key: string): boolean {
    return this.#shards === undefined || ownerOf(key, this.#shards) === this.#place;
  }

  /**
   * Has every shard that held this one's keys give them up, once each; `handOver` calls the shard at a place. Until all
   * have answered, this shard takes nothing: an ancestor that does not know better would take the same key.
   */
  async takeOver(handOver: (ancestor: number) => Promise<void>): Promise<void> {
    for (let missing = this.#missing(); missing.length > 0; missing = this.#missing()) {
      this.#takingOver ??= this.#takeOverFrom(missing, handOver).finally(() => {
        this.#takingOver = undefined;
      });
      await this.#takingOver;
    }
  }

  #missing(): number[] {
    return ancestorsOf(this.#place, this.shards).filter((ancestor) => this.#until[ancestor] === undefined);
  }

  async #takeOverFrom(missing: readonly number[], handOver: (ancestor: number) => Promise<void>): Promise<void> {
    await Promise.all(missing.map((ancestor) => patiently(() => handOver(ancestor))));
    // An ancestor's clock may be behind by as much as calls are allowed to differ.
    const until = Date.now() + UNIQUENESS_MS + CLOCKS_MS;
    this.#until = { ...this.#until, ...Object.fromEntries(missing.map((ancestor) => [ancestor, until])) };
    this.#kv.put(ANCESTORS, this.#until);
  }

  /** The ancestors that may hold keys of this shard at `now` (ms), the latest first. */
  ancestors(now: number): number[] {
    return ancestorsOf(this.#place, this.shards).filter((ancestor) => (this.#until[ancestor] ?? 0) > now);
  }

  /** Until when (ms) some ancestor is asked, as far as that is known; nothing once none is. */
  movingUntil(now: number): number | undefined {
    if (this.#missing().length > 0) return now + UNIQUENESS_MS + CLOCKS_MS;
    const last = Math.max(0, ...this.ancestors(now).map((ancestor) => this.#until[ancestor] ?? 0));
    return last === 0 ? undefined : last;
  }
}

/** Calls another shard up to three times, 3 s each: it may be starting. The call must be safe to repeat. Throws the last failure. */
export async function patiently<T>(call: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await withTimeout(call(), PATIENCE_MS);
    } catch (error) {
      if (attempt >= ATTEMPTS) throw error;
    }
  }
}
