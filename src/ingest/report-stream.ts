import { findMetersForEvents } from "../catalog/meters.ts";
import type { MeteringError } from "../domain/errors.ts";
import { type AdmittedEvent, admit, type EventReport, type Refusal, reportDigest } from "../domain/event.ts";
import { identifierOfKey, newEventId, newIdentifier, shardOf } from "../domain/identifiers.ts";
import type { Meter } from "../domain/meter.ts";
import { err, ok, type Result } from "../domain/result.ts";
import { type Env, settingsOf } from "../env.ts";
import type { Call } from "../http/endpoint.ts";
import { type ApiError, hasTooManyDigits, messageOf } from "../http/errors.ts";
import { refusedEventsAllowed } from "../catalog/rate-limits.ts";
import type { AppendOutcome, NewEntry, NewRejection } from "../log/entries.ts";
import { eventLog } from "../log/shards.ts";
import { checkDeployment } from "./check-deployment.ts";
import { type Candidate, placeOf } from "./report-event.ts";

/** A report of a stream on its way, and what the rules said of it. */
type Examined = {
  readonly report: EventReport;
  readonly candidate: Candidate;
  readonly meter: Meter | undefined;
  readonly admitted: Result<AdmittedEvent, Refusal>;
};

/** Why a report of a stream counts nowhere. */
type StreamRefusal = Refusal | Extract<MeteringError, { reason: "duplicate_meter_event" }>;

/**
 * The way of a stream's events at the edge: each is admitted, or becomes a rejection on its way to an
 * error report; all of them are durable when this succeeds. No customer's turn is taken: the log alone
 * makes them unique. Events of one request are in receipt order as they stand in it.
 *
 * Yields `setting_changed`, `rate_limited` for too many refused events before any is stored, and `log_full` also when other shards took their part: the whole can be sent
 * again, since what is there is recognised.
 */
export async function recordStream(
  reports: readonly EventReport[],
  call: Call<unknown>,
): Promise<Result<void, ApiError>> {
  const deployment = await checkDeployment(call);
  if (!deployment.ok) return deployment;
  const examined = await examine(reports, call);
  const acceptedBefore = await acceptedEarlier(examined, call);
  const entries = examined.flatMap((each): NewEntry[] => {
    const { candidate, admitted } = each;
    if (admitted.ok) return [{ ...candidate, event: admitted.value }];
    return acceptedBefore.has(candidate) ? [] : [toRejection(each, admitted.error, call)];
  });
  const { env, key } = call;
  const refused = entries.filter((entry) => "rejection" in entry).length;
  if (!(await refusedEventsAllowed(env, key.id, refused))) return err({ reason: "rate_limited" });
  const outcomes = await appendAll(entries, env);
  const taken = examined.filter(({ candidate }) => isTakenByAnother(outcomes.get(candidate.id)));
  const duplicates = taken.map((each) =>
    toRejection(each, { reason: "duplicate_meter_event", identifier: each.candidate.identifier }, call),
  );
  const reported = await appendAll(duplicates, env);
  // The request's events are stored by now, so these count against the requests that follow.
  await refusedEventsAllowed(env, key.id, duplicates.length);
  const isFull = [...outcomes.values(), ...reported.values()].some(({ outcome }) => outcome === "full");
  return isFull ? err({ reason: "log_full" }) : ok(undefined);
}

/** What the rules say of each report, its meter looked up once for all of one name. */
async function examine(reports: readonly EventReport[], call: Call<unknown>): Promise<Examined[]> {
  const { env, key, execution, now } = call;
  const names = [...new Set(reports.map(({ eventName }) => eventName))];
  const meters = await findMetersForEvents(env.DB, key.livemode, names, execution);
  return reports.map((report, position) => {
    const meter = meters.get(report.eventName);
    return { report, candidate: candidateOf(report, position, call), meter, admitted: admit(report, meter, now) };
  });
}

/** Where a report goes in the log. Its Idempotency-Key was claimed for the whole request, so its row needs none. */
function candidateOf(report: EventReport, position: number, call: Call<unknown>): Candidate {
  const { key, idempotencyKey, now } = call;
  const made = idempotencyKey === undefined ? newIdentifier() : identifierOfKey(key.livemode, idempotencyKey, position);
  const identifier = report.identifier ?? made;
  const digests = { reportDigest: reportDigest(report), keyDigest: undefined, claims: false };
  return { ...placeOf(identifier, call), id: newEventId(now), identifier, ...digests };
}

/**
 * Which of the refused reports were accepted by an earlier attempt, when the time or the meter was another.
 * A name without any meter never had one.
 */
async function acceptedEarlier(
  examined: readonly Examined[],
  { env, idempotencyKey }: Call<unknown>,
): Promise<ReadonlySet<Candidate>> {
  const inQuestion = examined.filter(
    ({ report, admitted }) =>
      !admitted.ok && admitted.error.reason !== "no_meter" && (report.identifier ?? idempotencyKey) !== undefined,
  );
  const known = await perShard(
    inQuestion.map(({ candidate }) => candidate),
    (shard, candidates) => eventLog(env, shard).recall(candidates),
  );
  return new Set([...known].filter(([, outcome]) => isSameReport(outcome)).map(([candidate]) => candidate));
}

const isSameReport = (outcome: AppendOutcome | undefined): boolean =>
  outcome?.outcome === "accepted" || (outcome?.outcome === "duplicate" && outcome.sameReport);

const isTakenByAnother = (outcome: AppendOutcome | undefined): boolean =>
  outcome?.outcome === "duplicate" && !outcome.sameReport;

/** A refused event under a key of its own, which leaves the identifier free and makes a retry report it once. */
function toRejection(
  { candidate, meter }: Examined,
  refusal: StreamRefusal,
  { env, key, now }: Call<unknown>,
): NewRejection {
  const unique = `rejected:${candidate.key}:${candidate.reportDigest}`;
  return {
    ...candidate,
    id: newEventId(now),
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
function reportCode(refusal: StreamRefusal): string {
  switch (refusal.reason) {
    case "payload_no_customer_defined":
      return "meter_event_no_customer_defined";
    case "invalid_customer":
      return "meter_event_invalid_customer";
    case "invalid_dimension":
      return "meter_event_invalid_dimension";
    case "payload_no_value_defined":
      return "meter_event_value_not_found";
    case "payload_invalid_value":
      return hasTooManyDigits(refusal.value) ? "meter_event_value_too_many_digits" : "meter_event_invalid_value";
    case "no_meter":
    case "archived_meter":
    case "duplicate_meter_event":
    case "timestamp_in_future":
    case "timestamp_too_far_in_past":
      return refusal.reason;
  }
}

/** Appends entries, one call per shard; what came of each, by its id. Throws when a log does not answer. */
async function appendAll(entries: readonly NewEntry[], env: Env): Promise<Map<string, AppendOutcome>> {
  const outcomes = await perShard(entries, (shard, ofShard) => eventLog(env, shard).append(ofShard));
  return new Map([...outcomes].map(([{ id }, outcome]) => [id, outcome]));
}

/** Asks each shard once about all that is its own; the answers by what was asked. Throws when one is missing. */
async function perShard<E extends { readonly shard: number }, A>(
  entries: readonly E[],
  ask: (shard: number, entries: readonly E[]) => Promise<readonly A[]>,
): Promise<Map<E, A>> {
  const byShard = Map.groupBy(entries, ({ shard }) => shard);
  const answers = await Promise.all(
    [...byShard].map(async ([shard, ofShard]) => {
      const answered = await ask(shard, ofShard);
      if (answered.length !== ofShard.length) throw new Error("the log did not answer for every entry");
      return ofShard.map((entry, position) => [entry, answered[position] as A] as const);
    }),
  );
  return new Map(answers.flat());
}
