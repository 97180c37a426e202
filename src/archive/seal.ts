// Seals slices that can change no more.
import { UNIQUENESS_MS } from "../domain/limits.ts";
import { HOUR_MS, receiptOf } from "../domain/window.ts";
import type { Env } from "../env.ts";
import type { LogStatus } from "../log/entries.ts";
import { eventLog, everyShardOf } from "../log/shards.ts";
import { sealSlice } from "./states.ts";
import type { Work } from "./work.ts";

/** By how much clocks may differ (ms). */
const CLOCKS_MS = HOUR_MS;

/** Until when a slice's events can be cancelled (ms). */
const cancellableUntil = (slice: number): number => receiptOf(slice).end + UNIQUENESS_MS;

/** When a slice is over (ms): its events can no longer be cancelled, whatever the clocks say. */
export const overAfter = (slice: number): number => cancellableUntil(slice) + CLOCKS_MS;

export const isOver = (slice: number, now: number): boolean => now > overAfter(slice);

/** A shard of the mode's log; its status is null while it does not respond. */
export type Shard = { readonly shard: string; readonly status: Pick<LogStatus, "oldestOf"> | null };

/** What keeps a slice from being sealed: a shard that does not respond, or that has entries for it; dead letters. */
export type Hindrance = ShardHindrance | { readonly reason: "dead_letters" };

type ShardHindrance = { readonly reason: "shard_not_reachable" | "shard_not_confirmed"; readonly shard: string };

/** The first shard that keeps a slice of a mode's database, by its place among them, from being sealed. */
export const hindranceBy = (shards: readonly Shard[], place: number, slice: number): ShardHindrance | undefined =>
  unconfirmedBy(shards, place, cancellableUntil(slice));

/** The first shard that may have something for a database which was received up to a time (ms) and is not confirmed. */
export function unconfirmedBy(shards: readonly Shard[], place: number, time: number): ShardHindrance | undefined {
  const mayHold = ({ status }: Shard): boolean => {
    const oldest = status?.oldestOf[place];
    return status === null || (oldest !== undefined && oldest <= time);
  };
  const first = shards.find(mayHold);
  if (first === undefined) return undefined;
  return { reason: first.status === null ? "shard_not_reachable" : "shard_not_confirmed", shard: first.shard };
}

/** Every shard that a mode's log ever had. Throws when the control database does not say which. */
export async function shardsOfMode(env: Env, livemode: boolean): Promise<Shard[]> {
  return Promise.all(
    (await everyShardOf(env, livemode)).map(async (shard) => ({
      shard,
      status: await eventLog(env, shard)
        .status()
        .catch(() => null),
    })),
  );
}

/**
 * Seals a slice that is over, once every shard that its mode ever had says that this database has confirmed all that
 * it can hold. What hindered it; nothing when it is sealed. Throws when it is not known which shards there were.
 */
export async function trySeal({ env, db, livemode, place }: Work, slice: number): Promise<Hindrance | undefined> {
  const hindrance = hindranceBy(await shardsOfMode(env, livemode), place, slice);
  if (hindrance !== undefined) return hindrance;
  return (await sealSlice(db, slice)) ? undefined : { reason: "dead_letters" };
}
