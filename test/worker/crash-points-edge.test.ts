// From the request to the log and back: whoever dies there, the client was not told 200, may try again
// by whatever it goes by, and the event counts once.
import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, expect, vi } from "vitest";
import { EventLog } from "../../src/index.ts";
import { befall, type Fault, type Place, strikeLock, strikeLog } from "./crash-faults.ts";
import { type Client, everyClient, Story } from "./crash-story.ts";
import { agreesWithReadme, crash } from "./crash-table.ts";

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

/** Whether the log had the event when the client's first try failed. */
type Kept = "kept" | "not kept";

const FAILED = { status: 503, body: { error: { code: "service_unavailable" } } };

/** What a retry is told: a key gets the first answer; who has none learns that its identifier is taken. */
const retried = ({ key }: Client, kept: Kept): object =>
  key === undefined && kept === "kept"
    ? { status: 400, body: { error: { code: "duplicate_meter_event" } } }
    : { status: 200 };

/** A first try that fails, by every kind of client; each tries again, and one more client gives up. */
async function failedOnce(strike: (story: Story) => () => number, kept: Kept): Promise<void> {
  for (const client of everyClient()) {
    const story = await Story.begin();
    const struck = strike(story);
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

async function gaveUp(strike: (story: Story) => () => number, kept: Kept): Promise<void> {
  const [client = {}] = everyClient();
  const story = await Story.begin();
  strike(story);
  expect(await story.report(client)).toMatchObject(FAILED);
  await story.rest();
  expect(await story.counted()).toBe(kept === "kept" ? 1 : 0);
}

/** An eviction waits for the calls that are under way: the client notices nothing. */
async function unnoticed(strike: (story: Story) => () => number): Promise<void> {
  for (const client of everyClient()) {
    const story = await Story.begin();
    const struck = strike(story);
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
const log = (place: Place, fault: Fault) => () => strikeLog("append", place, fault);

crash("before the lock is taken", "the call to it fails", RETRY_COUNTS, () =>
  failedOnce(lock("before", "error"), "not kept"),
);
crash("before the lock is taken", "the lock dies", RETRY_COUNTS, () => failedOnce(lock("before", "abort"), "not kept"));
crash("before the lock is taken", "the lock is evicted", UNNOTICED, () => unnoticed(lock("before", "eviction")));

crash("while the lock waits for the log", "the call to the log fails", RETRY_COUNTS, () =>
  failedOnce(log("before", "error"), "not kept"),
);

/** Breaks the lock once its call has come to the log, which goes on. */
function whileLockWaits(story: Story, fault: "eviction" | "abort"): () => number {
  const { append } = EventLog.prototype;
  let struck = 0;
  vi.spyOn(EventLog.prototype, "append").mockImplementationOnce(async function (this: EventLog, entries) {
    struck++;
    const lock = env.CUSTOMER_METER.getByName(`${story.meter.id}:cus_1`);
    await runInDurableObject(lock, (object) => befall(object, fault)).catch(() => {});
    return append.call(this, entries);
  });
  return () => struck;
}

crash("while the lock waits for the log", "the lock dies", RETRY_IS_KNOWN, () =>
  failedOnce((story) => whileLockWaits(story, "abort"), "kept"),
);
crash("while the lock waits for the log", "the lock is evicted", UNNOTICED, () =>
  unnoticed((story) => whileLockWaits(story, "eviction")),
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

agreesWithReadme("crash-points-edge.test.ts");
