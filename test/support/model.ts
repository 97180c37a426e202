import { tokenOf } from "../../src/domain/identifiers.ts";
import { DAY_MS } from "../../src/domain/window.ts";
import type { LogEntry } from "../../src/log/codec.ts";
import type {
  AppendOutcome,
  CancelOutcome,
  CancelRequest,
  ClaimAppend,
  EventAppend,
  Inquiry,
} from "../../src/log/entries.ts";

declare module "vitest" {
  interface ProvidedContext {
    /** How many random stories the model test plays. */
    modelRuns: number;
  }
}

/** A cancellation as it was first answered. */
type Answer = Pick<CancelRequest, "key" | "id" | "keyDigest" | "requestDigest"> & { readonly at: number };

/** An event that was accepted, with all that was said of it. */
export type ModelEvent = {
  readonly reported: EventAppend;
  readonly logged: LogEntry;
  cancelled: { readonly id: string; readonly at: number; readonly by: number } | undefined;
};

/** What holds a unique key: an event, or the claim of an Idempotency-Key. */
type Held = {
  readonly entry: EventAppend | ClaimAppend;
  readonly received: number;
  readonly timestamp: number;
  readonly event: ModelEvent | undefined;
};

/**
 * What a log should answer and D1 should end up with, the way the promises read: lists in memory,
 * no partitions, no groups, no queue, and nothing that can fail. Times in ms.
 */
export class Model {
  /** Everything accepted, in its order. */
  readonly events: ModelEvent[] = [];
  readonly #held: Held[] = [];
  /** The first answers to cancellations, for their retries. */
  readonly #answers: Answer[] = [];
  #lastReceipt = 0;

  append(entry: EventAppend | ClaimAppend, now: number): AppendOutcome {
    const received = this.#receive(now);
    const held = this.#holder(entry.key);
    if (held !== undefined && isFresh(held, received)) return outcomeOf(entry, held);
    const timestamp = ("event" in entry ? entry.event.timestamp : undefined) ?? received;
    let event: ModelEvent | undefined;
    if ("event" in entry) {
      const { id, identifier, apiKey } = entry;
      const logged = { ...entry.event, id, identifier, apiKey, timestamp, received };
      event = { reported: entry, logged, cancelled: undefined };
      this.events.push(event);
    }
    this.#held.push({ entry, received, timestamp, event });
    // A claim alone makes no group, which is where a log keeps its last time of receipt.
    if (event !== undefined) this.#lastReceipt = received;
    return { outcome: "accepted", id: event?.logged.id, received, timestamp };
  }

  /** The answers that are right; more than one where the log may have forgotten an event that is past its 24 hours. */
  cancel(request: CancelRequest, now: number): CancelOutcome[] {
    const at = this.#receive(now);
    const { key, id, keyDigest, requestDigest } = request;
    const first = this.#answers.findLast(
      (answer) =>
        keyDigest !== undefined && answer.key === key && answer.keyDigest === keyDigest && answer.at + DAY_MS > at,
    );
    if (first !== undefined) {
      const same = first.id === id || first.requestDigest === requestDigest;
      return [same ? { outcome: "cancelled", id: first.id, at: first.at } : { outcome: "key_reused" }];
    }
    const holder = this.holder(key);
    if (holder === undefined) return [{ outcome: "unknown" }];
    const { cancelled } = holder;
    if (cancelled?.id === id) return [{ outcome: "cancelled", id, at: cancelled.at }, ...this.#forgotten(holder, at)];
    if (!isFresh(holder.logged, at)) return [{ outcome: "too_old" }, { outcome: "unknown" }];
    if (!request.meters.includes(holder.logged.meter)) return [{ outcome: "other_meter" }];
    if (cancelled !== undefined) return [{ outcome: "already_cancelled" }];
    holder.cancelled = { id, at, by: request.apiKey };
    this.#answers.push({ key, id, keyDigest, requestDigest, at });
    this.#lastReceipt = at;
    return [{ outcome: "cancelled", id, at }];
  }

  /** What the log may say of an event past its 24 hours, when its partition is gone. */
  #forgotten(holder: ModelEvent, at: number): CancelOutcome[] {
    return isFresh(holder.logged, at) ? [] : [{ outcome: "unknown" }];
  }

  #holder(key: string): Held | undefined {
    return this.#held.findLast(({ entry }) => entry.key === key);
  }

  /** The event that held a unique key last, if it was one. */
  holder(key: string): ModelEvent | undefined {
    return this.#holder(key)?.event;
  }

  /** Whether a unique key is taken. */
  isTaken(key: string, now: number): boolean {
    const held = this.#holder(key);
    return held !== undefined && isFresh(held, this.#receive(now));
  }

  /** What counts. */
  counted(meter: string, customer: string): LogEntry[] {
    return this.events
      .filter(({ logged, cancelled }) => logged.meter === meter && logged.customer === customer && !cancelled)
      .map(({ logged }) => logged);
  }

  /** The clock may go back, the time of receipt not. */
  #receive(now: number): number {
    return Math.max(now, this.#lastReceipt);
  }
}

const isFresh = ({ received }: { readonly received: number }, now: number): boolean => received + DAY_MS > now;

/** What an entry is told whose unique key is taken. */
function outcomeOf(entry: EventAppend | ClaimAppend, held: Held): AppendOutcome {
  const { received, timestamp, event } = held;
  const first: Inquiry = held.entry;
  const { id = "", keyDigest }: Inquiry = entry;
  const accepted = { outcome: "accepted", id: event?.logged.id, received, timestamp } as const;
  if (event !== undefined && tokenOf(event.logged.id) === tokenOf(id)) return accepted;
  const sameReport = first.reportDigest === entry.reportDigest;
  if (entry.claims) return sameReport ? accepted : { outcome: "key_reused" };
  const isRetry = sameReport && keyDigest !== undefined && first.keyDigest === keyDigest;
  return isRetry ? accepted : { outcome: "duplicate", sameReport };
}
