// The crash harness itself: what it finds in a server that lists what it should not.
import { createServer, type Server } from "node:http";
import { afterEach, expect, it } from "vitest";
import { audit, type Findings } from "../support/node/crash/audit.ts";
import { type Claim, Ledger, type Report } from "../support/node/crash/ledger.ts";

const NOW = Date.now();
const TIMESTAMP = Math.floor(NOW / 1_000) * 1_000;

/** What the server under audit says of cus_1 on the sum meter; of all others it has nothing. */
type Says = { events: object[]; total: number };

let server: Server | undefined;

afterEach(() => server?.close());

/** Audits a server that says this. */
async function auditOf(ledger: Ledger, { events, total }: Says): Promise<Findings> {
  const running = createServer(({ url = "" }, response) => {
    const { pathname, searchParams } = new URL(url, "http://localhost");
    const isIt = searchParams.get("customer") === "cus_1" && `${pathname}?${searchParams}`.includes("mtr_sum");
    const grouped = searchParams.has("value_grouping_window");
    const start = grouped ? Math.floor(NOW / 3_600_000) * 3_600 : Number(searchParams.get("start_time"));
    const summary = { id: "mtrusg_1", start_time: start, aggregated_value: total };
    const data = pathname.endsWith("/event_summaries") ? (total > 0 ? [summary] : []) : events;
    response.end(JSON.stringify({ data: isIt ? data : [], has_more: false }));
  });
  server = running;
  await new Promise<void>((resolve) => running.listen(0, "127.0.0.1", resolve));
  const address = running.address();
  const port = typeof address === "object" ? address?.port : undefined;
  return audit(`http://127.0.0.1:${port}`, { sum: "mtr_sum", count: "mtr_count", last: "mtr_last" }, ledger);
}

/** A ledger in which an event of 7 under the identifier `id_1` was accepted. */
function aLedger(): { ledger: Ledger; claim: Claim } {
  const ledger = new Ledger();
  const claim = ledger.claim("id_1", "id_1");
  const report: Report = { ref: "ref_1", formula: "sum", customer: "cus_1", value: 7, timestamp: TIMESTAMP };
  claim.reports.push(report);
  ledger.accepted(claim, report, "id_1");
  return { ledger, claim };
}

/** That event, as the server lists it. */
const stored = (changes: object = {}): object => ({
  id: "mtrev_1",
  identifier: "id_1",
  timestamp: TIMESTAMP / 1_000,
  cancelled_at: null,
  payload: { ref: "ref_1", value: "7" },
  ...changes,
});

const NOTHING = { lost: [], doubled: [], wrong: [] };

it("finds nothing when the server has what it acknowledged, and counts it", async () => {
  const { ledger } = aLedger();
  expect(await auditOf(ledger, { events: [stored()], total: 7 })).toEqual({ ...NOTHING, summaries: 2 });
});

it("finds an acknowledged event that is not stored", async () => {
  const { ledger } = aLedger();
  expect(await auditOf(ledger, { events: [], total: 0 })).toMatchObject({ lost: [expect.stringContaining("id_1")] });
});

it("asks nothing about an event that was never acknowledged, unless it is stored twice", async () => {
  const { ledger, claim } = aLedger();
  claim.acknowledged = false;
  claim.holder = undefined;
  expect(await auditOf(ledger, { events: [], total: 0 })).toMatchObject(NOTHING);
  const twice = [stored(), stored({ id: "mtrev_2" })];
  expect(await auditOf(ledger, { events: twice, total: 14 })).toMatchObject({
    ...NOTHING,
    doubled: [expect.stringContaining("id_1")],
  });
});

it("finds summaries that are not what the stored events make", async () => {
  const { ledger } = aLedger();
  const { wrong } = await auditOf(ledger, { events: [stored()], total: 14 });
  expect(wrong).toHaveLength(2);
});

it("finds a cancellation that took no effect, and one that nobody asked for", async () => {
  const { ledger, claim } = aLedger();
  const cancelled = stored({ cancelled_at: TIMESTAMP / 1_000 });
  expect(await auditOf(ledger, { events: [cancelled], total: 0 })).toMatchObject({
    ...NOTHING,
    wrong: ["nobody cancelled id_1"],
  });
  const canceller = {};
  claim.cancellers.add(canceller);
  ledger.cancelled(claim, canceller);
  expect(await auditOf(ledger, { events: [stored()], total: 7 })).toMatchObject({
    ...NOTHING,
    lost: [expect.stringContaining("id_1")],
  });
  expect(await auditOf(ledger, { events: [cancelled], total: 0 })).toMatchObject(NOTHING);
});

it("finds an event that says something else than was reported", async () => {
  const { ledger } = aLedger();
  const altered = stored({ payload: { ref: "ref_1", value: "8" } });
  const { wrong } = await auditOf(ledger, { events: [altered], total: 8 });
  expect(wrong).toEqual([expect.stringContaining("nobody sent")]);
});

it("finds another event stored under an identifier than the one that was accepted", async () => {
  const { ledger, claim } = aLedger();
  claim.reports.push({ ref: "ref_2", formula: "sum", customer: "cus_1", value: 9, timestamp: TIMESTAMP });
  const rival = stored({ payload: { ref: "ref_2", value: "9" } });
  const { wrong } = await auditOf(ledger, { events: [rival], total: 9 });
  expect(wrong).toEqual([expect.stringContaining("ref_2")]);
});
