import type { RecordOutcome } from "../durable-objects/customer-meter.ts";
import type { AppendOutcome, NewEvent } from "../durable-objects/log-entries.ts";
import { customerMeter, eventLog } from "../durable-objects/stubs.ts";
import { type Env, settingsOf } from "../env.ts";
import { admit, type EventReport, type Refusal, reportDigest } from "../metering/events.ts";
import { digest, newId, serverIdentifier, shardOf, uniqueKey } from "../metering/identifiers.ts";
import { err, ok, type Result } from "../metering/result.ts";
import { checkShards } from "../storage/deployment.ts";
import { findMeterForEvent } from "../storage/meters.ts";
import type { Call } from "./endpoint.ts";
import type { ApiError } from "./errors.ts";

/** An accepted event, as either door answers it. Times in ms. */
export type RecordedEvent = EventReport & {
  readonly identifier: string;
  readonly timestamp: number;
  readonly received: number;
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
  const meter = await findMeterForEvent(env.DB, key.livemode, report.eventName, execution);
  const admitted = admit(report, meter, now);
  if (!admitted.ok) {
    const earlier = await earlierAcceptance(candidate, admitted.error, report, call);
    return earlier === undefined ? admitted : toResult(earlier, report, candidate.identifier, call);
  }
  const outcome = await record({ ...candidate, event: admitted.value }, env);
  return toResult(outcome, report, candidate.identifier, call);
}

/** Whether this deployment may look for identifiers in its logs at all. */
export async function checkDeployment({ env }: Call<unknown>): Promise<Result<void, ApiError>> {
  const settings = settingsOf(env);
  const shards = await checkShards(env.DB, settings);
  if (shards.ok) return shards;
  return err({ reason: "shards_changed", configured: settings.EVENT_LOG_SHARDS, recorded: shards.error });
}

/** Where a report goes in the log, and by what its retry will be recognised. `position`: its place among those of one request. */
export function candidateOf(
  report: EventReport,
  { env, endpoint, key, idempotencyKey }: Call<unknown>,
  position?: number,
): Candidate {
  const identifier = report.identifier ?? serverIdentifier(key.livemode, idempotencyKey, position);
  const unique = uniqueKey(key.livemode, identifier);
  return {
    key: unique,
    shard: shardOf(unique, settingsOf(env).EVENT_LOG_SHARDS),
    id: newId(),
    identifier,
    keyDigest: idempotencyKey === undefined ? "" : digest(idempotencyKey),
    reportDigest: reportDigest(endpoint, report),
  };
}

/**
 * A refused event may be the retry of one that was accepted when the time or the meter was another:
 * the log knows. A name without any meter never had one, so nothing was accepted then.
 */
export async function earlierAcceptance(
  { shard, key, id, keyDigest, reportDigest }: Candidate,
  { reason }: Refusal,
  report: EventReport,
  { env, idempotencyKey }: Call<unknown>,
): Promise<AppendOutcome | undefined> {
  if (reason === "no_meter" || (idempotencyKey ?? report.identifier) === undefined) return undefined;
  const earlier = await eventLog(env, shard).recall({ key, id, keyDigest, reportDigest });
  const same = earlier?.outcome === "accepted" || (earlier?.outcome === "duplicate" && earlier.sameReport);
  return same ? earlier : undefined;
}

function record(event: NewEvent, env: Env): Promise<RecordOutcome> {
  const { meter, customer } = event.event;
  return customerMeter(env, meter, customer).record(event);
}

function toResult(
  outcome: RecordOutcome,
  report: EventReport,
  identifier: string,
  { idempotencyKey }: Call<unknown>,
): Result<RecordedEvent, ApiError> {
  switch (outcome.outcome) {
    case "accepted":
      return ok({ ...report, identifier, timestamp: outcome.timestamp, received: outcome.received });
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
