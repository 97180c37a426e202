// What a log decides in a transaction, without its tables: what an entry is to it, what it keeps of new ones, and
// whether an event can be cancelled.
import { tokenOf } from "../domain/identifiers.ts";
import { REJECTION_SAMPLES, UNIQUENESS_MS } from "../domain/limits.ts";
import type { LogCancellation, LogEntry, LogRejection } from "./codec.ts";
import type {
  Append,
  AppendOutcome,
  CancelOutcome,
  CancelRequest,
  EventAppend,
  Inquiry,
  Moved,
  RejectionAppend,
} from "./entries.ts";
import type { Place } from "./groups.ts";
import type { EventPlace, Holder, NewHolder, StoredHolder } from "./holders.ts";

/** Who held a unique key last, if it is not free again at `now` (ms). */
export const ifFresh = <H extends Holder>(holder: H | undefined, now: number): H | undefined =>
  holder !== undefined && holder.received > now - UNIQUENESS_MS ? holder : undefined;

/** What an entry is to the log if its unique key is taken; nothing when the key is free. */
export function recognise(
  { id, keyDigest, reportDigest, claims }: Inquiry,
  holder: Holder | undefined,
): AppendOutcome | undefined {
  if (holder === undefined) return undefined;
  const sameReport = holder.reportDigest === reportDigest;
  if (!sameReport) return claims ? { outcome: "key_reused" } : { outcome: "duplicate", sameReport };
  const event = holder.event();
  const { received, timestamp } = event ?? { received: holder.received, timestamp: holder.received };
  const accepted = { outcome: "accepted", id: event?.id, received, timestamp } as const;
  // The customer's lock may have given it another place in receipt order in between, so only its token tells.
  const isRepetition = event !== undefined && id !== undefined && tokenOf(event.id) === tokenOf(id);
  const isRetry = claims || (keyDigest !== undefined && keyDigest === holder.keyDigest);
  return isRepetition || isRetry ? accepted : { outcome: "duplicate", sameReport };
}

/** An event that a commit accepts, and by what it holds its unique key. */
export type AcceptedEvent = Pick<NewHolder, "key" | "reportDigest" | "keyDigest"> & { readonly event: LogEntry };

/** What a commit answers, and what it stores. */
export type Commit = {
  readonly outcomes: (AppendOutcome | Moved)[];
  readonly events: AcceptedEvent[];
  /** The unique keys of claims and rejections. */
  readonly others: Pick<NewHolder, "key" | "reportDigest" | "keyDigest">[];
  readonly rejections: LogRejection[];
};

/**
 * Accepts those of some entries whose unique keys are free, in their order. `known`: who held the keys last.
 * `now` (ms) is when they are received, `moved` says which keys are not this shard's. A log that is full takes nothing but claims, which other calls than
 * reports need too.
 */
export function accept(
  entries: readonly Append[],
  known: ReadonlyMap<string, Holder>,
  {
    now,
    isFull,
    moved,
  }: { readonly now: number; readonly isFull: boolean; readonly moved?: (key: string) => Moved | undefined },
): Commit {
  const holders = new Map(known);
  const commit: Omit<Commit, "rejections"> = { outcomes: [], events: [], others: [] };
  const rejections: RejectionAppend[] = [];
  for (const entry of entries) {
    const elsewhere = moved?.(entry.key);
    const recognised = elsewhere ?? recognise(entry, ifFresh(holders.get(entry.key), now));
    if (recognised !== undefined) commit.outcomes.push(recognised);
    else if (isFull && entry.kind !== "claim") commit.outcomes.push({ outcome: "full" });
    else {
      const { key, reportDigest } = entry;
      const keyDigest = entry.kind === "claim" ? undefined : entry.keyDigest;
      const event = entry.kind === "event" ? loggedEvent(entry, now) : undefined;
      holders.set(key, { received: now, reportDigest, keyDigest, event: () => event });
      const id = entry.kind === "claim" ? undefined : entry.id;
      commit.outcomes.push({ outcome: "accepted", id, received: now, timestamp: event?.timestamp ?? now });
      if (event === undefined) commit.others.push({ key, reportDigest, keyDigest });
      else commit.events.push({ key, reportDigest, keyDigest, event });
      if (entry.kind === "rejection") rejections.push(entry);
    }
  }
  return { ...commit, rejections: addUp(rejections, now) };
}

const loggedEvent = ({ event, id, identifier, apiKey }: EventAppend, received: number): LogEntry => ({
  ...event,
  id,
  identifier,
  apiKey,
  timestamp: event.timestamp ?? received,
  received,
});

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
  readonly earlier: StoredHolder | undefined;
  /** Who held the event's unique key last. */
  readonly holder: StoredHolder | undefined;
  /** What was logged of an event; asked for only when nothing else decides. */
  readonly eventAt: (place: EventPlace) => Logged;
};

/** What a cancellation is answered, and the entry to store when it is new. `now` in ms. */
export function cancel(
  { id, meters, apiKey, requestDigest }: CancelRequest,
  { earlier, holder, eventAt }: Cancellable,
  now: number,
): { readonly outcome: CancelOutcome; readonly stored?: { readonly entry: LogCancellation; readonly place: Place } } {
  if (earlier?.cancelled !== undefined) {
    const { id: first, at } = earlier.cancelled;
    const isSame = first === id || earlier.reportDigest === requestDigest;
    return { outcome: isSame ? { outcome: "cancelled", id: first, at } : { outcome: "key_reused" } };
  }
  if (holder?.place === undefined) return { outcome: { outcome: "unknown" } };
  const { cancelled } = holder;
  if (cancelled?.id === id) return { outcome: { outcome: "cancelled", id, at: cancelled.at } };
  if (ifFresh(holder, now) === undefined) return { outcome: { outcome: "too_old" } };
  const { event, place } = eventAt(holder.place);
  if (!meters.includes(event.meter)) return { outcome: { outcome: "other_meter" } };
  if (cancelled !== undefined) return { outcome: { outcome: "already_cancelled" } };
  return {
    outcome: { outcome: "cancelled", id, at: now },
    stored: { entry: { ...event, cancelled: now, cancelledBy: apiKey }, place },
  };
}
