import { findMeterForEvent } from "../catalog/meters.ts";
import type { MeteringError } from "../domain/errors.ts";
import { admit, type EventReport, type Refusal, reportDigest, requestDigest } from "../domain/event.ts";
import { digest, identifierOfKey, newEventId, newIdentifier, tokenOf } from "../domain/identifiers.ts";
import { err, ok, type Result } from "../domain/result.ts";
import type { Env } from "../env.ts";
import { recallAll } from "../log/calls.ts";
import type { AppendOutcome, ClaimAppend, EventAppend, LogContext } from "../log/entries.ts";
import type { Caller } from "./caller.ts";
import type { RecordOutcome } from "./customer-meter.ts";
import { customerMeter } from "./customer-meter-stub.ts";
import { claimOf, isCallersKey, keyOf, logOf } from "./identity.ts";

/** An accepted event, as either API version answers it. Times in ms. */
export type Receipt = EventReport & {
  readonly identifier: string;
  readonly timestamp: number;
  readonly received: number;
  /** The token of the request that it was first accepted from; this one's, unless this is a retry. */
  readonly token: string;
};

/** A report on its way into the log, before it is known to be an event. */
export type Candidate = Omit<EventAppend, "kind" | "event" | "apiKey">;

/**
 * The way of one event at the edge: find its meter, admit it, take its customer's turn on that
 * meter, and be told by the log what it became.
 */
export async function reportEvent(report: EventReport, caller: Caller): Promise<Result<Receipt, MeteringError>> {
  const { env, execution, key, now } = caller;
  const log = await logOf(caller);
  if (!log.ok) return log;
  const candidate = candidateOf(report, caller);
  const claim = claimBeside(report, caller);
  const meter = await findMeterForEvent(env.DB, key.livemode, report.eventName, execution);
  const admitted = admit(report, meter, now);
  if (!admitted.ok) {
    const retries = mayBeRetry(admitted.error, report, caller);
    const earlier = retries ? await earlierAttempt(candidate, claim, log.value, env) : undefined;
    return earlier === undefined ? admitted : toResult(earlier, report, candidate.identifier, caller);
  }
  const event: EventAppend = { ...candidate, kind: "event", apiKey: key.number, event: admitted.value };
  const outcome = await customerMeter(env, event.event.meter, event.event.customer).record(event, claim, log.value);
  return toResult(outcome, report, candidate.identifier, caller);
}

/**
 * Where a report goes in the log, and by what its retry is recognised. Without an identifier it takes the one
 * that its Idempotency-Key stands for, and so is that key's claim.
 */
function candidateOf(report: EventReport, caller: Caller): Candidate {
  const { endpoint, idempotencyKey, key, now, token } = caller;
  const id = newEventId(now, token);
  const keyDigest = idempotencyKey === undefined ? undefined : digest(idempotencyKey);
  if (report.identifier === undefined && idempotencyKey !== undefined) {
    const identifier = identifierOfKey(key.livemode, idempotencyKey);
    const claims = { reportDigest: requestDigest(endpoint, report), keyDigest, claims: true };
    return { key: keyOf(identifier, caller), id, identifier, ...claims };
  }
  const identifier = report.identifier ?? newIdentifier();
  const own = { reportDigest: reportDigest(report), keyDigest, claims: false };
  return { key: keyOf(identifier, caller), id, identifier, ...own };
}

/** The claim that an event with an identifier of its own needs for the Idempotency-Key that its caller chose. */
function claimBeside(report: EventReport, caller: Caller): ClaimAppend | undefined {
  const { endpoint, idempotencyKey } = caller;
  if (report.identifier === undefined || !isCallersKey(idempotencyKey)) return undefined;
  return claimOf(idempotencyKey, requestDigest(endpoint, report), caller);
}

/**
 * A refused event may be the retry of one that was accepted when the time or the meter was another:
 * the log knows. A name without any meter never had one, so nothing was accepted then.
 */
const mayBeRetry = ({ reason }: Refusal, { identifier }: EventReport, { idempotencyKey }: Caller): boolean =>
  reason !== "no_meter" && (identifier ?? idempotencyKey) !== undefined;

async function earlierAttempt(
  candidate: Candidate,
  claim: ClaimAppend | undefined,
  log: LogContext,
  env: Env,
): Promise<AppendOutcome | undefined> {
  const known = await recallAll(env, log, claim === undefined ? [candidate] : [candidate, claim]);
  const [earlier, claimed] = [known.get(candidate), claim && known.get(claim)];
  if (claimed?.outcome === "key_reused") return claimed;
  return earlier?.outcome === "duplicate" && !earlier.sameReport ? undefined : earlier;
}

function toResult(
  outcome: RecordOutcome,
  report: EventReport,
  identifier: string,
  { idempotencyKey }: Caller,
): Result<Receipt, MeteringError> {
  switch (outcome.outcome) {
    case "accepted": {
      const { id, timestamp, received } = outcome;
      if (id === undefined) throw new Error("the log took a claim for an event");
      return ok({ ...report, identifier, timestamp, received, token: tokenOf(id) });
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
