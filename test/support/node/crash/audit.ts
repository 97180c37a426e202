// What the server has in the end, compared with what it had acknowledged.

import { HOUR_MS } from "../../../../src/domain/window.ts";
import type { LoggedEvent } from "../../../../src/log/groups.ts";
import { aLoggedEvent, aMeter } from "../../builders.ts";
import { fold } from "../../fold.ts";
import { everyHour, type Meters, type StoredEvent, storedEvents, summaries } from "./api.ts";
import { CUSTOMERS, FORMULAS, type Formula } from "./drawn.ts";
import type { Claim, Ledger, Report } from "./ledger.ts";

type Pair = { readonly formula: Formula; readonly customer: string };

const PAIRS = FORMULAS.flatMap((formula) => CUSTOMERS.map((customer): Pair => ({ formula, customer })));

/** What the audit found; a line for each. */
type Found = {
  /** Acknowledged, and not there. */
  readonly lost: string[];
  /** There more than once. */
  readonly doubled: string[];
  /** Anything else that is not as it should be. */
  readonly wrong: string[];
  /** Summaries that were compared. */
  summaries: number;
};

export type Findings = Readonly<Found>;

/** Compares all that is stored, and every summary, with the ledger. Throws when the server does not answer. */
export async function audit(url: string, meters: Meters, ledger: Ledger): Promise<Findings> {
  const found: Found = { lost: [], doubled: [], wrong: [], summaries: 0 };
  const reports = new Map(
    ledger.claims.flatMap(({ reports }) => reports).map((report) => [report.ref, report] as const),
  );
  const stored = new Map<string, StoredEvent[]>();
  for (const pair of PAIRS) {
    const events = await storedEvents(url, meters[pair.formula], pair.customer);
    for (const event of events) {
      const { ref = "" } = event.payload;
      stored.set(ref, [...(stored.get(ref) ?? []), event]);
      if (!isSame(event, reports.get(ref), pair)) found.wrong.push(`nobody sent ${JSON.stringify(event)}`);
    }
    await auditSummaries(url, meters, pair, counted(events, pair), found);
  }
  for (const claim of ledger.claims)
    auditClaim(
      claim,
      claim.reports.flatMap(({ ref }) => stored.get(ref) ?? []),
      found,
    );
  return found;
}

/** Whether the summaries of a customer on a meter are what its stored events make. */
async function auditSummaries(
  url: string,
  meters: Meters,
  { formula, customer }: Pair,
  events: readonly LoggedEvent[],
  found: Found,
): Promise<void> {
  const range = everyHour(Date.now());
  for (const grouping of ["none", "hour"] as const) {
    const read = await summaries(url, meters[formula], customer, range, grouping);
    const due = fold(aMeter({ formula }), events, range, grouping === "none" ? range.end - range.start : HOUR_MS);
    const said = read.map(({ start_time, aggregated_value }) => `${start_time}: ${aggregated_value}`);
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

/** Whether what is stored under a claim is what the answers said. */
function auditClaim(claim: Claim, stored: readonly StoredEvent[], { lost, doubled, wrong }: Found): void {
  const { name, identifier, holder, acknowledged, cancelled, cancellers } = claim;
  if (stored.length > 1) doubled.push(`${name} is stored ${stored.length} times`);
  const [event] = stored;
  if (event === undefined) {
    if (acknowledged) lost.push(`${name} is not stored`);
    return;
  }
  const { ref } = event.payload;
  if (holder !== undefined && ref !== holder.ref) wrong.push(`${name} was accepted as ${holder.ref}, stored as ${ref}`);
  if (identifier !== undefined && event.identifier !== identifier)
    wrong.push(`${name} is stored as ${event.identifier}`);
  if (cancelled && event.cancelled_at === null) lost.push(`the cancellation of ${name} took no effect`);
  if (event.cancelled_at !== null && cancellers.size === 0) wrong.push(`nobody cancelled ${name}`);
}

/** Whether a stored event says what was reported; a `count` meter ignores values. */
const isSame = (
  { timestamp, payload }: StoredEvent,
  report: Report | undefined,
  { formula, customer }: Pair,
): boolean =>
  report !== undefined &&
  report.formula === formula &&
  report.customer === customer &&
  payload.value === String(report.value) &&
  (report.timestamp === undefined || report.timestamp === timestamp * 1_000);

/** The events that count, as the naive fold takes them. */
const counted = (events: readonly StoredEvent[], { customer }: Pair): LoggedEvent[] =>
  events
    .filter(({ cancelled_at }) => cancelled_at === null)
    .map(({ id, timestamp, payload }) =>
      aLoggedEvent({ id, customer, timestamp: timestamp * 1_000, value: Number(payload.value) }),
    );
