import { ceilTo } from "../domain/window.ts";

/** Entries a second of a shard from which on it sends half as often, and a quarter as often. */
const BUSY = 50;
const BULK = 250;

/**
 * How long a shard that takes so many entries a second waits between two sends (ms). `shortest` is the wait of a quiet
 * shard. A busier one sends less often: each send is a transaction more, which writes the sum of every customer in it.
 */
export function intervalAt(entriesPerSecond: number, shortest: number): number {
  if (entriesPerSecond < BUSY) return shortest;
  return entriesPerSecond < BULK ? 2 * shortest : 4 * shortest;
}

/** The longest that what a shard took waits for a tick (ms). */
export const longestWait = (shortest: number): number => 1.5 * intervalAt(Number.POSITIVE_INFINITY, shortest);

/**
 * When a shard may send that has last sent at `sentAt`: at once if it has been idle, or else at the next tick of the
 * clock that is at least half an interval after its last send (all in ms). The ticks are the multiples of the interval
 * and so the same for all shards: what they send at one tick the aggregator takes together, and it writes the sum of a
 * customer once for all of them.
 */
export function nextSend(sentAt: number, interval: number, now: number): number {
  const tick = ceilTo(sentAt + interval / 2, interval);
  // A clock that went back makes no shard wait.
  return tick <= now || sentAt > now ? now : tick;
}

/** Says when a shard sends, by what it has sent and what it takes. Times in ms. */
export class Throttle {
  readonly #shortest: number;
  readonly #fullBytes: number;
  #interval: number;
  #sentAt = 0;
  /** Taken since then. */
  #entries = 0;
  #bytes = 0;

  /** `shortest`: the wait of a quiet shard; `fullBytes`: those of a message that need not wait for more. */
  constructor(shortest: number, fullBytes: number) {
    this.#shortest = shortest;
    this.#interval = shortest;
    this.#fullBytes = fullBytes;
  }

  /** Notes what waits to be sent. */
  took(entries: number, bytes: number): void {
    this.#entries += entries;
    this.#bytes += bytes;
  }

  /** Notes that all of it is being sent. */
  sends(now: number): void {
    const seconds = Math.max(1, now - this.#sentAt) / 1_000;
    this.#interval = intervalAt(this.#entries / seconds, this.#shortest);
    this.#sentAt = now;
    this.#entries = 0;
    this.#bytes = 0;
  }

  /**
   * When to send what waits; a full message at the next tick of the shortest interval, since in bulk the messages of all
   * shards are full at about the same time.
   */
  next(now: number): number {
    const next = nextSend(this.#sentAt, this.#interval, now);
    return this.#bytes < this.#fullBytes ? next : Math.min(next, ceilTo(now, this.#shortest));
  }
}
