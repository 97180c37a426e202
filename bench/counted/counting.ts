// Where operations are counted. Durable Objects and the Worker share this isolate, and so these counts.
import { type Counts, NO_COUNTS } from "./counts.ts";

export const counts: Counts = { ...NO_COUNTS };

export function reset(): void {
  Object.assign(counts, NO_COUNTS);
}

/** Queues bill each message per 64 KB that begins; 100 bytes are metadata. */
const UNIT_BYTES = 64_000;
const METADATA_BYTES = 100;

export const queueUnits = (body: string): number => Math.ceil((Buffer.byteLength(body) + METADATA_BYTES) / UNIT_BYTES);

/**
 * `target` with some of its properties replaced. Methods are called on the target itself: the
 * platform's objects allow nothing else.
 */
export function replacing<T extends object>(target: T, get: (name: string | symbol) => unknown): T {
  return new Proxy(target, {
    get: (_, name) => {
      const replaced = get(name);
      if (replaced !== undefined) return replaced;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

/** How long a call took, noted when it ends either way; the caller gets the call as it is. */
export function timed<T>(start: () => T, ended: () => void): T {
  const call = start();
  if (call instanceof Object && "then" in call) void Promise.resolve(call).then(ended, ended);
  else ended();
  return call;
}

/** Counts the time in which at least one call of an object is under way. */
export class Busy {
  readonly #add: (ms: number) => void;
  readonly #open = new Map<string, { calls: number; since: number }>();

  constructor(add: (ms: number) => void) {
    this.#add = add;
  }

  start(name: string): () => void {
    const object = this.#open.get(name) ?? { calls: 0, since: performance.now() };
    object.calls++;
    this.#open.set(name, object);
    return () => {
      object.calls--;
      if (object.calls > 0) return;
      this.#open.delete(name);
      this.#add(performance.now() - object.since);
    };
  }
}
