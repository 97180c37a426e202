const NAME = /^(live|test)-(\d+)$/;

/** A shard of a mode's log, by the name of its object: `live-0`. */
export const shardName = (livemode: boolean, place: number): string => `${livemode ? "live" : "test"}-${place}`;

/** Whether a shard is live mode's. */
export const isLiveShard = (shard: string): boolean => shard.startsWith("live-");

/** Which shard a log is, from inside it. Throws for an object that was not made by its shard's name. */
export function shardOfObject({ name }: DurableObjectId): string {
  if (name === undefined || !NAME.test(name)) throw new Error("an EventLog without a shard's name");
  return name;
}
