// From the request to the log and back: whoever dies there, the client was not told 200, may try again
// by whatever it goes by, and the event counts once.
import { env } from "cloudflare:workers";
import { expect } from "vitest";
import { EventLog } from "../../../src/index.ts";
import { isCallersKey } from "../../../src/ingest/identity.ts";
import { unique } from "../../support/builders.ts";
import { type Fault, type Place, replaceCall, strikeLock, strikeLog, strikeNow } from "./faults.ts";
import { aClaimingClient, aPlainClient, type Client, Story, type Strike } from "./story.ts";
import { type Crash, crashPoints } from "./table.ts";

/** The ways a client may report, each with names of its own. */
const everyClient = (): Client[] => [
  aPlainClient(),
  { identifier: unique("crash") },
  { key: unique("crash_key") },
  aClaimingClient(),
];

/** How many claims come before a client's event. */
const claimsBefore = ({ identifier, key }: Client): number => (identifier !== undefined && isCallersKey(key) ? 1 : 0);

/** Whether the log had the event when the client's first try failed. */
type Kept = "kept" | "not kept";

const FAILED = { status: 503, body: { error: { code: "service_unavailable" } } };

/** What a retry is told: a key gets the first answer; who has none learns that its identifier is taken. */
const retried = ({ key }: Client, kept: Kept): object =>
  key === undefined && kept === "kept"
    ? { status: 400, body: { error: { code: "duplicate_meter_event" } } }
    : { status: 200 };

/** A first try that fails, by every kind of client; each tries again, and one more client gives up. */
async function failedOnce(strike: Strike, kept: Kept): Promise<void> {
  for (const client of everyClient()) {
    const story = await Story.begin();
    await strike(story, client);
    const first = await story.report(client);
    expect(first).toMatchObject(FAILED);
    expect(first.headers.get("stripe-should-retry")).toBe("true");
    expect(await story.report(client)).toMatchObject(retried(client, kept));
    await story.comesTo(1);
  }
  const story = await Story.begin();
  const client = aPlainClient();
  await strike(story, client);
  expect(await story.report(client)).toMatchObject(FAILED);
  await story.comesTo(kept === "kept" ? 1 : 0);
}

const notKept = (strike: Strike): Crash => [
  "nothing is kept, and the retry counts once",
  () => failedOnce(strike, "not kept"),
];

const kept = (strike: Strike): Crash => [
  "the event is kept, and the retry is recognised",
  () => failedOnce(strike, "kept"),
];

/** An eviction waits for the calls that are under way: the client notices nothing. */
const unnoticed = (strike: Strike): Crash => [
  "the client is answered and the event counts once",
  async () => {
    for (const client of everyClient()) {
      const story = await Story.begin();
      await strike(story, client);
      expect(await story.report(client)).toMatchObject({ status: 200 });
      expect(await story.report(client)).toMatchObject(retried(client, "kept"));
      await story.comesTo(1);
    }
  },
];

const lock = (place: Place, fault: Fault) => () => strikeLock(place, fault);
const log = (place: Place, fault: Fault) => (_: Story, client: Client) =>
  strikeLog("append", place, fault, claimsBefore(client));

/** Breaks the lock once its call has come to the log, which goes on. */
const lockMeanwhile = (fault: Fault) => (story: Story, client: Client) =>
  replaceCall(
    EventLog.prototype,
    "append",
    async (append) => {
      await strikeNow(env.CUSTOMER_METER.getByName(`${story.meter.id}:cus_1`), fault);
      return append();
    },
    claimsBefore(client),
  );

/** A claim that fails: the client's key is still its own, and so is what it claims. */
async function claimFailed(place: Place, fault: Fault, kept: Kept): Promise<void> {
  for (const retries of [true, false]) {
    const client = aClaimingClient();
    const story = await Story.begin();
    strikeLog("append", place, fault);
    expect(await story.report(client)).toMatchObject(FAILED);
    const other = { ...client, identifier: unique("other") };
    if (kept === "kept") expect(await story.report(other)).toMatchObject({ status: 409 });
    if (retries) expect(await story.report(client)).toMatchObject({ status: 200 });
    await story.comesTo(retries ? 1 : 0);
  }
}

const claimNotKept = (fault: Fault): Crash => [
  "nothing is kept, and the retry counts once",
  () => claimFailed("before", fault, "not kept"),
];

const claimKept = (fault: Fault): Crash => [
  "another request under the key is refused, and the retry counts once",
  () => claimFailed("after", fault, "kept"),
];

crashPoints("crash-points/edge.test.ts", {
  "before the lock is taken": {
    "the call to it fails": notKept(lock("before", "error")),
    "the lock dies": notKept(lock("before", "abort")),
    "the lock is evicted": unnoticed(lock("before", "eviction")),
  },
  "while the lock waits for the log": {
    "the call to the log fails": notKept(log("before", "error")),
    "the lock dies": kept(lockMeanwhile("abort")),
    "the lock is evicted": unnoticed(lockMeanwhile("eviction")),
  },
  "after the log's commit": {
    "its answer to the lock is lost": kept(log("after", "error")),
    "the log dies before it answers": kept(log("after", "abort")),
    "the log is evicted": unnoticed(log("after", "eviction")),
  },
  "after the log's answer": {
    "the lock's own answer is lost": kept(lock("after", "error")),
    "the lock dies": kept(lock("after", "abort")),
    "the lock is evicted": unnoticed(lock("after", "eviction")),
  },
  "before the Idempotency-Key is claimed": {
    "the call to the log fails": claimNotKept("error"),
    "the log dies": claimNotKept("abort"),
  },
  "after the Idempotency-Key is claimed": {
    "the log's answer is lost": claimKept("error"),
    "the log dies": claimKept("abort"),
  },
});
