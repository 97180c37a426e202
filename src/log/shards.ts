import { currentDeployment, type Deployment, recordedDeployment } from "../catalog/deployment.ts";
import { objectNamed } from "../catalog/objects.ts";
import { ONE_DATABASE } from "../domain/placement.ts";
import { countOfShards } from "../domain/shards.ts";
import type { Env } from "../env.ts";
import type { LogContext } from "./entries.ts";
import type { EventLog } from "./event-log.ts";
import { shardName } from "./shard-name.ts";

/** The log of a shard. */
export const eventLog = (env: Env, shard: string): DurableObjectStub<EventLog> =>
  objectNamed<EventLog>(env, env.EVENT_LOG, shard);

/** What the control database says of a mode's log; the settings' word while it does not answer. */
export const logOfMode = async (env: Env, livemode: boolean): Promise<LogContext> =>
  logOf(await currentDeployment(env), livemode);

/** What is recorded of a mode's log. Throws when the control database does not say. */
export const recordedLogOfMode = async (env: Env, livemode: boolean): Promise<LogContext> =>
  logOf(await recordedDeployment(env), livemode);

/** Every shard that a mode's log ever had. Throws when the control database does not say. */
export const everyShardOf = async (env: Env, livemode: boolean): Promise<string[]> =>
  shardsOf(await recordedLogOfMode(env, livemode));

function logOf({ placement, shards }: Deployment, livemode: boolean): LogContext {
  const history = livemode ? shards.live : shards.test;
  return {
    livemode,
    placement: livemode ? placement : ONE_DATABASE,
    shards: history.map((step) => step.shards),
  };
}

/** The shards of a mode's log. */
export const shardsOf = ({ livemode, shards }: LogContext): string[] =>
  Array.from({ length: countOfShards(shards) }, (_, place) => shardName(livemode, place));

/** The shards of both modes' logs, live mode's first. */
export async function allShards(env: Env): Promise<string[]> {
  const logs = await Promise.all([true, false].map((livemode) => logOfMode(env, livemode)));
  return logs.flatMap(shardsOf);
}
