// What the server has in the end, compared with what it had acknowledged.
import { DAY_MS, HOUR_MS } from "../../../../src/domain/window.ts";
import { aLogEntry, aMeter } from "../../builders.ts";
import { fold } from "../../fold.ts";
import { list } from "./client.ts";
import { CUSTOMERS, FORMULAS, type Formula } from "./drawn.ts";
import type { Claim, Ledger, Report } from "./ledger.ts";

/** The ids of the meters. */
export type Meters = Readonly<Record<Formula, string>>;

/** An event as GET /v1/billing/meter_events lists it. Times in unix seconds. */
type StoredEvent = {
  readonly id: string;
  readonly identifier: string;
  readonly timestamp: number;
  readonly cancelled_at: number | null;
  readonly payload: { readonly ref?: string; readonly value?: string };
};

type Summary = { readonly id: string; readonly start_time: number; readonly aggregated_value: number | bigint };

type Pair = { readonly formula: Formula; readonly customer: string };

/** What the audit found; a line for each. */
export type Findings = {
  /** Acknowledged, and not there. */
  readonly lost: string[];
  /** There more than once. */
  readonly doubled: string[];
  /** Anything else that is not as it should be. */
  readonly wrong: string[];
  /** Summaries that were compared. */
  summaries: number;
};

/** Compares all that is stored, and every summary, with the ledger. Throws when the server does not answer. */
export async function audit(url: string, meters: Meters, { claims }: Ledger): Promise<Findings> {
  const found: Findings = { lost: [], doubled: [], wrong: [], summaries: 0 };
  const reports = new Map(claims.flatMap(({ reports }) => reports).map((report) => [report.ref, report] as const));
  const all: StoredEvent[] = [];
  for (const pair of FORMULAS.flatMap((formula) => CUSTOMERS.map((customer) => ({ formula, customer })))) {
    const query = { meter: meters[pair.formula], customer: pair.customer };
    const events = await list<StoredEvent>(url, "/v1/billing/meter_events", query);
    for (const event of events) {
      const isReported = isSame(event, reports.get(event.payload.ref ?? ""), pair);
      if (!isReported) found.wrong.push(`no request sent ${JSON.stringify(event)}`);
    }
    await auditSummaries(url, meters, pair, events, found);
    all.push(...events);
  }
  const stored = Map.groupBy(all, ({ payload }) => payload.ref);
  for (const claim of claims) {
    const events = claim.reports.flatMap(({ ref }) => stored.get(ref) ?? []);
    auditClaim(claim, events, found);
  }
  return found;
}

/** Whether the summaries of a customer on a meter are what its stored events make: of all hours, and of each. */
async function auditSummaries(
  url: string,
  meters: Meters,
  { formula, customer }: Pair,
  events: readonly StoredEvent[],
  found: Findings,
): Promise<void> {
  const end = Math.ceil(Date.now() / HOUR_MS) * HOUR_MS + HOUR_MS;
  const range = { start: end - 2 * DAY_MS, end };
  const query = { customer, start_time: String(range.start / 1_000), end_time: String(end / 1_000) };
  const counted = events
    .filter(({ cancelled_at }) => cancelled_at === null)
    .map(({ id, timestamp, payload }) =>
      aLogEntry({ id, customer, timestamp: timestamp * 1_000, value: Number(payload.value) }),
    );
  for (const [length, grouping] of [
    [range.end - range.start, {}],
    [HOUR_MS, { value_grouping_window: "hour" }],
  ] as const) {
    const path = `/v1/billing/meters/${meters[formula]}/event_summaries`;
    const read = await list<Summary>(url, path, { ...query, ...grouping });
    const said = read.map(({ start_time, aggregated_value }) => `${start_time}: ${aggregated_value}`);
    const due = fold(aMeter({ formula }), counted, range, length);
    const made = due.map(({ start, value }) => `${start / 1_000}: ${value}`);
    if (said.join() !== made.join()) {
      found.wrong.push(`${formula} of ${customer} says ${without(said, made)}; its events make ${without(made, said)}`);
    }
    found.summaries += read.length;
  }
}

/** The texts that are not among the others. */
const without = (texts: readonly string[], others: readonly string[]): string =>
  texts.filter((text) => !others.includes(text)).join(", ") || "no more";

/** Whether what is stored under a claim is what the responses said. */
function auditClaim(claim: Claim, stored: readonly StoredEvent[], { lost, doubled, wrong }: Findings): void {
  const { name, identifier, holder, acknowledged, cancelled, cancellers } = claim;
  if (stored.length > 1) doubled.push(`${name} is stored ${stored.length} times`);
  const [event] = stored;
  if (event === undefined) {
    if (acknowledged) lost.push(`${name} is not stored`);
    return;
  }
  const { ref } = event.payload;
  if (ref !== (holder?.ref ?? ref)) wrong.push(`${name} was accepted as ${holder?.ref}, stored as ${ref}`);
  if (event.identifier !== (identifier ?? event.identifier)) wrong.push(`${name} is stored as ${event.identifier}`);
  if (cancelled && event.cancelled_at === null) lost.push(`the cancellation of ${name} took no effect`);
  if (event.cancelled_at !== null && cancellers.size === 0) wrong.push(`no request cancelled ${name}`);
}

/** Whether a stored event says what was reported; a `count` meter ignores values. */
const isSame = ({ timestamp, payload }: StoredEvent, report: Report | undefined, pair: Pair): boolean =>
  report?.formula === pair.formula &&
  report.customer === pair.customer &&
  payload.value === String(report.value) &&
  (report.timestamp === undefined || report.timestamp === timestamp * 1_000);
