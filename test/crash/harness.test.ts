// The crash harness itself: what it takes from responses, and what it finds in a server that lists what it should not.
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, expect, it, onTestFinished } from "vitest";
import { audit, type Findings } from "../support/node/crash/audit.ts";
import type { Answer, Verdict } from "../support/node/crash/client.ts";
import { type Claim, Ledger, type Report } from "../support/node/crash/ledger.ts";
import * as operations from "../support/node/crash/operations.ts";

const NOW = Date.now();
const TIMESTAMP = Math.floor(NOW / 1_000) * 1_000;

/** A new report of 7 under a claim, as `ref_1`, `ref_2` and so on. */
function aReport(claim: Claim, value = 7): Report {
  const ref = `ref_${claim.reports.length + 1}`;
  const report: Report = { ref, formula: "sum", customer: "cus_1", value, timestamp: TIMESTAMP };
  claim.reports.push(report);
  return report;
}

/** A ledger with one claim, `id_1`. */
function aLedger() {
  const ledger = new Ledger();
  const claim = ledger.claim("id_1", "id_1");
  const sending = (identifier: string | undefined = claim.identifier) => ({
    claim,
    report: aReport(claim),
    identifier,
  });
  const event = (key?: string) => operations.eventOperation(ledger, "v2", sending(), key);
  const cancellation = (version: operations.Version) => operations.cancelOperation(ledger, version, claim, undefined);
  return { ledger, claim, sending, event, cancellation };
}

/** What the load does when a response has come. */
function answer(operation: operations.Operation, verdict: Verdict, text = '{"identifier":"id_1"}'): void {
  const given: Answer = { status: verdict === "ok" ? 200 : 400, text, retry: false };
  operation.runs = Math.max(1, operation.runs);
  operation.settle(verdict, given, operation);
  operation.first ??= given;
}

/** Sent once more after an attempt that was not answered. */
const unanswered = (operation: operations.Operation) => Object.assign(operation, { unanswered: 1 });

type Story = (told: ReturnType<typeof aLedger>) => void;

describe("the ledger", () => {
  it.each<[string, { doubled: number; problems: number }, Story]>([
    ["an event that was accepted", { doubled: 0, problems: 0 }, ({ event }) => answer(event(), "ok")],
    [
      "an identifier that was accepted as two events",
      { doubled: 1, problems: 1 },
      ({ event }) => {
        answer(event(), "ok");
        answer(event("key_2"), "ok");
      },
    ],
    [
      "a request with a key that was accepted twice",
      { doubled: 0, problems: 0 },
      ({ event }) => {
        const keyed = event("key_1");
        for (const _ of [1, 2]) answer(keyed, "ok");
      },
    ],
    [
      "a request without a key that was accepted twice",
      { doubled: 1, problems: 1 },
      ({ event }) => {
        const keyless = event();
        for (const _ of [1, 2]) answer(keyless, "ok");
      },
    ],
    [
      "a retry under a key that is answered unlike the first",
      { doubled: 0, problems: 1 },
      ({ event }) => {
        const keyed = event("key_1");
        for (const created of [1, 2]) answer(keyed, "ok", JSON.stringify({ identifier: "id_1", created }));
      },
    ],
    [
      "a duplicate after an attempt without a key that was not answered, which acknowledges the event",
      { doubled: 0, problems: 0 },
      ({ event, claim }) => {
        answer(unanswered(event()), "duplicate");
        expect(claim).toMatchObject({ acknowledged: true, holder: claim.reports[0] });
      },
    ],
    ["a duplicate of nothing", { doubled: 0, problems: 1 }, ({ event }) => answer(event(), "duplicate")],
    [
      "a duplicate of nothing under a key that no other request has",
      { doubled: 0, problems: 1 },
      ({ event }) => answer(unanswered(event("key_1")), "duplicate"),
    ],
    [
      "a stream, which does not say which of two events under an identifier it stored",
      { doubled: 0, problems: 0 },
      ({ ledger, claim, sending }) => {
        const sent = sending();
        aReport(claim);
        answer(operations.streamOperation(ledger, [sent], undefined), "ok", "{}");
        expect(claim.acknowledged).toBe(true);
        expect([claim.holder, ledger.cancellable]).toEqual([undefined, []]);
      },
    ],
    [
      "another event that was accepted under a key of an accepted one",
      { doubled: 1, problems: 1 },
      ({ ledger, event, sending }) => {
        answer(event("key_1"), "ok");
        const reused = operations.reusedKeyOperation(ledger, "v2", { ...sending(), identifier: undefined }, "key_1");
        answer(reused, "key_reused");
        expect(ledger).toMatchObject({ doubled: 0, problems: [] });
        answer(reused, "ok");
      },
    ],
    [
      "an event that was cancelled by two requests",
      { doubled: 1, problems: 1 },
      ({ claim, event, cancellation }) => {
        answer(event(), "ok");
        for (const cancel of [cancellation("v1"), cancellation("v2")]) answer(cancel, "ok");
        expect(claim.cancelled).toBe(true);
      },
    ],
    [
      "a cancellation that is said to have been made before its first attempt",
      { doubled: 0, problems: 1 },
      ({ event, cancellation }) => {
        answer(event(), "ok");
        answer(cancellation("v2"), "already_cancelled");
      },
    ],
  ])("takes %s for %j", (_, { doubled, problems }, story) => {
    const told = aLedger();
    story(told);
    expect(told.ledger).toMatchObject({ doubled });
    expect(told.ledger.problems).toHaveLength(problems);
  });
});

/** Audits a server that says this of cus_1 on the sum meter; of all others it has nothing. */
async function auditOf(ledger: Ledger, events: readonly object[], total: number): Promise<Findings> {
  const server = createServer(({ url = "" }, response) => {
    const { pathname, searchParams } = new URL(url, "http://localhost");
    const isIt = searchParams.get("customer") === "cus_1" && `${pathname}?${searchParams}`.includes("mtr_sum");
    const grouped = searchParams.has("value_grouping_window");
    const start = grouped ? Math.floor(NOW / 3_600_000) * 3_600 : Number(searchParams.get("start_time"));
    const summary = { id: "mtrusg_1", start_time: start, aggregated_value: total };
    const data = pathname.endsWith("/event_summaries") ? (total > 0 ? [summary] : []) : events;
    response.end(JSON.stringify({ data: isIt ? data : [], has_more: false }));
  });
  onTestFinished(() => void server.close());
  await once(server.listen(0, "127.0.0.1"), "listening");
  const { port } = server.address() as AddressInfo;
  return audit(`http://127.0.0.1:${port}`, { sum: "mtr_sum", count: "mtr_count", last: "mtr_last" }, ledger);
}

/** The event of `id_1`, as the server lists it. */
const stored = (changes: object = {}): object => ({
  id: "mtrev_1",
  identifier: "id_1",
  timestamp: TIMESTAMP / 1_000,
  cancelled_at: null,
  payload: { ref: "ref_1", value: "7" },
  ...changes,
});

const cancelled = stored({ cancelled_at: TIMESTAMP / 1_000 });
const twice = [stored(), stored({ id: "mtrev_2" })];
const altered = stored({ payload: { ref: "ref_1", value: "8" } });
const rival = stored({ payload: { ref: "ref_2", value: "9" } });
const asNeverAcknowledged: Story = ({ claim }) => Object.assign(claim, { acknowledged: false, holder: undefined });
const asCancelled: Story = ({ cancellation }) => answer(cancellation("v2"), "ok");

describe("the audit of a server that acknowledged an event", () => {
  it.each<[string, readonly object[], number, Partial<Findings>, Story?]>([
    ["finds nothing when it is stored, and counts its summaries", [stored()], 7, { summaries: 2 }],
    ["finds that it is not stored", [], 0, { lost: ["id_1 is not stored"] }],
    ["asks nothing about one that was never acknowledged", [], 0, {}, asNeverAcknowledged],
    ["unless it is stored twice", twice, 14, { doubled: ["id_1 is stored 2 times"] }, asNeverAcknowledged],
    [
      "finds summaries that are not what the stored events make",
      [stored()],
      14,
      { wrong: [expect.stringContaining("sum of cus_1 says"), expect.stringContaining("sum of cus_1 says")] },
    ],
    ["finds a cancellation that was not asked for", [cancelled], 0, { wrong: ["no request cancelled id_1"] }],
    [
      "finds a cancellation that took no effect",
      [stored()],
      7,
      { lost: ["the cancellation of id_1 took no effect"] },
      asCancelled,
    ],
    ["finds nothing when a cancellation took effect", [cancelled], 0, {}, asCancelled],
    ["finds another value than was reported", [altered], 8, { wrong: [expect.stringContaining("no request sent")] }],
    [
      "finds another event under the identifier than the one that was accepted",
      [rival],
      9,
      { wrong: ["id_1 was accepted as ref_1, stored as ref_2"] },
      ({ claim }) => void aReport(claim, 9),
    ],
  ])("%s", async (_, events, total, findings, story = () => {}) => {
    const told = aLedger();
    answer(told.event(), "ok");
    story(told);
    const none = { lost: [], doubled: [], wrong: [] };
    expect(await auditOf(told.ledger, events, total)).toMatchObject({ ...none, ...findings });
  });
});
