import { identifierOfKey, newEventId, shardOf, uniqueKey } from "../domain/identifiers.ts";
import { err, ok, type Result } from "../domain/result.ts";
import { settingsOf } from "../env.ts";
import type { Call } from "../http/endpoint.ts";
import type { ApiError } from "../http/errors.ts";
import type { NewClaim } from "../log/entries.ts";
import { eventLog } from "../log/shards.ts";
import { checkDeployment } from "./check-deployment.ts";

/** What the keys begin with that stripe-node makes, one for each request. */
const MADE_BY_SDK = "stripe-node-retry-";

/** Whether a caller chose an Idempotency-Key, so that it must be kept from belonging to two requests. */
export const isCallersKey = (idempotencyKey: string | undefined): idempotencyKey is string =>
  idempotencyKey !== undefined && !idempotencyKey.startsWith(MADE_BY_SDK);

/**
 * The claim of a caller's Idempotency-Key for a request, by the request's digest. Its unique key is that of the
 * event that a report without identifier under this key would be: whichever of the two comes first has it.
 */
export function claimOf(
  idempotencyKey: string,
  requestDigest: string,
  { env, key, now }: Pick<Call<unknown>, "env" | "key" | "now">,
): NewClaim {
  const unique = uniqueKey(key.livemode, identifierOfKey(key.livemode, idempotencyKey));
  return {
    key: unique,
    shard: shardOf(unique, settingsOf(env).EVENT_LOG_SHARDS),
    id: newEventId(now),
    reportDigest: requestDigest,
    keyDigest: undefined,
    claims: true,
  };
}

/**
 * Claims the request's Idempotency-Key, if a caller chose one, before the request changes anything. The claim
 * lasts 24 hours, also when the request is refused after it. Yields `idempotency_key_reused`, `log_full` and
 * `setting_changed`.
 */
export async function claimKey(requestDigest: string, call: Call<unknown>): Promise<Result<void, ApiError>> {
  const { env, idempotencyKey } = call;
  if (!isCallersKey(idempotencyKey)) return ok(undefined);
  const deployment = await checkDeployment(call);
  if (!deployment.ok) return deployment;
  const claim = claimOf(idempotencyKey, requestDigest, call);
  const [outcome] = await eventLog(env, claim.shard).append([claim]);
  switch (outcome?.outcome) {
    case "accepted":
      return ok(undefined);
    case "key_reused":
      return err({ reason: "idempotency_key_reused", key: idempotencyKey });
    case "full":
      return err({ reason: "log_full" });
    default:
      throw new Error("the log gave no answer for a claim");
  }
}
