// What the edge hands to the log, and what the log answers.
import type { AdmittedEvent } from "../domain/event.ts";
import type { Placement } from "../domain/placement.ts";
import type { Shards } from "../domain/shards.ts";
import { MINUTE_MS } from "../domain/window.ts";
import type { LogEntry, LogRejection } from "./codec.ts";
import type { Cancelled, Holder } from "./holders.ts";

/** What the edge knows of a mode's log. It may be behind: a log uses the longest histories that it has seen. */
export type LogContext = {
  readonly livemode: boolean;
  readonly placement: Placement;
  readonly shards: Shards;
};

/** The layout of calls. A log refuses one that it does not know. */
export const CALL_VERSION = 1;

/** What goes with each call of an edge, and of another shard that may decide something. */
export type CallContext = {
  readonly version: typeof CALL_VERSION;
  /** What the caller knows; a log uses the longest histories that it has seen. */
  readonly placement: Placement;
  readonly shards: Shards;
  /** The caller's clock (ms). */
  readonly now: number;
};

/** By how much the clocks of a caller and a log may differ (ms). */
export const CLOCKS_MS = 5 * MINUTE_MS;

/** The key belongs to another shard since the log grew: to that of a longer history. */
export type Moved = { readonly outcome: "moved"; readonly shards: Shards };

/** Who holds a unique key in another shard, as far as that remembers. */
export type RemoteHolder = Omit<Holder, "event"> & {
  readonly key: string;
  readonly event: ReturnType<Holder["event"]>;
};

/** A shard that held another one's keys before the log grew. */
export type Ancestor = Rpc.DurableObjectBranded & {
  /** Gives up the keys that are not its own by the caller's history; durable when it answers. */
  handOver(context: CallContext): void;
  holdersOf(keys: readonly string[]): RemoteHolder[];
  /** As `cancel` and `retrieve`, of what it took when the key was its own. */
  cancelInherited(request: CancelRequest, context: CallContext): CancelOutcome;
  /** What an earlier attempt under the request's Idempotency-Key was answered; nothing for a first one. */
  earlierInherited(request: CancelRequest, context: CallContext): CancelOutcome | undefined;
  retrieveInherited(key: string, context: CallContext): Retrieval | undefined;
};

/** By what the log recognises that it has met an entry before. */
export type Inquiry = {
  /** What is unique for 24 hours; see `uniqueKey`. */
  readonly key: string;
  /** What the entry says. Two reports with one identifier are the same when this is the same. */
  readonly reportDigest: string;
  /** Minted at the edge (`newEventId`), so that the platform's own repetition of a call recognises itself. None for a claim. */
  readonly id?: string;
  /** Digest of the Idempotency-Key that it came with alone: what tells a retry from a second report of the same. */
  readonly keyDigest?: string | undefined;
  /** Whether `key` is what an Idempotency-Key stands for. What comes under it later must be the same request. */
  readonly claims: boolean;
};

/** An event on its way into the log, with the number of the API key that reported it. */
export type EventAppend = Inquiry & {
  readonly kind: "event";
  readonly id: string;
  readonly identifier: string;
  readonly apiKey: number;
  readonly event: AdmittedEvent;
};

/** An event of a stream that was refused, on its way into the log; unique by a key of its own, so that a retry reports it once. */
export type RejectionAppend = Inquiry & {
  readonly kind: "rejection";
  readonly id: string;
  readonly identifier: string;
  readonly rejection: Pick<LogRejection, "livemode" | "meter" | "code"> & { readonly message: string };
};

/**
 * An Idempotency-Key, with a digest of the request that came under it first: nothing but a row. It is no event,
 * so it can be neither retrieved nor cancelled.
 */
export type ClaimAppend = Pick<Inquiry, "key" | "reportDigest"> & { readonly kind: "claim"; readonly claims: true };

/** What the log appends. */
export type Append = EventAppend | RejectionAppend | ClaimAppend;

/**
 * - `accepted`: durable and unique, now or by an earlier attempt, whose id is `id`; none for a claim;
 * - `duplicate`: the identifier is taken, by the very same report or by another;
 * - `key_reused`: the Idempotency-Key came before, with another request;
 * - `full`: the log is past its high-water mark.
 */
export type AppendOutcome =
  | {
      readonly outcome: "accepted";
      readonly id: string | undefined;
      readonly received: number;
      readonly timestamp: number;
    }
  | { readonly outcome: "duplicate"; readonly sameReport: boolean }
  | { readonly outcome: "key_reused" }
  | { readonly outcome: "full" };

/** The cancellation of an event on its way into the log. */
export type CancelRequest = {
  /** The event's unique key. */
  readonly key: string;
  /** The adjustment's id, minted at the edge. */
  readonly id: string;
  /** The meters that the event may belong to: those that ever had the name that the caller gave. */
  readonly meters: readonly string[];
  /** The number of the API key that cancels. */
  readonly apiKey: number;
  /** Digest of its Idempotency-Key. */
  readonly keyDigest: string | undefined;
  readonly requestDigest: string;
};

/** `at`: when it was cancelled (ms), now or by an earlier attempt with the same Idempotency-Key. */
export type CancelOutcome =
  | { readonly outcome: "cancelled"; readonly id: string; readonly at: number }
  | { readonly outcome: "unknown" | "too_old" | "other_meter" | "already_cancelled" | "key_reused" };

/** A group's share in one database. */
export type ShareName = { readonly group: number; readonly database: number };

/** An event as the log knows it. */
export type Retrieval = {
  readonly event: LogEntry;
  readonly shard: string;
  /** The share that it is in. */
  readonly share: ShareName;
  /** Whether its database has confirmed that share: it has the event, or has parked it as a dead letter. */
  readonly aggregated: boolean;
  readonly cancelled: Cancelled | undefined;
};

/** How a shard is doing. Times in ms. */
export type LogStatus = {
  /** Entries that D1 has not confirmed: events, cancellations, rejections. */
  readonly entries: number;
  /** When the first of them was received. */
  readonly oldest: number | undefined;
  /** By database: when the first entry was received that it has not confirmed. Without those that have all. */
  readonly oldestOf: Readonly<Record<number, number>>;
  /** Shares on their way to the aggregator. */
  readonly inFlight: number;
  /** Shares that were sent once more, since this log was last started. */
  readonly resent: number;
  /** When the aggregator last confirmed a group, as far as the log goes back. */
  readonly lastConfirmed: number | undefined;
  /** Storage in use. */
  readonly bytes: number;
  /** Entries that it has ever taken. */
  readonly total: number;
  /** Until when it asks the shards that its keys came from; nothing once it does not. */
  readonly movingUntil: number | undefined;
};

/** How far a shard's entries have come. Times in ms. */
export type LogProgress = {
  /** The shard's clock. */
  readonly now: number;
  /** When its newest group was received; 0 before the first. */
  readonly newest: number;
  /** By database: when the first entry was received that it has not confirmed. Without those that have all. */
  readonly oldestOf: Readonly<Record<number, number>>;
  /** The history of the log as this shard knows it, for a caller who knows less. */
  readonly shards: Shards;
};
