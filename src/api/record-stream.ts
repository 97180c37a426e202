import type { AppendOutcome, NewEntry, NewRejection, NewRequest } from "../durable-objects/log-entries.ts";
import { eventLog } from "../durable-objects/stubs.ts";
import { type Env, settingsOf } from "../env.ts";
import { admit, type EventReport, type Refusal, reportDigest } from "../metering/events.ts";
import { digest, newId, shardOf, uniqueKey } from "../metering/identifiers.ts";
import type { Meter } from "../metering/meters.ts";
import { err, ok, type Result } from "../metering/result.ts";
import { findMeterForEvent } from "../storage/meters.ts";
import type { Call } from "./endpoint.ts";
import { type ApiError, hasTooManyDigits, messageOf } from "./errors.ts";
import { type Candidate, candidateOf, checkDeployment, earlierAcceptance } from "./record-event.ts";

/**
 * The way of a stream's events at the edge: each is admitted, or becomes a rejection on its way to an
 * error report; all of them are durable when this succeeds. No customer's turn is taken: the log alone
 * makes them unique, and in a stream the order of arrival is nobody's promise.
 *
 * Yields `idempotency_key_reused`, and `log_full` also when other shards took their part: the whole can
 * be sent again, since what is there is recognised.
 */
export async function recordStream(
  reports: readonly EventReport[],
  call: Call<unknown>,
): Promise<Result<void, ApiError>> {
  const deployment = await checkDeployment(call);
  if (!deployment.ok) return deployment;
  const claimed = await claimKey(reports, call);
  if (!claimed.ok) return claimed;
  const meters = await metersOf(reports, call);
  const entries = await Promise.all(
    reports.map((report, position) => toEntry(report, position, meters.get(report.eventName), call)),
  );
  const outcomes = await appendAll(oncePerKey(entries), call.env);
  // A derived identifier that is taken by another body: the note of its request expired a moment before it.
  const isReused = (entry: NewEntry | undefined, position: number): boolean =>
    entry !== undefined && reports[position]?.identifier === undefined && outcomes.get(entry.key) === "key_reused";
  if (entries.some(isReused)) return err({ reason: "idempotency_key_reused", key: call.idempotencyKey ?? "" });
  return [...outcomes.values()].includes("full") ? err({ reason: "log_full" }) : ok(undefined);
}

/**
 * Notes which body came under the request's Idempotency-Key, before anything else is stored: the same
 * key with another body changes nothing. Yields `idempotency_key_reused` and `log_full`.
 */
async function claimKey(reports: readonly EventReport[], call: Call<unknown>): Promise<Result<void, ApiError>> {
  const { env, endpoint, key, idempotencyKey } = call;
  if (idempotencyKey === undefined) return ok(undefined);
  const unique = `request:${uniqueKey(key.livemode, digest(endpoint, idempotencyKey))}`;
  const request: NewRequest = {
    key: unique,
    shard: shardOf(unique, settingsOf(env).EVENT_LOG_SHARDS),
    id: newId(),
    identifier: unique,
    keyDigest: digest(idempotencyKey),
    reportDigest: digest(...reports.map((report) => reportDigest(endpoint, report))),
    request: true,
  };
  const outcome = (await appendAll([request], env)).get(unique);
  if (outcome === "key_reused") return err({ reason: "idempotency_key_reused", key: idempotencyKey });
  return outcome === "full" ? err({ reason: "log_full" }) : ok(undefined);
}

/** The meters of all event names, each looked up once. */
async function metersOf(
  reports: readonly EventReport[],
  { env, key, execution }: Call<unknown>,
): Promise<Map<string, Meter | undefined>> {
  const names = [...new Set(reports.map(({ eventName }) => eventName))];
  return new Map(
    await Promise.all(
      names.map(async (name) => [name, await findMeterForEvent(env.DB, key.livemode, name, execution)] as const),
    ),
  );
}

/** What the log is to append for a report; nothing when it refuses what it accepted before, time or meter having changed. */
async function toEntry(
  report: EventReport,
  position: number,
  meter: Meter | undefined,
  call: Call<unknown>,
): Promise<NewEntry | undefined> {
  const candidate = candidateOf(report, call, position);
  const admitted = admit(report, meter, call.now);
  if (admitted.ok) return { ...candidate, event: admitted.value };
  const earlier = await earlierAcceptance(candidate, admitted.error, report, call);
  return earlier === undefined ? toRejection(candidate, admitted.error, meter, call) : undefined;
}

/** A refused event under a key of its own, which leaves the identifier free and makes a retry report it once. */
function toRejection(
  candidate: Candidate,
  refusal: Refusal,
  meter: Meter | undefined,
  { env, key }: Call<unknown>,
): NewRejection {
  const unique = `rejected:${candidate.key}:${digest(candidate.reportDigest, candidate.keyDigest)}`;
  return {
    ...candidate,
    key: unique,
    shard: shardOf(unique, settingsOf(env).EVENT_LOG_SHARDS),
    rejection: {
      livemode: key.livemode,
      meter: meter?.id ?? null,
      code: reportCode(refusal),
      message: messageOf(refusal),
    },
  };
}

/** What an error report calls a refusal (wire contract, section 4: async error events). */
function reportCode(refusal: Refusal): string {
  switch (refusal.reason) {
    case "payload_no_customer_defined":
      return "meter_event_no_customer_defined";
    case "payload_no_value_defined":
      return "meter_event_value_not_found";
    case "payload_invalid_value":
      return hasTooManyDigits(refusal.value) ? "meter_event_value_too_many_digits" : "meter_event_invalid_value";
    case "no_meter":
    case "archived_meter":
    case "timestamp_in_future":
    case "timestamp_too_far_in_past":
      return refusal.reason;
  }
}

/**
 * Of entries with one unique key, the first. Within one request the log would take the others, which
 * come under the same Idempotency-Key, for a reuse of that key rather than for duplicates.
 */
function oncePerKey(entries: readonly (NewEntry | undefined)[]): NewEntry[] {
  const first = new Map<string, NewEntry>();
  for (const entry of entries) {
    if (entry !== undefined && !first.has(entry.key)) first.set(entry.key, entry);
  }
  return [...first.values()];
}

/** Appends entries, one call per shard; what came of each, by its key. Throws when a log does not answer. */
async function appendAll(entries: readonly NewEntry[], env: Env): Promise<Map<string, AppendOutcome["outcome"]>> {
  const byShard = Map.groupBy(entries, ({ shard }) => shard);
  const answers = await Promise.all(
    [...byShard].map(async ([shard, ofShard]) => {
      const outcomes = await eventLog(env, shard).append(ofShard);
      return ofShard.map(({ key }, position) => {
        const outcome = outcomes[position]?.outcome;
        if (outcome === undefined) throw new Error("the log did not answer for every event");
        return [key, outcome] as const;
      });
    }),
  );
  return new Map(answers.flat());
}
