import { objectNamed } from "../catalog/objects.ts";
import { hashedTo } from "../domain/identifiers.ts";
import { type Env, settingsOf } from "../env.ts";
import type { EventLog } from "./event-log.ts";
import { shardName } from "./shard-name.ts";

/** The log of a shard. */
export const eventLog = (env: Env, shard: string): DurableObjectStub<EventLog> =>
  objectNamed<EventLog>(env, env.EVENT_LOG, shard);

/** The shard of a unique key in its mode. */
export const shardOf = (env: Env, livemode: boolean, key: string): string =>
  shardName(livemode, hashedTo(key, countOf(env, livemode)));

/** The shards of a mode's log. */
export const shardsOf = (env: Env, livemode: boolean): string[] =>
  Array.from({ length: countOf(env, livemode) }, (_, place) => shardName(livemode, place));

/** The shards of both modes' logs, live mode's first. */
export const allShards = (env: Env): string[] => [...shardsOf(env, true), ...shardsOf(env, false)];

function countOf(env: Env, livemode: boolean): number {
  const { EVENT_LOG_SHARDS, TEST_EVENT_LOG_SHARDS } = settingsOf(env);
  return livemode ? EVENT_LOG_SHARDS : TEST_EVENT_LOG_SHARDS;
}
