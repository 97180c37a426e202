import { objectNamed } from "../catalog/objects.ts";
import { type Env, settingsOf } from "../env.ts";
import type { EventLog } from "./event-log.ts";
import { shardName } from "./shard-name.ts";

/** The log of a shard. */
export const eventLog = (env: Env, shard: number): DurableObjectStub<EventLog> =>
  objectNamed<EventLog>(env, env.EVENT_LOG, shardName(shard));

/** The shards of the log, by their numbers. */
export const allShards = (env: Env): number[] =>
  Array.from({ length: settingsOf(env).EVENT_LOG_SHARDS }, (_, shard) => shard);
