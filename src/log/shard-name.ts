const NAME = /^(live|test)-(\d+)$/;

/** A shard of a mode's log, by the name of its object: `live-0`. */
export const shardName = (livemode: boolean, place: number): string => `${livemode ? "live" : "test"}-${place}`;

/** Whether a text is a shard's name. */
export const isShardName = (text: string): boolean => NAME.test(text);

/** Whether a shard is live mode's. */
export const isLiveShard = (shard: string): boolean => shard.startsWith("live-");

/** A shard's place among those of its mode. */
export const placeOfShard = (shard: string): number => Number(NAME.exec(shard)?.[2] ?? 0);

/** What a shard's own name is stored under: an alarm may wake an object without its name. */
const SHARD = "shard";

/** Which shard a log is, from inside it. Throws for an object that was not made by its shard's name. */
export function shardOfObject({ id, storage }: Pick<DurableObjectState, "id" | "storage">): string {
  const stored = storage.kv.get<string>(SHARD);
  const name = stored ?? id.name;
  if (name === undefined || !NAME.test(name)) throw new Error("an EventLog without a shard's name");
  if (stored === undefined) storage.kv.put(SHARD, name);
  return name;
}
