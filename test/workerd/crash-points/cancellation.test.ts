// A cancellation's way: it takes effect once or not at all, its retry by its key is recognised, and it
// does not matter what reaches D1 first.
import { env } from "cloudflare:workers";
import { afterEach, expect, vi } from "vitest";
import { unique } from "../../support/builders.ts";
import { FUTURE } from "../support.ts";
import { A_FAILURE, end, type Fault, type Place, strikeLog, strikeTransaction } from "./faults.ts";
import { type Client, Story } from "./story.ts";
import { agreesWithReadme, crash } from "./table.ts";

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

/**
 * An event that counts already, or that is still in the log, and somebody who wants it cancelled.
 * Another event of its hour stays, so that whatever is taken out once too often is missing.
 */
async function accepted(counts: boolean): Promise<{ story: Story; client: Client }> {
  const client = { identifier: unique("crash"), key: unique("crash_key") };
  const story = await Story.begin();
  const at = new Date(FUTURE).toISOString();
  expect(await story.report({ identifier: unique("crash") }, "cus_1", at)).toMatchObject({ status: 200 });
  await story.rest();
  expect(await story.report(client, "cus_1", at)).toMatchObject({ status: 200 });
  if (counts) await story.rest();
  return { story, client };
}

type Kept = "kept" | "not kept";

/** A cancellation that fails, of an event that counts and of one that does not yet; its retry with a key and without. */
async function failedOnce(strike: (story: Story, client: Client) => Promise<() => number>, kept: Kept): Promise<void> {
  for (const counts of [true, false]) {
    for (const key of [unique("crash_key"), undefined]) {
      const { story, client } = await accepted(counts);
      const request = { identifier: client.identifier ?? "", ...(key === undefined ? {} : { key }) };
      const struck = await strike(story, client);
      expect(await story.cancel(request)).toMatchObject({ status: 503 });
      expect(struck()).toBe(1);
      const retry = await story.cancel(request);
      const isTold = kept === "kept" && key === undefined;
      expect(retry).toMatchObject(
        isTold ? { status: 400, body: { error: { code: "invalid_cancel_configuration" } } } : { status: 200 },
      );
      await cancelledOnce(story, client);
    }
  }
}

/** Only the other event is left, and it cannot be cancelled a second time. */
async function cancelledOnce(story: Story, { identifier }: Client): Promise<void> {
  await story.rest();
  expect(await story.counted()).toBe(1);
  expect(await story.stored()).toBe(2);
  expect(await story.cancel({ identifier: identifier ?? "" })).toMatchObject({ status: 400 });
  await story.rest();
  expect(await story.counted()).toBe(1);
}

const RETRY_CANCELS = "nothing is kept, and the retry cancels once";
const RETRY_IS_KNOWN = "it is kept, and the retry is recognised";

const cancel = (place: Place, fault: Fault) => async () => strikeLog("cancel", place, fault);

crash("before a cancellation", "the call to the log fails", RETRY_CANCELS, () =>
  failedOnce(cancel("before", "error"), "not kept"),
);
crash("before a cancellation", "the log dies", RETRY_CANCELS, () => failedOnce(cancel("before", "abort"), "not kept"));
crash("inside a cancellation's transaction", "the disk fails", RETRY_CANCELS, () =>
  failedOnce((story, client) => strikeTransaction(story.log(client), "inside", "error"), "not kept"),
);
crash("inside a cancellation's transaction", "the log dies", RETRY_CANCELS, () =>
  failedOnce((story, client) => strikeTransaction(story.log(client), "inside", "abort"), "not kept"),
);
crash("after a cancellation's transaction", "the log dies before the disk has it", RETRY_CANCELS, () =>
  failedOnce(cancel("unsaved", "abort"), "not kept"),
);
crash("after a cancellation's transaction", "its answer is lost", RETRY_IS_KNOWN, () =>
  failedOnce(cancel("after", "error"), "kept"),
);
crash("after a cancellation's transaction", "the log dies before it answers", RETRY_IS_KNOWN, () =>
  failedOnce(cancel("after", "abort"), "kept"),
);

const CANCELLED = "the event is cancelled once";

for (const [fault, name] of [
  ["abort", "the log dies"],
  ["eviction", "the log is evicted"],
] as const) {
  crash("after a cancellation's answer", name, CANCELLED, async () => {
    for (const counts of [true, false]) {
      const { story, client } = await accepted(counts);
      expect(await story.cancel({ identifier: client.identifier ?? "" })).toMatchObject({ status: 200 });
      await end(story.log(client), fault);
      await cancelledOnce(story, client);
    }
  });
}

/** Event and cancellation on their way, each in a message of its own. */
async function bothSent(): Promise<{ story: Story; client: Client; event: string; cancellation: string }> {
  const { story, client } = await accepted(false);
  await story.ring();
  expect(await story.cancel({ identifier: client.identifier ?? "" })).toMatchObject({ status: 200 });
  await story.log(client).nudge();
  const [event = "", cancellation = "", ...others] = story.queue.splice(0);
  expect(cancellation).toContain('"cancelled":');
  expect(others).toEqual([]);
  return { story, client, event, cancellation };
}

const NEVER_COUNTS = "the event never counts";

crash("between an event and its cancellation", "the event's message is lost", NEVER_COUNTS, async () => {
  const { story, client, cancellation } = await bothSent();
  story.queue.push(cancellation);
  await story.deliver();
  expect(await story.counted()).toBe(1);
  await cancelledOnce(story, client);
});

crash("between an event and its cancellation", "the event comes later, and again", NEVER_COUNTS, async () => {
  const { story, client, event, cancellation } = await bothSent();
  for (const message of [cancellation, event, event]) {
    story.queue.push(message);
    await story.deliver();
    expect(await story.counted()).toBe(1);
  }
  await cancelledOnce(story, client);
});

crash(
  "between an event and its cancellation",
  "the cancellation's transaction is lost after it committed",
  CANCELLED,
  async () => {
    const { story, client, event, cancellation } = await bothSent();
    story.queue.push(event);
    await story.deliver();
    expect(await story.counted()).toBe(2);
    const batch = env.DB.batch.bind(env.DB);
    vi.spyOn(env.DB, "batch").mockImplementationOnce(async (statements) => {
      await batch(statements);
      throw new Error(A_FAILURE);
    });
    story.queue.push(cancellation);
    await story.deliver();
    expect(await story.counted()).toBe(1);
    await cancelledOnce(story, client);
  },
);

for (const [fault, name] of [
  ["abort", "the log dies"],
  ["eviction", "the log is evicted"],
] as const) {
  crash("between an event and its cancellation", name, CANCELLED, async () => {
    const { story, client, event } = await bothSent();
    story.queue.push(event);
    await story.deliver();
    await end(story.log(client), fault);
    expect(await story.counted()).toBe(2);
    await cancelledOnce(story, client);
  });
}

agreesWithReadme("crash-points/cancellation.test.ts");
