import { type Env, settingsOf } from "../env.ts";
import type { CustomerMeter } from "../ingest/customer-meter.ts";
import type { EventLog } from "./event-log.ts";

// A new stub for each call: one that has seen its object reset fails for ever.

/** Where objects are created; Cloudflare honours it at an object's first use. */
function placement(env: Env): DurableObjectNamespaceGetDurableObjectOptions {
  const hint = settingsOf(env).LOCATION_HINT;
  return hint === "" ? {} : { locationHint: hint };
}

/** The objects of a class that are kept where JURISDICTION says; the same name is another object elsewhere. */
function within<T extends Rpc.DurableObjectBranded>(
  env: Env,
  objects: DurableObjectNamespace<T>,
): DurableObjectNamespace<T> {
  const { JURISDICTION: jurisdiction } = settingsOf(env);
  return jurisdiction === "" ? objects : objects.jurisdiction(jurisdiction);
}

/** The object that takes a customer's writes on a meter one at a time. */
export const customerMeter = (env: Env, meter: string, customer: string): DurableObjectStub<CustomerMeter> =>
  within(env, env.CUSTOMER_METER).getByName(`${meter}:${customer}`, placement(env));

const SHARD = "shard-";

/** The log of a shard. */
export const eventLog = (env: Env, shard: number): DurableObjectStub<EventLog> =>
  within(env, env.EVENT_LOG).getByName(SHARD + shard, placement(env));

/** The shards of the log, by their numbers. */
export const allShards = (env: Env): number[] =>
  Array.from({ length: settingsOf(env).EVENT_LOG_SHARDS }, (_, shard) => shard);

/** Which shard a log is, from inside it. Throws for an object that was not made through `eventLog`. */
export function shardNumber(id: DurableObjectId): number {
  const shard = Number(id.name?.startsWith(SHARD) ? id.name.slice(SHARD.length) : Number.NaN);
  if (!Number.isInteger(shard)) throw new Error("an EventLog without a shard's name");
  return shard;
}
