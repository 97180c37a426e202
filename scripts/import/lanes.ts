// The API takes one write at a time of a customer on a meter. So each customer has a lane: what is
// in it happens in sequence, while the lanes go side by side.

type LaneOptions<T> = {
  readonly laneOf: (item: T) => string;
  /** Done with each item. When it throws, `stop` is aborted. */
  readonly work: (item: T) => Promise<void>;
  /** Items being worked on at a time. */
  readonly concurrency: number;
  /** Items held at a time, waiting or being worked on. No more are taken meanwhile, however uneven the lanes. */
  readonly window: number;
  /** Once aborted no item is started any more; those being worked on are waited for. */
  readonly stop: AbortController;
};

/**
 * Works on all items, those of one lane in their order. Throws the first error of `work` or of the
 * items themselves, after everything under way has ended.
 */
export async function workInLanes<T extends object>(items: AsyncIterable<T>, options: LaneOptions<T>): Promise<void> {
  const lanes = new Lanes(options);
  try {
    for await (const item of items) {
      await lanes.room();
      if (options.stop.signal.aborted) break;
      lanes.add(item);
    }
  } catch (error) {
    lanes.fail(error);
  }
  await lanes.end();
}

class Lanes<T extends object> {
  readonly #options: LaneOptions<T>;
  /** What waits in each lane that has something waiting or at work. */
  readonly #waiting = new Map<string, T[]>();
  /** Lanes with something waiting and nothing at work, longest first. */
  readonly #ready: string[] = [];
  #held = 0;
  #working = 0;
  #failure: { readonly error: unknown } | undefined;
  #changed = Promise.withResolvers<void>();

  constructor(options: LaneOptions<T>) {
    this.#options = options;
  }

  add(item: T): void {
    const lane = this.#options.laneOf(item);
    const waiting = this.#waiting.get(lane);
    if (waiting === undefined) {
      this.#waiting.set(lane, [item]);
      this.#ready.push(lane);
    } else {
      waiting.push(item);
    }
    this.#held++;
    this.#start();
  }

  fail(error: unknown): void {
    if (this.#stopped) return;
    this.#failure = { error };
    this.#options.stop.abort();
  }

  /** Until one more item may be added, or none will be worked on. */
  room(): Promise<void> {
    return this.#until(() => this.#held < this.#options.window || this.#stopped);
  }

  /** Until everything added is done. */
  async end(): Promise<void> {
    await this.#until(() => this.#working === 0 && (this.#held === 0 || this.#stopped));
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  get #stopped(): boolean {
    return this.#options.stop.signal.aborted;
  }

  #start(): void {
    while (this.#working < this.#options.concurrency && !this.#stopped) {
      const lane = this.#ready.shift();
      if (lane === undefined) return;
      void this.#workOnNext(lane);
    }
  }

  async #workOnNext(lane: string): Promise<void> {
    const waiting = this.#waiting.get(lane) ?? [];
    const item = waiting.shift();
    if (item === undefined) return;
    this.#working++;
    try {
      await this.#options.work(item);
    } catch (error) {
      this.fail(error);
    }
    this.#working--;
    this.#held--;
    if (waiting.length > 0) this.#ready.push(lane);
    else this.#waiting.delete(lane);
    this.#start();
    this.#changed.resolve();
  }

  async #until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      this.#changed = Promise.withResolvers();
      await this.#changed.promise;
    }
  }
}
