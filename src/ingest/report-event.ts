import { findMeterForEvent } from "../catalog/meters.ts";
import { admit, type EventReport, type Refusal, reportDigest, requestDigest } from "../domain/event.ts";
import {
  digest,
  identifierOfKey,
  newEventId,
  newIdentifier,
  shardOf,
  tokenOf,
  uniqueKey,
} from "../domain/identifiers.ts";
import { err, ok, type Result } from "../domain/result.ts";
import { type Env, settingsOf } from "../env.ts";
import type { Call } from "../http/endpoint.ts";
import type { ApiError } from "../http/errors.ts";
import type { AppendOutcome, NewClaim, NewEvent } from "../log/entries.ts";
import { customerMeter, eventLog } from "../log/shards.ts";
import { checkDeployment } from "./check-deployment.ts";
import { claimOf, isCallersKey } from "./claim-key.ts";
import type { RecordOutcome } from "./customer-meter.ts";

/** An accepted event, as either API version answers it. Times in ms. */
export type RecordedEvent = EventReport & {
  readonly identifier: string;
  readonly timestamp: number;
  readonly received: number;
  /** The token of the request that it was first accepted from; this one's, unless this is a retry. */
  readonly token: string;
};

/** A report on its way into the log, before it is known to be an event. */
export type Candidate = Omit<NewEvent, "event">;

/**
 * The way of one event at the edge: find its meter, admit it, take its customer's turn on that
 * meter, and be told by the log what it became.
 */
export async function recordEvent(report: EventReport, call: Call<unknown>): Promise<Result<RecordedEvent, ApiError>> {
  const { env, execution, key, now } = call;
  const deployment = await checkDeployment(call);
  if (!deployment.ok) return deployment;
  const candidate = candidateOf(report, call);
  const claim = claimBeside(report, call);
  const meter = await findMeterForEvent(env.DB, key.livemode, report.eventName, execution);
  const admitted = admit(report, meter, now);
  if (!admitted.ok) {
    const earlier = mayBeRetry(admitted.error, report, call) ? await earlierAttempt(candidate, claim, call) : undefined;
    return earlier === undefined ? admitted : toResult(earlier, report, candidate.identifier, call);
  }
  const event = admitted.value;
  const outcome = await customerMeter(env, event.meter, event.customer).record({ ...candidate, event }, claim);
  return toResult(outcome, report, candidate.identifier, call);
}

/**
 * Where a report goes in the log, and by what its retry is recognised. Without an identifier it takes the one
 * that its Idempotency-Key stands for, and so is that key's claim.
 */
function candidateOf(report: EventReport, { endpoint, idempotencyKey, ...call }: Call<unknown>): Candidate {
  const { now, token } = call;
  const id = newEventId(now, token);
  const keyDigest = idempotencyKey === undefined ? undefined : digest(idempotencyKey);
  if (report.identifier === undefined && idempotencyKey !== undefined) {
    const identifier = identifierOfKey(call.key.livemode, idempotencyKey);
    const claims = { reportDigest: requestDigest(endpoint, report), keyDigest, claims: true };
    return { ...placeOf(identifier, call), id, identifier, ...claims };
  }
  const identifier = report.identifier ?? newIdentifier();
  return { ...placeOf(identifier, call), id, identifier, reportDigest: reportDigest(report), keyDigest, claims: false };
}

/** An identifier's unique key in its caller's mode, and the shard of that. */
export function placeOf(
  identifier: string,
  { env, key }: Pick<Call<unknown>, "env" | "key">,
): Pick<Candidate, "key" | "shard"> {
  const unique = uniqueKey(key.livemode, identifier);
  return { key: unique, shard: shardOf(unique, settingsOf(env).EVENT_LOG_SHARDS) };
}

/** The claim that an event with an identifier of its own needs for the Idempotency-Key that its caller chose. */
function claimBeside(report: EventReport, call: Call<unknown>): NewClaim | undefined {
  const { endpoint, idempotencyKey } = call;
  if (report.identifier === undefined || !isCallersKey(idempotencyKey)) return undefined;
  return claimOf(idempotencyKey, requestDigest(endpoint, report), call);
}

/**
 * A refused event may be the retry of one that was accepted when the time or the meter was another:
 * the log knows. A name without any meter never had one, so nothing was accepted then.
 */
const mayBeRetry = ({ reason }: Refusal, { identifier }: EventReport, { idempotencyKey }: Call<unknown>): boolean =>
  reason !== "no_meter" && (identifier ?? idempotencyKey) !== undefined;

async function earlierAttempt(
  candidate: Candidate,
  claim: NewClaim | undefined,
  { env }: Call<unknown>,
): Promise<AppendOutcome | undefined> {
  const [earlier, claimed] = await Promise.all([recall(env, candidate), claim && recall(env, claim)]);
  if (claimed?.outcome === "key_reused") return claimed;
  return earlier?.outcome === "duplicate" && !earlier.sameReport ? undefined : earlier;
}

async function recall(env: Env, entry: Candidate | NewClaim): Promise<AppendOutcome | undefined> {
  const [outcome] = await eventLog(env, entry.shard).recall([entry]);
  return outcome;
}

function toResult(
  outcome: RecordOutcome,
  report: EventReport,
  identifier: string,
  { idempotencyKey, token }: Call<unknown>,
): Result<RecordedEvent, ApiError> {
  switch (outcome.outcome) {
    case "accepted": {
      const { id, timestamp, received } = outcome;
      return ok({ ...report, identifier, timestamp, received, token: id === undefined ? token : tokenOf(id) });
    }
    case "busy":
      return err({ reason: "too_many_concurrent_requests" });
    case "duplicate":
      return err({ reason: "duplicate_meter_event", identifier });
    case "key_reused":
      return err({ reason: "idempotency_key_reused", key: idempotencyKey ?? "" });
    case "full":
      return err({ reason: "log_full" });
  }
}
