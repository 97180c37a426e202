import type { AppendOutcome, CancelOutcome, NewCancellation, NewEvent } from "../../src/durable-objects/event-log.ts";
import type { LoggedEvent } from "../../src/metering/groups.ts";
import { DAY_MS } from "../../src/metering/windows.ts";

declare module "vitest" {
  interface ProvidedContext {
    /** How many random stories the model test plays. */
    modelRuns: number;
  }
}

type Cancellation = Pick<NewCancellation, "id" | "keyDigest" | "requestDigest"> & { readonly at: number };

/** An event that was accepted, with all that was said of it. */
export type ModelEvent = {
  readonly reported: NewEvent;
  readonly logged: LoggedEvent;
  cancelled: Cancellation | undefined;
};

/**
 * What a log should answer and D1 should end up with, the way the promises read: lists in memory,
 * no slices, no groups, no queue, and nothing that can fail. Times in ms.
 */
export class Model {
  /** Everything accepted, in its order. */
  readonly events: ModelEvent[] = [];
  #lastReceipt = 0;

  append(reported: NewEvent, now: number): AppendOutcome {
    const received = this.#receive(now);
    const { key, id, identifier, event, keyDigest, reportDigest } = reported;
    const holder = this.holder(key);
    if (holder !== undefined && isFresh(holder, received)) {
      const first = { received: holder.logged.received, timestamp: holder.logged.timestamp };
      if (holder.reported.id === id) return { outcome: "accepted", ...first };
      const sameReport = holder.reported.reportDigest === reportDigest;
      if (keyDigest === "" || holder.reported.keyDigest !== keyDigest) return { outcome: "duplicate", sameReport };
      return sameReport ? { outcome: "accepted", ...first } : { outcome: "key_reused" };
    }
    const timestamp = event.timestamp ?? received;
    this.events.push({
      reported,
      logged: { ...event, id, identifier, timestamp, received },
      cancelled: undefined,
    });
    this.#lastReceipt = received;
    return { outcome: "accepted", received, timestamp };
  }

  /** The answers that are right; more than one where the log may have forgotten an event that is past its 24 hours. */
  cancel(request: NewCancellation, now: number): CancelOutcome[] {
    const at = this.#receive(now);
    const holder = this.holder(request.key);
    if (holder === undefined) return [{ outcome: "unknown" }];
    const again = repeated(holder.cancelled, request);
    if (!isFresh(holder, at)) return [again ?? { outcome: "too_old" }, { outcome: "unknown" }];
    if (again !== undefined) return [again];
    if (!request.meters.includes(holder.logged.meter)) return [{ outcome: "other_meter" }];
    if (holder.cancelled !== undefined) return [{ outcome: "already_cancelled" }];
    const { id, keyDigest, requestDigest } = request;
    holder.cancelled = { id, keyDigest, requestDigest, at };
    this.#lastReceipt = at;
    return [{ outcome: "cancelled", id, at }];
  }

  /** The last event accepted under a unique key. */
  holder(key: string): ModelEvent | undefined {
    return this.events.findLast(({ reported }) => reported.key === key);
  }

  /** Whether a unique key is taken. */
  isTaken(key: string, now: number): boolean {
    const holder = this.holder(key);
    return holder !== undefined && isFresh(holder, this.#receive(now));
  }

  /** What counts. */
  counted(meter: string, customer: string): LoggedEvent[] {
    return this.events
      .filter(({ logged, cancelled }) => logged.meter === meter && logged.customer === customer && !cancelled)
      .map(({ logged }) => logged);
  }

  /** The clock may go back, the time of receipt not. */
  #receive(now: number): number {
    return Math.max(now, this.#lastReceipt);
  }
}

const isFresh = ({ logged }: ModelEvent, now: number): boolean => logged.received + DAY_MS > now;

/** The answer to a cancellation that came before. */
function repeated(earlier: Cancellation | undefined, request: NewCancellation): CancelOutcome | undefined {
  if (earlier === undefined) return undefined;
  const first: CancelOutcome = { outcome: "cancelled", id: earlier.id, at: earlier.at };
  if (earlier.id === request.id) return first;
  if (request.keyDigest === "" || earlier.keyDigest !== request.keyDigest) return undefined;
  return earlier.requestDigest === request.requestDigest ? first : { outcome: "key_reused" };
}
