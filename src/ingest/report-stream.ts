import { findMetersForEvents } from "../catalog/meters.ts";
import { refusedEventsAllowed } from "../catalog/rate-limits.ts";
import type { MeteringError } from "../domain/errors.ts";
import { type AdmittedEvent, admit, type EventReport, type Refusal, reportDigest } from "../domain/event.ts";
import { digest, identifierOfKey, newEventId, newIdentifier, orderAt, placedAt } from "../domain/identifiers.ts";
import type { Meter } from "../domain/meter.ts";
import type { Placement } from "../domain/placement.ts";
import { err, ok, type Result } from "../domain/result.ts";
import type { Env } from "../env.ts";
import type { Append, AppendOutcome, RejectionAppend } from "../log/entries.ts";
import { eventLog, shardOf } from "../log/shards.ts";
import type { Caller } from "./caller.ts";
import { type Claimed, checkDeployment, claimKey, isCallersKey, placeOf } from "./identity.ts";
import type { Candidate } from "./report-event.ts";

/** A report of a stream, its meter, and what the rules said of it. */
type Examined = {
  readonly report: EventReport;
  readonly meter: Meter | undefined;
  readonly admitted: Result<AdmittedEvent, Refusal>;
};

/** An examined report on its way into the log. */
type ExaminedCandidate = Examined & { readonly candidate: Candidate };

/** Why a report of a stream counts nowhere. */
export type StreamRefusal = Refusal | Extract<MeteringError, { reason: "duplicate_meter_event" }>;

/** What an error report says of a refusal. */
export type Describe = (refusal: StreamRefusal) => Pick<RejectionAppend["rejection"], "code" | "message">;

/**
 * The way of a stream's events at the edge: each is admitted, or becomes a rejection on its way to an
 * error report, in the words of `describe`; all of them are durable when this succeeds. No customer's turn is
 * taken: the log alone makes them unique. Events of one request are in receipt order as they stand in it.
 *
 * Yields `setting_changed`, `databases_changed`, `idempotency_key_reused`, `rate_limited` for too many refused events before any is
 * stored, and `log_full` also when other shards took their part: the whole can be sent again, since what is
 * there is recognised.
 */
export async function reportStream(
  reports: readonly EventReport[],
  caller: Caller,
  describe: Describe,
): Promise<Result<void, MeteringError>> {
  const deployment = await checkDeployment(caller);
  if (!deployment.ok) return deployment;
  const examined = await examine(reports, caller);
  const claimed = await claim(examined, caller);
  if (!claimed.ok) return claimed;
  const candidates = examined.map((each, position) => ({
    ...each,
    candidate: candidateOf(each.report, position, claimed.value, caller),
  }));
  return store(candidates, deployment.value, caller, describe);
}

/** What the rules say of each report, its meter looked up once for all of one name. */
async function examine(
  reports: readonly EventReport[],
  { env, key, execution, now }: Caller,
): Promise<readonly Examined[]> {
  const names = [...new Set(reports.map(({ eventName }) => eventName))];
  const meters = await findMetersForEvents(env.DB, key.livemode, names, execution);
  return reports.map((report) => {
    const meter = meters.get(report.eventName);
    return { report, meter, admitted: admit(report, meter, now) };
  });
}

/**
 * Claims the request's Idempotency-Key. One that an SDK made is claimed where the order of the events matters:
 * the retry of a request of which a part was stored then gives the rest the places that they had.
 */
function claim(examined: readonly Examined[], caller: Caller): Promise<Result<Claimed | undefined, MeteringError>> {
  const requestDigest = digest(caller.endpoint, ...examined.map(({ report }) => reportDigest(report)));
  const alsoMadeBySdk = examined.some(({ admitted }) => admitted.ok && admitted.value.aggregation !== "additive");
  return claimKey(requestDigest, caller, { alsoMadeBySdk });
}

/** Where a report goes in the log. Its Idempotency-Key was claimed for the whole request, so its row needs none. */
function candidateOf(report: EventReport, position: number, claimed: Claimed | undefined, caller: Caller): Candidate {
  const made = newEventId(caller.now);
  const id = claimed === undefined ? made : placedAt(orderAt(claimed.at) + position, made);
  const identifier = report.identifier ?? identifierAt(position, claimed, caller);
  return { ...placeOf(identifier, caller), id, identifier, reportDigest: reportDigest(report), claims: false };
}

/** The identifier of an event without one. A caller's key names other events once its claim has expired and it is claimed anew. */
function identifierAt(position: number, claimed: Claimed | undefined, { key, idempotencyKey }: Caller): string {
  if (idempotencyKey === undefined) return newIdentifier();
  const since = claimed !== undefined && isCallersKey(idempotencyKey) ? [String(claimed.at)] : [];
  return identifierOfKey(key.livemode, idempotencyKey, String(position), ...since);
}

async function store(
  candidates: readonly ExaminedCandidate[],
  placement: Placement,
  caller: Caller,
  describe: Describe,
): Promise<Result<void, MeteringError>> {
  const { env, key } = caller;
  const acceptedBefore = await acceptedEarlier(candidates, caller);
  const entries = candidates.flatMap((each): Append[] => {
    const { candidate, admitted } = each;
    if (admitted.ok) return [{ ...candidate, kind: "event", apiKey: key.number, event: admitted.value }];
    return acceptedBefore.has(candidate) ? [] : [toRejection(each, describe(admitted.error), caller)];
  });
  const refused = entries.filter(({ kind }) => kind === "rejection").length;
  if (!(await refusedEventsAllowed(env, key.id, refused))) return err({ reason: "rate_limited" });
  const outcomes = await appendAll(entries, placement, env);
  const taken = candidates.filter(({ candidate }) => isTakenByAnother(outcomes.get(candidate.id)));
  const duplicates = taken.map((each) =>
    toRejection(each, describe({ reason: "duplicate_meter_event", identifier: each.candidate.identifier }), caller),
  );
  const reported = await appendAll(duplicates, placement, env);
  // The request's events are stored by now, so these count against the requests that follow.
  await refusedEventsAllowed(env, key.id, duplicates.length);
  const isFull = [...outcomes.values(), ...reported.values()].some(({ outcome }) => outcome === "full");
  return isFull ? err({ reason: "log_full" }) : ok(undefined);
}

/**
 * Which of the refused reports were accepted by an earlier attempt, when the time or the meter was another.
 * A name without any meter never had one.
 */
async function acceptedEarlier(
  candidates: readonly ExaminedCandidate[],
  { env, idempotencyKey }: Caller,
): Promise<ReadonlySet<Candidate>> {
  const inQuestion = candidates.filter(
    ({ report, admitted }) =>
      !admitted.ok && admitted.error.reason !== "no_meter" && (report.identifier ?? idempotencyKey) !== undefined,
  );
  const known = await perShard(
    inQuestion.map(({ candidate }) => candidate),
    (shard, ofShard) => eventLog(env, shard).recall(ofShard),
  );
  return new Set([...known].filter(([, outcome]) => isSameReport(outcome)).map(([candidate]) => candidate));
}

const isSameReport = (outcome: AppendOutcome | undefined): boolean =>
  outcome?.outcome === "accepted" || (outcome?.outcome === "duplicate" && outcome.sameReport);

const isTakenByAnother = (outcome: AppendOutcome | undefined): boolean =>
  outcome?.outcome === "duplicate" && !outcome.sameReport;

/**
 * A refused event under a key of its own, which leaves the identifier free and makes a retry report it once. A
 * refusal for another reason is reported too.
 */
function toRejection(
  { candidate, meter }: ExaminedCandidate,
  { code, message }: ReturnType<Describe>,
  { env, key, now }: Caller,
): RejectionAppend {
  const unique = `rejected:${candidate.key}:${candidate.reportDigest}:${code}`;
  return {
    ...candidate,
    kind: "rejection",
    id: newEventId(now),
    key: unique,
    shard: shardOf(env, key.livemode, unique),
    rejection: { livemode: key.livemode, meter: meter?.id ?? null, code, message },
  };
}

/** Appends entries, one call per shard; what came of each, by its id. Throws when a log does not answer. */
async function appendAll(
  entries: readonly Append[],
  placement: Placement,
  env: Env,
): Promise<Map<string, AppendOutcome>> {
  const outcomes = await perShard(entries, (shard, ofShard) => eventLog(env, shard).append(ofShard, placement));
  return new Map([...outcomes].flatMap(([entry, outcome]) => (entry.kind === "claim" ? [] : [[entry.id, outcome]])));
}

/** Asks each shard once about all that is its own; the responses by what was asked. Throws when one is missing. */
async function perShard<E extends { readonly shard: string }, A>(
  entries: readonly E[],
  ask: (shard: string, entries: readonly E[]) => Promise<readonly A[]>,
): Promise<Map<E, A>> {
  const byShard = Map.groupBy(entries, ({ shard }) => shard);
  const responses = await Promise.all(
    [...byShard].map(async ([shard, ofShard]) => {
      const outcomes = await ask(shard, ofShard);
      if (outcomes.length !== ofShard.length) throw new Error("the log did not answer for every entry");
      return ofShard.map((entry, position) => [entry, outcomes[position] as A] as const);
    }),
  );
  return new Map(responses.flat());
}
