import { meterIdsOf } from "../catalog/meters.ts";
import type { MeteringError } from "../domain/errors.ts";
import { digest } from "../domain/identifiers.ts";
import { err, ok, type Result } from "../domain/result.ts";
import { cancelIn } from "../log/calls.ts";
import type { Caller } from "./caller.ts";
import { keyOf, logOf } from "./identity.ts";

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
  caller: Caller,
): Promise<Result<Adjustment, MeteringError>> {
  const { env, endpoint, key, idempotencyKey, token } = caller;
  const log = await logOf(caller);
  if (!log.ok) return log;
  const outcome = await cancelIn(env, log.value, {
    key: keyOf(identifier, caller),
    id: ID_PREFIX + token,
    meters: await meterIdsOf(env.DB, key.livemode, eventName),
    apiKey: key.number,
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
