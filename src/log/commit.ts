// What a log decides in a transaction, without its tables: what an entry is to it, what it keeps of new ones, and
// whether an event can be cancelled.
import { tokenOf } from "../domain/identifiers.ts";
import { REJECTION_SAMPLES, UNIQUENESS_MS } from "../domain/limits.ts";
import type { LogCancellation, LogEntry, LogRejection } from "./codec.ts";
import type { Append, AppendOutcome, CancelOutcome, CancelRequest, Inquiry, RejectionAppend } from "./entries.ts";
import type { Place } from "./groups.ts";
import type { Accepted, Holder } from "./holders.ts";

/** Who held a unique key last, if it is not free again at `now` (ms). */
export const ifFresh = (holder: Holder | undefined, now: number): Holder | undefined =>
  holder !== undefined && holder.received > now - UNIQUENESS_MS ? holder : undefined;

/** What an entry is to the log if its unique key is taken; nothing when the key is free. */
export function recognise(
  { id, keyDigest, reportDigest, claims }: Inquiry,
  holder: Holder | undefined,
): AppendOutcome | undefined {
  if (holder === undefined) return undefined;
  const { eventId, received, timestamp } = holder;
  const accepted = { outcome: "accepted", id: eventId, received, timestamp } as const;
  // The customer's lock may have given it another place in receipt order in between, so only its token tells.
  if (eventId !== undefined && id !== undefined && tokenOf(eventId) === tokenOf(id)) return accepted;
  const sameReport = holder.reportDigest === reportDigest;
  if (claims) return sameReport ? accepted : { outcome: "key_reused" };
  const isRetry = sameReport && keyDigest !== undefined && keyDigest === holder.keyDigest;
  return isRetry ? accepted : { outcome: "duplicate", sameReport };
}

/** What a commit answers, and what it stores. */
export type Commit = {
  readonly outcomes: AppendOutcome[];
  /** Who holds unique keys from now on. */
  readonly holders: (Accepted & { readonly key: string })[];
  readonly events: LogEntry[];
  readonly rejections: LogRejection[];
};

/**
 * Accepts those of some entries whose unique keys are free, in their order. `known`: who held the keys last.
 * `now` (ms) is when they are received. A log that is full takes nothing but claims, which other calls than
 * reports need too.
 */
export function accept(
  entries: readonly Append[],
  known: ReadonlyMap<string, Holder>,
  { now, isFull }: { readonly now: number; readonly isFull: boolean },
): Commit {
  const holders = new Map(known);
  const commit: Omit<Commit, "rejections"> = { outcomes: [], holders: [], events: [] };
  const rejections: RejectionAppend[] = [];
  for (const entry of entries) {
    const recognised = recognise(entry, ifFresh(holders.get(entry.key), now));
    if (recognised !== undefined) commit.outcomes.push(recognised);
    else if (isFull && entry.kind !== "claim") commit.outcomes.push({ outcome: "full" });
    else {
      const holder = holderOf(entry, now);
      holders.set(entry.key, { ...holder, cancelled: undefined });
      commit.holders.push(holder);
      const { eventId: id, received, timestamp } = holder;
      commit.outcomes.push({ outcome: "accepted", id, received, timestamp });
      if (entry.kind === "event") commit.events.push(loggedEvent(entry, holder));
      if (entry.kind === "rejection") rejections.push(entry);
    }
  }
  return { ...commit, rejections: addUp(rejections, now) };
}

function holderOf(entry: Append, now: number): Accepted & { readonly key: string } {
  const { key, reportDigest } = entry;
  if (entry.kind === "claim") {
    return { key, eventId: undefined, received: now, timestamp: now, keyDigest: undefined, reportDigest };
  }
  const timestamp = (entry.kind === "event" ? entry.event.timestamp : undefined) ?? now;
  return { key, eventId: entry.id, received: now, timestamp, keyDigest: entry.keyDigest, reportDigest };
}

const loggedEvent = (
  { event, id, identifier, apiKey }: Extract<Append, { kind: "event" }>,
  { timestamp, received }: Accepted,
): LogEntry => ({ ...event, id, identifier, apiKey, timestamp, received });

/** The rejections of a commit, by meter and code: what refused events cost must not grow with their number. */
function addUp(rejections: readonly RejectionAppend[], received: number): LogRejection[] {
  const alike = Map.groupBy(rejections, ({ rejection: { meter, code } }) => JSON.stringify([meter, code]));
  return [...alike.values()].flatMap((ofOne) => {
    const [first] = ofOne;
    if (first === undefined) return [];
    const { livemode, meter, code } = first.rejection;
    const samples = ofOne.slice(0, REJECTION_SAMPLES).map((each) => [each.rejection.message, each.identifier] as const);
    return [{ id: first.id, livemode, meter, code, count: ofOne.length, samples, received }];
  });
}

/** An event as it was logged, and where it is stored. */
export type Logged = { readonly event: LogEntry; readonly place: Place };

/** What a log knows of the event that a cancellation is about. */
export type Cancellable = {
  /** What was answered to the first attempt under the same Idempotency-Key. */
  readonly earlier: Holder | undefined;
  /** Who held the event's unique key last. */
  readonly holder: Holder | undefined;
  /** What was logged of a holder's event; asked for only when nothing else decides. */
  readonly eventOf: (holder: Holder) => Logged;
};

/** What a cancellation is answered, and the entry to store when it is new. `now` in ms. */
export function cancel(
  { id, meters, apiKey, requestDigest }: CancelRequest,
  { earlier, holder, eventOf }: Cancellable,
  now: number,
): { readonly outcome: CancelOutcome; readonly stored?: { readonly entry: LogCancellation; readonly place: Place } } {
  if (earlier?.eventId !== undefined) {
    const isSame = earlier.eventId === id || earlier.reportDigest === requestDigest;
    const first = { outcome: "cancelled", id: earlier.eventId, at: earlier.received } as const;
    return { outcome: isSame ? first : { outcome: "key_reused" } };
  }
  if (holder?.eventId === undefined) return { outcome: { outcome: "unknown" } };
  const { cancelled } = holder;
  if (cancelled?.id === id) return { outcome: { outcome: "cancelled", id, at: cancelled.at } };
  if (ifFresh(holder, now) === undefined) return { outcome: { outcome: "too_old" } };
  const { event, place } = eventOf(holder);
  if (!meters.includes(event.meter)) return { outcome: { outcome: "other_meter" } };
  if (cancelled !== undefined) return { outcome: { outcome: "already_cancelled" } };
  return {
    outcome: { outcome: "cancelled", id, at: now },
    stored: { entry: { ...event, cancelled: now, cancelledBy: apiKey }, place },
  };
}
