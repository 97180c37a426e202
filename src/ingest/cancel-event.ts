import { meterIdsOf } from "../catalog/meters.ts";
import { digest, shardOf, uniqueKey } from "../domain/identifiers.ts";
import { err, ok, type Result } from "../domain/result.ts";
import { settingsOf } from "../env.ts";
import type { Call } from "../http/endpoint.ts";
import type { ApiError } from "../http/errors.ts";
import { eventLog } from "../log/shards.ts";
import { checkDeployment } from "./check-deployment.ts";

/** What an adjustment cancels. */
export type Cancellation = { readonly eventName: string; readonly identifier: string };

/** An adjustment that holds; `created` in ms. */
export type Adjustment = Cancellation & {
  readonly id: string;
  readonly created: number;
  /** The token of the request that it was first made by; this one's, unless this is a retry. */
  readonly token: string;
};

const ID_PREFIX = "mtr_event_adj_";

/**
 * Cancels an event that was received in the last 24 hours. When this answers, the cancellation is
 * durable and takes effect once, whether the event has reached the summaries yet or not.
 */
export async function cancelEvent(
  { eventName, identifier }: Cancellation,
  call: Call<unknown>,
): Promise<Result<Adjustment, ApiError>> {
  const { env, endpoint, key, idempotencyKey, token } = call;
  const deployment = await checkDeployment(call);
  if (!deployment.ok) return deployment;
  const unique = uniqueKey(key.livemode, identifier);
  const outcome = await eventLog(env, shardOf(unique, settingsOf(env).EVENT_LOG_SHARDS)).cancel({
    key: unique,
    id: ID_PREFIX + token,
    meters: await meterIdsOf(env.DB, key.livemode, eventName),
    keyDigest: idempotencyKey === undefined ? undefined : digest(idempotencyKey),
    requestDigest: digest(endpoint, eventName, identifier),
  });
  switch (outcome.outcome) {
    case "cancelled":
      return ok({
        id: outcome.id,
        created: outcome.at,
        eventName,
        identifier,
        token: outcome.id.slice(ID_PREFIX.length),
      });
    case "key_reused":
      return err({ reason: "idempotency_key_reused", key: idempotencyKey ?? "" });
    default:
      return err({ reason: "invalid_cancel_configuration", cause: outcome.outcome, identifier, eventName });
  }
}
