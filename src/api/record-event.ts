import type { RecordOutcome } from "../durable-objects/customer-meter.ts";
import type { AppendOutcome, NewEvent } from "../durable-objects/event-log.ts";
import { eventLogFor, placement } from "../durable-objects/event-log-client.ts";
import { type Env, settingsOf } from "../env.ts";
import { admit, type EventReport, isCausedByTime, reportDigest } from "../metering/events.ts";
import { digest, newId, serverIdentifier, uniqueKey } from "../metering/identifiers.ts";
import { err, ok, type Result } from "../metering/result.ts";
import { recordedShardsIfOther } from "../storage/deployment.ts";
import { findMeterForEvent } from "../storage/meters.ts";
import type { Call } from "./endpoint.ts";
import type { ApiError } from "./errors.ts";

/** An accepted event, as either door answers it. Times in ms. */
export type RecordedEvent = EventReport & {
  readonly identifier: string;
  readonly timestamp: number;
  readonly received: number;
};

/**
 * The way of one event at the edge: find its meter, admit it, take its customer's turn on that
 * meter, and be told by the log what it became.
 */
export async function recordEvent(report: EventReport, call: Call<unknown>): Promise<Result<RecordedEvent, ApiError>> {
  const { env, execution, key, now, idempotencyKey } = call;
  const recorded = await recordedShardsIfOther(env.DB, settingsOf(env));
  if (recorded !== undefined) {
    return err({ reason: "shards_changed", configured: settingsOf(env).EVENT_LOG_SHARDS, recorded });
  }
  const identifier = report.identifier ?? serverIdentifier(key.livemode, idempotencyKey);
  const inquiry = {
    key: uniqueKey(key.livemode, identifier),
    id: newId(),
    keyDigest: idempotencyKey === undefined ? "" : digest(idempotencyKey),
    reportDigest: reportDigest(call.endpoint, report),
  };

  const meter = await findMeterForEvent(env.DB, key.livemode, report.eventName, execution);
  const admitted = admit(report, meter, now);
  if (!admitted.ok) {
    const earlier = isCausedByTime(admitted.error) ? await eventLogFor(env, inquiry.key).recall(inquiry) : undefined;
    return earlier === undefined ? admitted : toResult(earlier, report, identifier, call);
  }
  const outcome = await record({ ...inquiry, identifier, event: admitted.value }, env);
  return toResult(outcome, report, identifier, call);
}

function record(event: NewEvent, env: Env): Promise<RecordOutcome> {
  const { meter, customer } = event.event;
  return env.CUSTOMER_METER.getByName(`${meter}:${customer}`, placement(env)).record(event);
}

function toResult(
  outcome: RecordOutcome | AppendOutcome,
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
