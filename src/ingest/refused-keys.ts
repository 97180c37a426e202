/** How long a refused request is remembered (ms): the SDKs retry well before. */
const REMEMBERED_MS = 10_000;

/** Keys at most; past that the oldest is forgotten. */
const CAPACITY = 1_000;

/**
 * The Idempotency-Keys that a lock refused a moment ago, by their digests, so that it knows a retry. It lives in
 * memory only: a new lock refuses once more, and knows the retry after that.
 */
export class RefusedKeys {
  /** When each was refused last (ms), the oldest first. */
  readonly #refusedAt = new Map<string, number>();

  add(key: string, now: number): void {
    this.#refusedAt.delete(key);
    this.#refusedAt.set(key, now);
    for (const [oldest, at] of this.#refusedAt) {
      if (this.#refusedAt.size <= CAPACITY && at > now - REMEMBERED_MS) return;
      this.#refusedAt.delete(oldest);
    }
  }

  has(key: string, now: number): boolean {
    return (this.#refusedAt.get(key) ?? Number.NEGATIVE_INFINITY) > now - REMEMBERED_MS;
  }
}
