// By what a request and what it makes are known again: unique keys, and the claims of Idempotency-Keys.
import { changedSetting, checkBound, knownDeployment } from "../catalog/deployment.ts";
import type { MeteringError } from "../domain/errors.ts";
import { identifierOfKey, uniqueKey } from "../domain/identifiers.ts";
import { ONE_DATABASE } from "../domain/placement.ts";
import { err, ok, type Result } from "../domain/result.ts";
import { appendAll } from "../log/calls.ts";
import type { ClaimAppend, LogContext } from "../log/entries.ts";
import type { Caller } from "./caller.ts";

/** What the keys begin with that stripe-node makes, one for each request. */
const MADE_BY_SDK = "stripe-node-retry-";

/** Whether a caller chose an Idempotency-Key, so that it must be kept from belonging to two requests. */
export const isCallersKey = (idempotencyKey: string | undefined): idempotencyKey is string =>
  idempotencyKey !== undefined && !idempotencyKey.startsWith(MADE_BY_SDK);

/**
 * What this isolate knows of the log of its caller's mode, if this deployment may look for identifiers in it at all.
 * Yields `setting_changed` and `databases_changed`.
 */
export async function logOf({ env, execution, key, now }: Caller): Promise<Result<LogContext, MeteringError>> {
  const deployment = await knownDeployment(env, execution);
  const changed = changedSetting(env, deployment, now);
  if (changed !== undefined) return err({ reason: "setting_changed", ...changed });
  const { livemode } = key;
  const history = livemode ? deployment.shards.live : deployment.shards.test;
  const shards = history.map((step) => step.shards);
  if (!livemode) return ok({ livemode, shards, placement: ONE_DATABASE });
  const bound = checkBound(env, deployment.placement);
  return bound.ok
    ? ok({ livemode, shards, placement: bound.value })
    : err({ reason: "databases_changed", recorded: bound.error });
}

/** An identifier's unique key in its caller's mode. */
export const keyOf = (identifier: string, { key }: Caller): string => uniqueKey(key.livemode, identifier);

/**
 * The claim of an Idempotency-Key for a request, by the request's digest. Its unique key is that of the event
 * that a report without identifier under this key would be: whichever of the two comes first has it.
 */
export const claimOf = (idempotencyKey: string, requestDigest: string, caller: Caller): ClaimAppend => ({
  key: keyOf(identifierOfKey(caller.key.livemode, idempotencyKey), caller),
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
  requestDigest: () => string,
  caller: Caller,
  { alsoMadeBySdk = false }: { readonly alsoMadeBySdk?: boolean } = {},
): Promise<Result<Claimed | undefined, MeteringError>> {
  const { env, idempotencyKey } = caller;
  if (idempotencyKey === undefined || !(alsoMadeBySdk || isCallersKey(idempotencyKey))) return ok(undefined);
  const log = await logOf(caller);
  if (!log.ok) return log;
  const claim = claimOf(idempotencyKey, requestDigest(), caller);
  const outcome = (await appendAll(env, log.value, [claim])).get(claim);
  if (outcome?.outcome === "key_reused") return err({ reason: "idempotency_key_reused", key: idempotencyKey });
  if (outcome?.outcome !== "accepted") throw new Error("the log did not take a claim");
  return ok({ at: outcome.received });
}
