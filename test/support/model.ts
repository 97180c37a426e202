import type { AppendOutcome, CancelOutcome, NewCancellation, NewEvent } from "../../src/durable-objects/log-entries.ts";
import type { LoggedEvent } from "../../src/metering/groups.ts";
import { DAY_MS } from "../../src/metering/windows.ts";

declare module "vitest" {
  interface ProvidedContext {
    /** How many random stories the model test plays. */
    modelRuns: number;
  }
}

/** A cancellation as it was first answered. */
type Answer = Pick<NewCancellation, "key" | "id" | "keyDigest" | "requestDigest"> & { readonly at: number };

/** An event that was accepted, with all that was said of it. */
export type ModelEvent = {
  readonly reported: NewEvent;
  readonly logged: LoggedEvent;
  cancelled: { readonly id: string; readonly at: number } | undefined;
};

/**
 * What a log should answer and D1 should end up with, the way the promises read: lists in memory,
 * no slices, no groups, no queue, and nothing that can fail. Times in ms.
 */
export class Model {
  /** Everything accepted, in its order. */
  readonly events: ModelEvent[] = [];
  /** The first answers to cancellations, for their retries. */
  readonly #answers: Answer[] = [];
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
    const { key, id, keyDigest, requestDigest } = request;
    const first = this.#answers.findLast(
      (answer) => keyDigest !== "" && answer.key === key && answer.keyDigest === keyDigest && answer.at + DAY_MS > at,
    );
    if (first !== undefined) {
      const same = first.id === id || first.requestDigest === requestDigest;
      return [same ? { outcome: "cancelled", id: first.id, at: first.at } : { outcome: "key_reused" }];
    }
    const holder = this.holder(key);
    if (holder === undefined) return [{ outcome: "unknown" }];
    const { cancelled } = holder;
    if (cancelled?.id === id) return [{ outcome: "cancelled", id, at: cancelled.at }, ...this.#forgotten(holder, at)];
    if (!isFresh(holder, at)) return [{ outcome: "too_old" }, { outcome: "unknown" }];
    if (!request.meters.includes(holder.logged.meter)) return [{ outcome: "other_meter" }];
    if (cancelled !== undefined) return [{ outcome: "already_cancelled" }];
    holder.cancelled = { id, at };
    this.#answers.push({ key, id, keyDigest, requestDigest, at });
    this.#lastReceipt = at;
    return [{ outcome: "cancelled", id, at }];
  }

  /** What the log may say of an event past its 24 hours, when its slice is gone. */
  #forgotten(holder: ModelEvent, at: number): CancelOutcome[] {
    return isFresh(holder, at) ? [] : [{ outcome: "unknown" }];
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
