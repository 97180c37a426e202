// By what a request and what it makes are known again: unique keys, and the claims of Idempotency-Keys.
import { checkBound, checkFixedSettings, knownPlacement } from "../catalog/deployment.ts";
import type { MeteringError } from "../domain/errors.ts";
import { identifierOfKey, uniqueKey } from "../domain/identifiers.ts";
import { ONE_DATABASE, type Placement } from "../domain/placement.ts";
import { err, ok, type Result } from "../domain/result.ts";
import type { ClaimAppend, EventAppend } from "../log/entries.ts";
import { eventLog, shardOf } from "../log/shards.ts";
import type { Caller } from "./caller.ts";

/** What the keys begin with that stripe-node makes, one for each request. */
const MADE_BY_SDK = "stripe-node-retry-";

/** Whether a caller chose an Idempotency-Key, so that it must be kept from belonging to two requests. */
export const isCallersKey = (idempotencyKey: string | undefined): idempotencyKey is string =>
  idempotencyKey !== undefined && !idempotencyKey.startsWith(MADE_BY_SDK);

/**
 * Whether this deployment may look for identifiers in its logs at all, and how many databases the caller's mode has
 * had as far as this isolate knows. Yields `setting_changed` and `databases_changed`.
 */
export async function checkDeployment({ env, execution, key }: Caller): Promise<Result<Placement, MeteringError>> {
  const settings = await checkFixedSettings(env);
  if (!settings.ok) return err({ reason: "setting_changed", ...settings.error });
  if (!key.livemode) return ok(ONE_DATABASE);
  const placement = await knownPlacement(env, execution);
  // Settings that agree were recorded together with it.
  if (placement === undefined) throw new Error("the number of databases is not recorded");
  const bound = checkBound(env, placement);
  return bound.ok ? bound : err({ reason: "databases_changed", recorded: bound.error });
}

/** An identifier's unique key in its caller's mode, and the shard of that. */
export function placeOf(identifier: string, { env, key }: Caller): Pick<EventAppend, "key" | "shard"> {
  const unique = uniqueKey(key.livemode, identifier);
  return { key: unique, shard: shardOf(env, key.livemode, unique) };
}

/**
 * The claim of an Idempotency-Key for a request, by the request's digest. Its unique key is that of the event
 * that a report without identifier under this key would be: whichever of the two comes first has it.
 */
export const claimOf = (idempotencyKey: string, requestDigest: string, caller: Caller): ClaimAppend => ({
  ...placeOf(identifierOfKey(caller.key.livemode, idempotencyKey), caller),
  kind: "claim",
  reportDigest: requestDigest,
  claims: true,
});

/** When a request's Idempotency-Key was claimed (ms): by this request, or by the attempt that it retries. */
export type Claimed = { readonly at: number };

/**
 * Claims the request's Idempotency-Key before the request changes anything; nothing when there is none, or when
 * an SDK made it for this one request. The claim lasts 24 hours, also when the request is refused after it.
 * Yields `idempotency_key_reused` and `setting_changed`.
 */
export async function claimKey(
  requestDigest: string,
  caller: Caller,
  { alsoMadeBySdk = false }: { readonly alsoMadeBySdk?: boolean } = {},
): Promise<Result<Claimed | undefined, MeteringError>> {
  const { env, idempotencyKey } = caller;
  if (idempotencyKey === undefined || !(alsoMadeBySdk || isCallersKey(idempotencyKey))) return ok(undefined);
  const deployment = await checkDeployment(caller);
  if (!deployment.ok) return deployment;
  const claim = claimOf(idempotencyKey, requestDigest, caller);
  const [outcome] = await eventLog(env, claim.shard).append([claim]);
  if (outcome?.outcome === "key_reused") return err({ reason: "idempotency_key_reused", key: idempotencyKey });
  if (outcome?.outcome !== "accepted") throw new Error("the log did not take a claim");
  return ok({ at: outcome.received });
}
