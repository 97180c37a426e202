// The kinds of requests: how each is written at its door, and what its answers say to the ledger.
import { randomUUID } from "node:crypto";
import { LOCAL_KEYS } from "../../../../scripts/local-keys.ts";
import type { Formula } from "./drawn.ts";
import type { Answer, HttpRequest, Verdict } from "./http.ts";
import type { Claim, Ledger, Report } from "./ledger.ts";

export type Door = "v1" | "v2";

/** A request with its story; sent again it is the same, key and all. */
export type Operation = {
  readonly path: string;
  readonly auth: "key" | "session";
  readonly type: "application/json" | "application/x-www-form-urlencoded";
  readonly body: string;
  readonly key: string | undefined;
  /** What a final answer means; not called for one that says that nobody knows. */
  readonly settle: (verdict: Verdict, answer: Answer, story: Operation) => void;
  /** How often it was taken up, by whoever sends it once more included. */
  runs: number;
  /** Attempts of which nobody can say what came. */
  unanswered: number;
  /** The first 200, or the first refusal for good. */
  first: Answer | undefined;
};

/** An event under its claim, as one request names it. */
export type Sending = { readonly claim: Claim; readonly report: Report; readonly identifier: string | undefined };

export const newKey = (hasKey = true): string | undefined => (hasKey ? `key_${randomUUID()}` : undefined);

/** Event names and formulas are the same words. */
const eventNameOf = (formula: Formula): string => formula;

const payloadOf = ({ customer, value, ref }: Report): Record<string, string> => ({
  stripe_customer_id: customer,
  value: String(value),
  ref,
});

/** A v2 event; absent fields are left out by JSON.stringify. */
const v2Event = ({ report, identifier }: Sending): object => ({
  event_name: eventNameOf(report.formula),
  payload: payloadOf(report),
  identifier,
  timestamp: report.timestamp === undefined ? undefined : new Date(report.timestamp).toISOString(),
});

function v1Event({ report, identifier }: Sending): string {
  const form = new URLSearchParams({ event_name: eventNameOf(report.formula) });
  for (const [name, value] of Object.entries(payloadOf(report))) form.set(`payload[${name}]`, value);
  if (identifier !== undefined) form.set("identifier", identifier);
  if (report.timestamp !== undefined) form.set("timestamp", String(report.timestamp / 1_000));
  return form.toString();
}

const fresh = { runs: 0, unanswered: 0, first: undefined } as const;
const JSON_BODY = { type: "application/json", auth: "key" } as const;
const FORM_BODY = { type: "application/x-www-form-urlencoded", auth: "key" } as const;

/** Whether only this operation itself can have brought about what it is told is there already. */
const isAlone = ({ runs, unanswered }: Operation): boolean => runs === 1 && unanswered === 0;

/** One event, at either door. */
export function eventOperation(ledger: Ledger, door: Door, sending: Sending, key: string | undefined): Operation {
  const { claim, report } = sending;
  const settle: Operation["settle"] = (verdict, answer, story) => {
    const only = claim.reports.length === 1;
    if (verdict === "ok") {
      ledger.accepted(claim, report, JSON.parse(answer.text).identifier);
      checkRepeat(ledger, answer, story);
    } else if (verdict === "duplicate") {
      // With its key a retry is told the first answer again, and before any attempt there was nothing to meet.
      if (only && (key !== undefined || isAlone(story))) ledger.problem(`${claim.name} is a duplicate of nothing`);
      ledger.taken(claim);
    } else {
      ledger.problem(`${claim.name} was refused: ${answer.text}`);
    }
  };
  const written =
    door === "v1" ? { ...FORM_BODY, body: v1Event(sending) } : { ...JSON_BODY, body: JSON.stringify(v2Event(sending)) };
  return { ...fresh, ...written, path: `/${door}/billing/meter_events`, key, settle };
}

/** Another event under the key of one that was accepted, which must be refused. */
export function reusedKeyOperation(ledger: Ledger, door: Door, sending: Sending, key: string): Operation {
  const settle: Operation["settle"] = (verdict, { text }) => {
    if (verdict === "ok") ledger.double(`${sending.claim.name} was accepted again, as another event: ${text}`);
    else if (verdict !== "key_reused") ledger.problem(`${sending.claim.name}, reused, was refused with ${text}`);
  };
  return { ...eventOperation(ledger, door, sending, key), settle };
}

/** Events over a stream, whose answer says only that each is stored, by this request or by an earlier one. */
export function streamOperation(ledger: Ledger, sendings: readonly Sending[], key: string | undefined): Operation {
  const settle: Operation["settle"] = (verdict, answer) => {
    if (verdict === "ok") for (const { claim } of sendings) ledger.taken(claim);
    else ledger.problem(`a stream was refused: ${answer.text}`);
  };
  const body = JSON.stringify({ events: sendings.map(v2Event) });
  return { ...fresh, ...JSON_BODY, auth: "session", path: "/v2/billing/meter_event_stream", body, key, settle };
}

/** The cancellation of an event that is stored for sure. */
export function cancelOperation(ledger: Ledger, door: Door, claim: Claim, key: string | undefined): Operation {
  const self = {};
  claim.cancellers.add(self);
  const settle: Operation["settle"] = (verdict, answer, story) => {
    if (verdict === "ok") {
      ledger.cancelled(claim, self);
      checkRepeat(ledger, answer, story);
    } else if (verdict === "already_cancelled") {
      const only = claim.cancellers.size === 1;
      if (only && (key !== undefined || isAlone(story))) ledger.problem(`${claim.name} was cancelled by nobody`);
      claim.cancelled = true;
    } else {
      ledger.problem(`the cancellation of ${claim.name} was refused: ${answer.text}`);
    }
  };
  const { holder, identifier = "" } = claim;
  const event_name = eventNameOf(holder?.formula ?? "sum");
  const written =
    door === "v1"
      ? {
          ...FORM_BODY,
          body: new URLSearchParams({ event_name, type: "cancel", "cancel[identifier]": identifier }).toString(),
        }
      : { ...JSON_BODY, body: JSON.stringify({ event_name, type: "cancel", cancel: { identifier } }) };
  return { ...fresh, ...written, path: `/${door}/billing/meter_event_adjustments`, key, settle };
}

/** The same request was answered with 200 before: with its key it is told the same again, without one it is refused. */
function checkRepeat(ledger: Ledger, { text }: Answer, { first, key, path }: Operation): void {
  if (first?.status !== 200) return;
  if (key === undefined) ledger.double(`${path} took the same twice: ${text}`);
  else if (text !== first.text) ledger.problem(`${path} answered ${first.text}, then ${text}`);
}

/** An operation as it goes over the wire; `token`: of the session that streams need. */
export const toHttp = ({ path, auth, type, body, key }: Operation, token: string): HttpRequest => ({
  path,
  body,
  headers: {
    authorization: `Bearer ${auth === "session" ? token : LOCAL_KEYS.test}`,
    "content-type": type,
    ...(key === undefined ? {} : { "idempotency-key": key }),
  },
});
