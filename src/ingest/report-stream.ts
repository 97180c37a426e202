import { findMetersForEvents } from "../catalog/meters.ts";
import { refusedEventsAllowed } from "../catalog/rate-limits.ts";
import type { MeteringError } from "../domain/errors.ts";
import { type AdmittedEvent, admit, type EventReport, type Refusal, reportDigest } from "../domain/event.ts";
import { digest, identifierOfKey, newEventId, newIdentifier, orderAt, placedAt } from "../domain/identifiers.ts";
import type { Meter } from "../domain/meter.ts";
import { err, ok, type Result } from "../domain/result.ts";
import type { Env } from "../env.ts";
import { appendAll, recallAll } from "../log/calls.ts";
import type { Append, AppendOutcome, LogContext, RejectionAppend } from "../log/entries.ts";
import type { Caller } from "./caller.ts";
import { type Claimed, claimKey, isCallersKey, keyOf, logOf } from "./identity.ts";
import type { Candidate } from "./report-event.ts";

/** A report of a stream, its digest and its meter, and what the rules said of it. */
type Examined = {
  readonly report: EventReport;
  readonly digest: string;
  readonly meter: Meter | undefined;
  readonly admitted: Result<AdmittedEvent, Refusal>;
};

/** An examined report on its way into the log. */
type ExaminedCandidate = Examined & { readonly candidate: Candidate };

/** A report that counts nowhere, and why. */
type Refused = ExaminedCandidate & { readonly refusal: StreamRefusal };

/** Why a report of a stream counts nowhere. */
export type StreamRefusal = Refusal | Extract<MeteringError, { reason: "duplicate_meter_event" }>;

/** What an error report says of a refusal. */
export type Describe = (refusal: StreamRefusal) => Pick<RejectionAppend["rejection"], "code" | "message">;

/**
 * What became of a report of a stream:
 * - `accepted`: stored, now or by an earlier attempt under the same Idempotency-Key;
 * - `accepted_before`: the same report was accepted before, from another request or twice in this one;
 * - `refused`: it counts nowhere.
 */
export type StreamOutcome =
  | { readonly outcome: "accepted" | "accepted_before"; readonly identifier: string }
  | { readonly outcome: "refused"; readonly refusal: StreamRefusal };

/**
 * The way of a stream's events at the edge: each is admitted, or refused. A refused one becomes a rejection on its
 * way to an error report, in the words of `describe`; without it, the outcomes alone tell the caller. They are in the
 * order of the reports. Everything is durable when this succeeds. No customer's turn is taken: the log alone makes
 * events unique. Events of one request are in receipt order as they stand in it.
 *
 * Yields `setting_changed`, `databases_changed`, `idempotency_key_reused`, `rate_limited` for too many refused events before any is
 * stored, and `log_full` also when other shards took their part: the whole can be sent again, since what is
 * there is recognised.
 */
export async function reportStream(
  reports: readonly EventReport[],
  caller: Caller,
  describe: Describe | undefined,
): Promise<Result<readonly StreamOutcome[], MeteringError>> {
  const log = await logOf(caller);
  if (!log.ok) return log;
  const examined = await examine(reports, caller);
  const claimed = await claim(examined, caller);
  if (!claimed.ok) return claimed;
  const candidates = examined.map((each, position) => {
    const candidate = candidateOf(each, position, claimed.value, caller);
    if (describe !== undefined) return { ...each, candidate };
    return { ...each, candidate: { ...candidate, keyDigest: keyDigestAt(position, caller) } };
  });
  return store(candidates, log.value, caller, describe);
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
    return { report, digest: reportDigest(report), meter, admitted: admit(report, meter, now) };
  });
}

/**
 * Claims the request's Idempotency-Key. One that an SDK made is claimed where the order of the events matters:
 * the retry of a request of which a part was stored then gives the rest the places that they had.
 */
function claim(examined: readonly Examined[], caller: Caller): Promise<Result<Claimed | undefined, MeteringError>> {
  const requestDigest = () => digest(caller.endpoint, ...examined.map((each) => each.digest));
  const alsoMadeBySdk = examined.some(({ admitted }) => admitted.ok && admitted.value.aggregation !== "additive");
  return claimKey(requestDigest, caller, { alsoMadeBySdk });
}

/**
 * By what the log knows a report again that an earlier attempt of its request brought. It is kept only where the
 * caller is told of each event: to ignore a report, it is enough that it was accepted before.
 */
const keyDigestAt = (position: number, { idempotencyKey }: Caller): string | undefined =>
  idempotencyKey === undefined ? undefined : digest(idempotencyKey, String(position));

/** Where a report goes in the log. Its Idempotency-Key was claimed for the whole request, so it is no claim. */
function candidateOf(examined: Examined, position: number, claimed: Claimed | undefined, caller: Caller): Candidate {
  const { report } = examined;
  const made = newEventId(caller.now);
  const id = claimed === undefined ? made : placedAt(orderAt(claimed.at) + position, made);
  const identifier = report.identifier ?? identifierAt(position, claimed, caller);
  return { key: keyOf(identifier, caller), id, identifier, reportDigest: examined.digest, claims: false };
}

/** The identifier of an event without one. A caller's key names other events once its claim has expired and it is claimed anew. */
function identifierAt(position: number, claimed: Claimed | undefined, { key, idempotencyKey }: Caller): string {
  if (idempotencyKey === undefined) return newIdentifier();
  const since = claimed !== undefined && isCallersKey(idempotencyKey) ? [String(claimed.at)] : [];
  return identifierOfKey(key.livemode, idempotencyKey, String(position), ...since);
}

async function store(
  candidates: readonly ExaminedCandidate[],
  log: LogContext,
  caller: Caller,
  describe: Describe | undefined,
): Promise<Result<readonly StreamOutcome[], MeteringError>> {
  const { env, key } = caller;
  const before = await acceptedEarlier(candidates, log, caller);
  const refused = candidates.flatMap((each): Refused[] =>
    each.admitted.ok || before.has(each.candidate) ? [] : [{ ...each, refusal: each.admitted.error }],
  );
  const isReportable = describe === undefined || (await refusedEventsAllowed(env, key.id, refused.length));
  if (!isReportable) return err({ reason: "rate_limited" });
  const toRejections = (ofReports: readonly Refused[]): Append[] =>
    describe === undefined ? [] : ofReports.map((each) => toRejection(each, describe(each.refusal), caller));
  const events = candidates.flatMap(({ candidate, admitted }): Append[] =>
    admitted.ok ? [{ ...candidate, kind: "event", apiKey: key.number, event: admitted.value }] : [],
  );
  const outcomes = await appendTo(log, [...events, ...toRejections(refused)], env);
  const duplicates = candidates
    .filter(({ candidate }) => isTakenByAnother(outcomes.get(candidate.id)))
    .map((each): Refused => ({ ...each, refusal: duplicateOf(each.candidate) }));
  const reported = await appendTo(log, toRejections(duplicates), env);
  // The request's events are stored by now, so these count against the requests that follow.
  if (describe !== undefined) await refusedEventsAllowed(env, key.id, duplicates.length);
  const isFull = [...outcomes.values(), ...reported.values()].some(({ outcome }) => outcome === "full");
  if (isFull) return err({ reason: "log_full" });
  const refusals = new Map([...refused, ...duplicates].map(({ candidate, refusal }) => [candidate, refusal]));
  return ok(
    candidates.map(({ candidate }) =>
      toOutcome(candidate, refusals.get(candidate), outcomes.get(candidate.id) ?? before.get(candidate)),
    ),
  );
}

function toOutcome(
  { identifier }: Candidate,
  refusal: StreamRefusal | undefined,
  logged: AppendOutcome | undefined,
): StreamOutcome {
  if (refusal !== undefined) return { outcome: "refused", refusal };
  return { outcome: logged?.outcome === "accepted" ? "accepted" : "accepted_before", identifier };
}

/**
 * What became earlier of those refused reports that were accepted then, when the time or the meter was another.
 * A name without any meter never had one.
 */
async function acceptedEarlier(
  candidates: readonly ExaminedCandidate[],
  log: LogContext,
  { env, idempotencyKey }: Caller,
): Promise<ReadonlyMap<Candidate, AppendOutcome>> {
  const inQuestion = candidates.filter(
    ({ report, admitted }) =>
      !admitted.ok && admitted.error.reason !== "no_meter" && (report.identifier ?? idempotencyKey) !== undefined,
  );
  const known = await recallAll(
    env,
    log,
    inQuestion.map(({ candidate }) => candidate),
  );
  return new Map(
    [...known].flatMap(([candidate, outcome]) =>
      outcome !== undefined && isSameReport(outcome) ? [[candidate, outcome] as const] : [],
    ),
  );
}

const isSameReport = (outcome: AppendOutcome): boolean =>
  outcome.outcome === "accepted" || (outcome.outcome === "duplicate" && outcome.sameReport);

const duplicateOf = ({ identifier }: Candidate): StreamRefusal => ({ reason: "duplicate_meter_event", identifier });

const isTakenByAnother = (outcome: AppendOutcome | undefined): boolean =>
  outcome?.outcome === "duplicate" && !outcome.sameReport;

/**
 * A refused event under a key of its own, which leaves the identifier free and makes a retry report it once. A
 * refusal for another reason is reported too.
 */
function toRejection(
  { candidate, meter }: Refused,
  { code, message }: ReturnType<Describe>,
  { key, now }: Caller,
): RejectionAppend {
  const unique = `rejected:${candidate.key}:${candidate.reportDigest}:${code}`;
  return {
    ...candidate,
    kind: "rejection",
    id: newEventId(now),
    key: unique,
    rejection: { livemode: key.livemode, meter: meter?.id ?? null, code, message },
  };
}

/** Appends entries; what came of each, by its id. Throws when a log does not answer. */
async function appendTo(log: LogContext, entries: readonly Append[], env: Env): Promise<Map<string, AppendOutcome>> {
  const outcomes = await appendAll(env, log, entries);
  return new Map([...outcomes].flatMap(([entry, outcome]) => (entry.kind === "claim" ? [] : [[entry.id, outcome]])));
}
