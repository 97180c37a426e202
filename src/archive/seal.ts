// Seals slices that can change no more.
import { UNIQUENESS_MS } from "../domain/limits.ts";
import { HOUR_MS, receiptOf } from "../domain/window.ts";
import { eventLog, logOfMode, shardsOf } from "../log/shards.ts";
import { sealSlice } from "./states.ts";
import type { Work } from "./work.ts";

/** By how much clocks may differ (ms). */
const CLOCKS_MS = HOUR_MS;

/** Until when a slice's events can be cancelled (ms). */
const cancellableUntil = (slice: number): number => receiptOf(slice).end + UNIQUENESS_MS;

/** Whether a slice's events can no longer be cancelled `now` (ms), whatever the clocks say. */
export const isOver = (slice: number, now: number): boolean => now > cancellableUntil(slice) + CLOCKS_MS;

/** What keeps a slice from being sealed: a shard that does not respond, or that has entries for it; dead letters. */
export type Hindrance = { readonly shard: string; readonly isReachable: boolean } | "dead_letters";

/**
 * Seals a slice that is over, once every shard that its mode ever had says that this database has confirmed all that
 * it can hold. What hindered it; nothing when it is sealed.
 */
export async function trySeal({ env, db, livemode, place }: Work, slice: number): Promise<Hindrance | undefined> {
  const shards = shardsOf(await logOfMode(env, livemode));
  const hindrances = await Promise.all(
    shards.map(async (shard): Promise<Hindrance[]> => {
      try {
        const oldest = (await eventLog(env, shard).status()).oldestOf[place];
        return oldest === undefined || oldest > cancellableUntil(slice) ? [] : [{ shard, isReachable: true }];
      } catch {
        return [{ shard, isReachable: false }];
      }
    }),
  );
  const [first] = hindrances.flat();
  if (first !== undefined) return first;
  return (await sealSlice(db, slice)) ? undefined : "dead_letters";
}
