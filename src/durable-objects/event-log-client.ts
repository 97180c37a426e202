import { type Env, settingsOf } from "../env.ts";
import { shardOf } from "../metering/identifiers.ts";
import type { EventLog } from "./event-log.ts";

/** Where the lock and the log are created; Cloudflare honours it at an object's first use. */
export function placement(env: Env): DurableObjectNamespaceGetDurableObjectOptions {
  const hint = settingsOf(env).LOCATION_HINT;
  return hint === "" ? {} : { locationHint: hint };
}

/** The log of a shard. A new stub each time: one that has seen its object reset fails for ever. */
export const eventLog = (env: Env, shard: number): DurableObjectStub<EventLog> =>
  env.EVENT_LOG.getByName(`shard-${shard}`, placement(env));

/** The log that a unique key belongs to. */
export const eventLogFor = (env: Env, key: string): DurableObjectStub<EventLog> =>
  eventLog(env, shardOf(key, settingsOf(env).EVENT_LOG_SHARDS));
