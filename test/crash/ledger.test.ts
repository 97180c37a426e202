// The crash harness itself: what it takes from answers, so that it can find what a server does wrong.
import { expect, it } from "vitest";
import type { Answer, Verdict } from "../support/node/crash/http.ts";
import { type Claim, Ledger, type Report } from "../support/node/crash/ledger.ts";
import {
  cancelOperation,
  eventOperation,
  type Operation,
  reusedKeyOperation,
  streamOperation,
} from "../support/node/crash/operations.ts";

let made = 0;

/** A new report of 7 under a claim. */
function aReport(claim: Claim): Report {
  const report: Report = { ref: `ref_${++made}`, formula: "sum", customer: "cus_1", value: 7, timestamp: undefined };
  claim.reports.push(report);
  return report;
}

/** A ledger with one claim, `id_1`. */
function aLedger(): { ledger: Ledger; claim: Claim } {
  const ledger = new Ledger();
  return { ledger, claim: ledger.claim("id_1", "id_1") };
}

const anEvent = (ledger: Ledger, claim: Claim, key?: string): Operation =>
  eventOperation(ledger, "v2", { claim, report: aReport(claim), identifier: claim.identifier }, key);

/** What the load does when an answer has come. */
function answer(operation: Operation, verdict: Verdict, text = '{"identifier":"id_1"}'): void {
  const given: Answer = { status: verdict === "ok" ? 200 : 400, text, retry: false };
  operation.runs = Math.max(1, operation.runs);
  operation.settle(verdict, given, operation);
  operation.first ??= given;
}

it("counts an identifier that was accepted as two events as doubled", () => {
  const { ledger, claim } = aLedger();
  answer(anEvent(ledger, claim), "ok");
  expect(ledger.doubled).toBe(0);
  answer(anEvent(ledger, claim, "key_2"), "ok");
  expect(ledger.doubled).toBe(1);
});

it("counts a request without a key that was accepted twice as doubled, one with a key not", () => {
  const { ledger, claim } = aLedger();
  const keyed = anEvent(ledger, claim, "key_1");
  for (const _ of [1, 2]) answer(keyed, "ok");
  expect(ledger.doubled).toBe(0);
  const other = ledger.claim("id_2", undefined);
  const keyless = anEvent(ledger, other);
  for (const _ of [1, 2]) answer(keyless, "ok");
  expect(ledger.doubled).toBe(1);
});

it("finds a retry under a key that is answered otherwise than at first", () => {
  const { ledger, claim } = aLedger();
  const event = anEvent(ledger, claim, "key_1");
  answer(event, "ok", '{"identifier":"id_1","created":"now"}');
  answer(event, "ok", '{"identifier":"id_1","created":"later"}');
  expect(ledger.problems).toHaveLength(1);
});

it("takes a duplicate for an acknowledgement when an attempt without a key was not answered", () => {
  const { ledger, claim } = aLedger();
  const event = anEvent(ledger, claim);
  event.unanswered = 1;
  answer(event, "duplicate");
  expect(claim).toMatchObject({ acknowledged: true, holder: claim.reports[0] });
  expect(ledger.problems).toEqual([]);
});

it("finds a duplicate of nothing, at a first attempt and under a key that only it has", () => {
  const first = aLedger();
  answer(anEvent(first.ledger, first.claim), "duplicate");
  expect(first.ledger.problems).toHaveLength(1);
  const retry = aLedger();
  const event = anEvent(retry.ledger, retry.claim, "key_1");
  event.unanswered = 1;
  answer(event, "duplicate");
  expect(retry.ledger.problems).toHaveLength(1);
});

it("does not claim to know which of two events under an identifier a stream stored", () => {
  const { ledger, claim } = aLedger();
  const sending = { claim, report: aReport(claim), identifier: "id_1" };
  aReport(claim);
  answer(streamOperation(ledger, [sending], undefined), "ok", "{}");
  expect(claim).toMatchObject({ acknowledged: true, holder: undefined });
  expect(ledger.cancellable).toEqual([]);
});

it("counts another event that was accepted under a key of an accepted one as doubled", () => {
  const { ledger, claim } = aLedger();
  answer(anEvent(ledger, claim, "key_1"), "ok");
  const reused = { claim, report: aReport(claim), identifier: undefined };
  answer(reusedKeyOperation(ledger, "v2", reused, "key_1"), "key_reused");
  expect(ledger).toMatchObject({ doubled: 0, problems: [] });
  answer(reusedKeyOperation(ledger, "v2", reused, "key_1"), "ok");
  expect(ledger.doubled).toBe(1);
});

it("counts an event that was cancelled by two requests as doubled", () => {
  const { ledger, claim } = aLedger();
  answer(anEvent(ledger, claim), "ok");
  const cancels = ["v1" as const, "v2" as const].map((door) => cancelOperation(ledger, door, claim, undefined));
  for (const cancel of cancels) answer(cancel, "ok");
  expect(claim.cancelled).toBe(true);
  expect(ledger.doubled).toBe(1);
});

it("finds a cancellation that is said to have been made by nobody", () => {
  const { ledger, claim } = aLedger();
  answer(anEvent(ledger, claim), "ok");
  answer(cancelOperation(ledger, "v2", claim, undefined), "already_cancelled");
  expect(ledger.problems).toHaveLength(1);
});
