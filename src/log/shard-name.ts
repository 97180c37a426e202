const PREFIX = "shard-";

/** The name of the object that is a shard of the log. */
export const shardName = (shard: number): string => PREFIX + shard;

/** Which shard a log is, from inside it. Throws for an object that was not made by its shard's name. */
export function shardNumber(id: DurableObjectId): number {
  const shard = Number(id.name?.startsWith(PREFIX) ? id.name.slice(PREFIX.length) : Number.NaN);
  if (!Number.isInteger(shard)) throw new Error("an EventLog without a shard's name");
  return shard;
}
