// The kinds of requests: how each is written, and what its responses say to the ledger.
import { randomUUID } from "node:crypto";
import type { Answer, Call, Verdict } from "./client.ts";
import type { Claim, Ledger, Report } from "./ledger.ts";

export type Version = "v1" | "v2";

/** A request with its story; sent again it is the same, key and all. */
export type Operation = Call & {
  readonly body: object;
  /** What a final response means; not called for one that leaves unknown what came of the request. */
  readonly settle: (verdict: Verdict, answer: Answer, story: Operation) => void;
  /** How often it was taken up, each time it is sent once more included. */
  runs: number;
  /** Attempts of which it is unknown what came. */
  unanswered: number;
  /** The first 200, or the first refusal for good. */
  first: Answer | undefined;
};

/** An event under its claim, as one request names it. */
export type Sending = { readonly claim: Claim; readonly report: Report; readonly identifier: string | undefined };

export const STREAM = "/v2/billing/meter_event_stream";

export const newKey = (hasKey = true): string | undefined => (hasKey ? `key_${randomUUID()}` : undefined);

const anOperation = (path: string, body: object, key: string | undefined, settle: Operation["settle"]): Operation => ({
  path,
  body,
  key,
  settle,
  runs: 0,
  unanswered: 0,
  first: undefined,
});

/** The fields of an event; absent ones are left out when it is written. */
const fieldsOf = ({ report, identifier }: Sending, version: Version): object => {
  const { formula, customer, value, ref, timestamp } = report;
  const seconds = timestamp === undefined ? undefined : timestamp / 1_000;
  return {
    event_name: formula,
    payload: { stripe_customer_id: customer, value: String(value), ref },
    identifier,
    timestamp: version === "v1" || timestamp === undefined ? seconds : new Date(timestamp).toISOString(),
  };
};

/**
 * Whether only this operation itself can have brought about what it is told is there already. With its key a retry is
 * told its first answer again, and before any attempt there was nothing to meet.
 */
const isUnexplained = (isOnly: boolean, { key, runs, unanswered }: Operation): boolean =>
  isOnly && (key !== undefined || (runs === 1 && unanswered === 0));

/** One event, of either API version. */
export function eventOperation(ledger: Ledger, version: Version, sending: Sending, key: string | undefined): Operation {
  const { claim, report } = sending;
  return anOperation(
    `/${version}/billing/meter_events`,
    fieldsOf(sending, version),
    key,
    (verdict, answer, story): void => {
      if (verdict === "ok") {
        ledger.accepted(claim, report, JSON.parse(answer.text).identifier);
        checkRepeat(ledger, answer, story);
      } else if (verdict === "duplicate") {
        if (isUnexplained(claim.reports.length === 1, story)) ledger.problem(`${claim.name} is a duplicate of nothing`);
        ledger.taken(claim);
      } else {
        ledger.problem(`${claim.name} was refused: ${answer.text}`);
      }
    },
  );
}

/** Another event under the key of one that was accepted, which must be refused. */
export function reusedKeyOperation(ledger: Ledger, version: Version, sending: Sending, key: string): Operation {
  const settle: Operation["settle"] = (verdict, { text }) => {
    if (verdict === "ok") ledger.double(`${sending.claim.name} was accepted again, as another event: ${text}`);
    else if (verdict !== "key_reused") ledger.problem(`${sending.claim.name}, reused, was refused with ${text}`);
  };
  return { ...eventOperation(ledger, version, sending, key), settle };
}

/** Events over a stream, whose response says only that each is stored, by this request or by an earlier one. */
export const streamOperation = (ledger: Ledger, sendings: readonly Sending[], key: string | undefined): Operation =>
  anOperation(STREAM, { events: sendings.map((sending) => fieldsOf(sending, "v2")) }, key, (verdict, { text }) => {
    if (verdict === "ok") for (const { claim } of sendings) ledger.taken(claim);
    else ledger.problem(`a stream was refused: ${text}`);
  });

/** The cancellation of an event that is stored for sure. */
export function cancelOperation(ledger: Ledger, version: Version, claim: Claim, key: string | undefined): Operation {
  const canceller = {};
  claim.cancellers.add(canceller);
  const { holder, identifier } = claim;
  const body = { event_name: holder?.formula ?? "sum", type: "cancel", cancel: { identifier } };
  return anOperation(`/${version}/billing/meter_event_adjustments`, body, key, (verdict, answer, story) => {
    if (verdict === "ok") {
      ledger.cancelled(claim, canceller);
      checkRepeat(ledger, answer, story);
    } else if (verdict === "already_cancelled") {
      if (isUnexplained(claim.cancellers.size === 1, story)) ledger.problem(`no request cancelled ${claim.name}`);
      claim.cancelled = true;
    } else {
      ledger.problem(`the cancellation of ${claim.name} was refused: ${answer.text}`);
    }
  });
}

/** The same request was answered with 200 before: with its key it is told the same again, without one it is refused. */
function checkRepeat(ledger: Ledger, { text }: Answer, { first, key, path }: Operation): void {
  if (first?.status !== 200) return;
  if (key === undefined) ledger.double(`${path} took the same twice: ${text}`);
  else if (text !== first.text) ledger.problem(`${path} answered ${first.text}, then ${text}`);
}
