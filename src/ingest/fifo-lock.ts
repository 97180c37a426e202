/** How long a holder may keep others out (ms); who hears nothing from the log for so long is not waited for. */
const LEASE_MS = 10_000;

/** A lock that is had in the order of asking. Each holder's turn ends when it is released, or with its lease. */
export class FifoLock {
  /** Until when it is held (ms). */
  #heldUntil = 0;
  #turn = 0;
  readonly #waiting: (() => void)[] = [];
  /** Ends the holder's turn with its lease, while somebody waits for that. */
  #leaseTimer: ReturnType<typeof setTimeout> | undefined;

  /** How many wait for a turn. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /** A turn, when one was had within `waitMs`; its holder releases it. */
  acquire(waitMs: number): number | undefined | Promise<number | undefined> {
    if (this.#waiting.length === 0 && Date.now() >= this.#heldUntil) return this.#take();
    if (waitMs === 0) return undefined;
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.#waiting.splice(this.#waiting.indexOf(take), 1);
        resolve(undefined);
      }, waitMs);
      const take = (): void => {
        clearTimeout(timer);
        resolve(this.#take());
      };
      this.#waiting.push(take);
      this.#leaseTimer ??= this.#endWithLease();
    });
  }

  /** Ends a turn, and gives the next to who has waited longest. A turn whose lease ran out ended before. */
  release(turn: number): void {
    if (turn !== this.#turn) return;
    this.#heldUntil = 0;
    this.#waiting.shift()?.();
    if (this.#waiting.length > 0) this.#leaseTimer = this.#endWithLease();
  }

  #endWithLease(): ReturnType<typeof setTimeout> {
    const turn = this.#turn;
    return setTimeout(() => this.release(turn), this.#heldUntil - Date.now());
  }

  #take(): number {
    clearTimeout(this.#leaseTimer);
    this.#leaseTimer = undefined;
    this.#heldUntil = Date.now() + LEASE_MS;
    return ++this.#turn;
  }
}
