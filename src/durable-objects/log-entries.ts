// What the edge hands to the log, and what the log answers.
import type { AdmittedEvent } from "../metering/events.ts";
import type { LoggedEvent, LoggedRejection } from "../metering/groups.ts";

/** An event on its way into the log. */
export type NewEvent = {
  /** What is unique for 24 hours; see `uniqueKey`. */
  readonly key: string;
  /** The shard of that key, as the edge counts shards: during a deployment others may count differently. */
  readonly shard: number;
  /** Minted at the edge, so that the platform's own repeat of a call recognises itself. */
  readonly id: string;
  readonly identifier: string;
  readonly event: AdmittedEvent;
  /** Digest of its Idempotency-Key, or "". */
  readonly keyDigest: string;
  readonly reportDigest: string;
};

/** An event of a stream that was refused, on its way into the log; unique by a key of its own, so that a retry reports it once. */
export type NewRejection = Omit<NewEvent, "event"> & {
  readonly rejection: Pick<LoggedRejection, "livemode" | "meter" | "code" | "message">;
};

/**
 * A request of many entries, by its Idempotency-Key: nothing but a row that says which body came under
 * that key, so that another body is refused before any of it is appended.
 */
export type NewRequest = Omit<NewEvent, "event"> & { readonly request: true };

/** What the log appends. */
export type NewEntry = NewEvent | NewRejection | NewRequest;

/** Who asks whether an event was accepted: the parts of a NewEvent that tell. */
export type Inquiry = Pick<NewEvent, "key" | "id" | "keyDigest" | "reportDigest">;

/**
 * - `accepted`: durable and unique, now or by an earlier attempt with the same Idempotency-Key;
 * - `duplicate`: the identifier is taken, by the very same report or by another;
 * - `key_reused`: the Idempotency-Key came before, with another body;
 * - `full`: the log is past its high-water mark.
 */
export type AppendOutcome =
  | { readonly outcome: "accepted"; readonly received: number; readonly timestamp: number }
  | { readonly outcome: "duplicate"; readonly sameReport: boolean }
  | { readonly outcome: "key_reused" }
  | { readonly outcome: "full" };

/** The cancellation of an event on its way into the log. */
export type NewCancellation = {
  /** The event's unique key. */
  readonly key: string;
  /** The adjustment's id, minted at the edge. */
  readonly id: string;
  /** The meters that the event may belong to: those that ever had the name that the caller gave. */
  readonly meters: readonly string[];
  /** Digest of its Idempotency-Key, or "". */
  readonly keyDigest: string;
  readonly requestDigest: string;
};

/** `at`: when it was cancelled (ms), now or by an earlier attempt with the same Idempotency-Key. */
export type CancelOutcome =
  | { readonly outcome: "cancelled"; readonly id: string; readonly at: number }
  | { readonly outcome: "unknown" | "too_old" | "other_meter" | "already_cancelled" | "key_reused" };

/** An event as the log knows it; `cancelled` in ms. */
export type RetrievedEvent = {
  readonly event: LoggedEvent;
  /** Whether D1 has confirmed it. */
  readonly aggregated: boolean;
  readonly cancelled: number | undefined;
};

/** How a shard is doing. Times in ms. */
export type LogStatus = {
  /** Entries that D1 has not confirmed: events, cancellations, rejections. */
  readonly entries: number;
  /** When the first of them was received. */
  readonly oldest: number | undefined;
  /** Groups on their way to the aggregator. */
  readonly inFlight: number;
  /** Groups that were sent once more, since this log was last started. */
  readonly resent: number;
  /** When the aggregator last confirmed a group, as far as the log goes back. */
  readonly lastConfirmed: number | undefined;
  /** Storage in use. */
  readonly bytes: number;
};
