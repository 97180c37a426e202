// From the request to the log and back: whoever dies there, the client was not told 200, may try again
// by whatever it goes by, and the event counts once.
import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, expect, vi } from "vitest";
import { EventLog } from "../../../src/index.ts";
import { unique } from "../../support/builders.ts";
import { befall, type Fault, type Place, strikeLock, strikeLog } from "./faults.ts";
import { aClaimingClient, type Client, claimsBefore, everyClient, Story } from "./story.ts";
import { agreesWithReadme, crash } from "./table.ts";

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

/** Whether the log had the event when the client's first try failed. */
type Kept = "kept" | "not kept";

/** Sets a trap for a client's report; gives how often it struck. */
type Strike = (story: Story, client: Client) => () => number;

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
    const struck = strike(story, client);
    const first = await story.report(client);
    expect(first).toMatchObject(FAILED);
    expect(first.headers.get("stripe-should-retry")).toBe("true");
    expect(await story.report(client)).toMatchObject(retried(client, kept));
    await story.rest();
    expect(await story.counted()).toBe(1);
    expect(struck()).toBe(1);
  }
  await gaveUp(strike, kept);
}

async function gaveUp(strike: Strike, kept: Kept): Promise<void> {
  const [client = {}] = everyClient();
  const story = await Story.begin();
  strike(story, client);
  expect(await story.report(client)).toMatchObject(FAILED);
  await story.rest();
  expect(await story.counted()).toBe(kept === "kept" ? 1 : 0);
}

/** An eviction waits for the calls that are under way: the client notices nothing. */
async function unnoticed(strike: Strike): Promise<void> {
  for (const client of everyClient()) {
    const story = await Story.begin();
    const struck = strike(story, client);
    expect(await story.report(client)).toMatchObject({ status: 200 });
    expect(await story.report(client)).toMatchObject(retried(client, "kept"));
    await story.rest();
    expect(await story.counted()).toBe(1);
    expect(struck()).toBe(1);
  }
}

const RETRY_COUNTS = "nothing is kept, and the retry counts once";
const RETRY_IS_KNOWN = "the event is kept, and the retry is recognised";
const UNNOTICED = "the client is answered and the event counts once";

const lock = (place: Place, fault: Fault) => () => strikeLock(place, fault);
const log = (place: Place, fault: Fault) => (_: Story, client: Client) =>
  strikeLog("append", place, fault, claimsBefore(client));

crash("before the lock is taken", "the call to it fails", RETRY_COUNTS, () =>
  failedOnce(lock("before", "error"), "not kept"),
);
crash("before the lock is taken", "the lock dies", RETRY_COUNTS, () => failedOnce(lock("before", "abort"), "not kept"));
crash("before the lock is taken", "the lock is evicted", UNNOTICED, () => unnoticed(lock("before", "eviction")));

crash("while the lock waits for the log", "the call to the log fails", RETRY_COUNTS, () =>
  failedOnce(log("before", "error"), "not kept"),
);

/** Breaks the lock once its call has come to the log, which goes on. */
function whileLockWaits(story: Story, client: Client, fault: "eviction" | "abort"): () => number {
  const { append } = EventLog.prototype;
  let claims = claimsBefore(client);
  let struck = 0;
  vi.spyOn(EventLog.prototype, "append").mockImplementation(async function (this: EventLog, entries) {
    if (claims-- !== 0) return append.call(this, entries);
    struck++;
    const lock = env.CUSTOMER_METER.getByName(`${story.meter.id}:cus_1`);
    await runInDurableObject(lock, (object) => befall(object, fault)).catch(() => {});
    return append.call(this, entries);
  });
  return () => struck;
}

crash("while the lock waits for the log", "the lock dies", RETRY_IS_KNOWN, () =>
  failedOnce((story, client) => whileLockWaits(story, client, "abort"), "kept"),
);
crash("while the lock waits for the log", "the lock is evicted", UNNOTICED, () =>
  unnoticed((story, client) => whileLockWaits(story, client, "eviction")),
);

crash("after the log's commit", "its answer to the lock is lost", RETRY_IS_KNOWN, () =>
  failedOnce(log("after", "error"), "kept"),
);
crash("after the log's commit", "the log dies before it answers", RETRY_IS_KNOWN, () =>
  failedOnce(log("after", "abort"), "kept"),
);
crash("after the log's commit", "the log is evicted", UNNOTICED, () => unnoticed(log("after", "eviction")));

crash("after the log's answer", "the lock's own answer is lost", RETRY_IS_KNOWN, () =>
  failedOnce(lock("after", "error"), "kept"),
);
crash("after the log's answer", "the lock dies", RETRY_IS_KNOWN, () => failedOnce(lock("after", "abort"), "kept"));
crash("after the log's answer", "the lock is evicted", UNNOTICED, () => unnoticed(lock("after", "eviction")));

/** A claim that fails: the client's key is still its own, and so is what it claims. */
async function claimFailed(place: Place, fault: Fault, kept: Kept): Promise<void> {
  for (const retries of [true, false]) {
    const client = aClaimingClient();
    const story = await Story.begin();
    const struck = strikeLog("append", place, fault);
    expect(await story.report(client)).toMatchObject(FAILED);
    const other = { ...client, identifier: unique("other") };
    if (kept === "kept") expect(await story.report(other)).toMatchObject({ status: 409 });
    if (retries) expect(await story.report(client)).toMatchObject({ status: 200 });
    await story.rest();
    expect(await story.counted()).toBe(retries ? 1 : 0);
    expect(struck()).toBe(1);
  }
}

const CLAIM_IS_KEPT = "another request under the key is refused, and the retry counts once";

crash("before the Idempotency-Key is claimed", "the call to the log fails", RETRY_COUNTS, () =>
  claimFailed("before", "error", "not kept"),
);
crash("before the Idempotency-Key is claimed", "the log dies", RETRY_COUNTS, () =>
  claimFailed("before", "abort", "not kept"),
);
crash("after the Idempotency-Key is claimed", "the log's answer is lost", CLAIM_IS_KEPT, () =>
  claimFailed("after", "error", "kept"),
);
crash("after the Idempotency-Key is claimed", "the log dies", CLAIM_IS_KEPT, () =>
  claimFailed("after", "abort", "kept"),
);

agreesWithReadme("crash-points/edge.test.ts");
