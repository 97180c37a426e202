import { hashedTo } from "./identifiers.ts";

/**
 * How many shards a mode's log has had, oldest first; each number is a multiple of the one before. So the keys of a
 * new shard all come from one shard of each earlier number. Empty for a caller that does not know.
 */
export type Shards = readonly number[];

/** How many shards there are now. */
export const countOfShards = (shards: Shards): number => shards.at(-1) ?? 0;

/** The history that knows more: of two histories of one log, one continues the other. */
export const longerShards = (one: Shards, other: Shards): Shards =>
  countOfShards(other) > countOfShards(one) ? other : one;

/** The place of the shard that a unique key belongs to. */
export const ownerOf = (key: string, shards: Shards): number => hashedTo(key, countOfShards(shards));

/** The places of the shards that a shard's keys belonged to before, the latest first, each once and without itself. */
export const ancestorsOf = (place: number, shards: Shards): number[] =>
  [...new Set(shards.slice(0, -1).map((count) => place % count))].filter((earlier) => earlier !== place).reverse();

/** Whether a number of shards may follow a history at once: it is the same, or a multiple. */
export const mayFollow = (count: number, shards: Shards): boolean =>
  count >= countOfShards(shards) && count % countOfShards(shards) === 0;
