// A cancellation's way: it takes effect once or not at all, its retry by its key is recognised, and it
// does not matter what reaches D1 first.
import { expect } from "vitest";
import { LOCAL_KEYS } from "../../../scripts/local-keys.ts";
import { HOUR_MS, SECOND_MS } from "../../../src/domain/window.ts";
import { decodeMessage } from "../../../src/log/message.ts";
import { unique } from "../../support/builders.ts";
import { D1 } from "../hostile-d1.ts";
import { aContext, createdMeter, FUTURE, storedEvents } from "../support.ts";
import { end, type Fault, type Place, replaceCall, strikeLog, strikeTransaction } from "./faults.ts";
import { aClaimingClient, type Client, dies, diesAfterIt, type Fate, Story, type Strike } from "./story.ts";
import { type Crash, crashPoints } from "./table.ts";

type Named = Required<Client>;

/**
 * An event that counts already, or that is still in the log, and somebody who wants it cancelled.
 * Another event of its hour stays, so that whatever is taken out once too often is missing.
 */
async function accepted(counts: boolean): Promise<{ story: Story; client: Named }> {
  const client = aClaimingClient();
  const story = await Story.begin();
  const at = new Date(FUTURE).toISOString();
  expect(await story.report({ identifier: unique("crash") }, "cus_1", at)).toMatchObject({ status: 200 });
  await story.rest();
  expect(await story.report(client, "cus_1", at)).toMatchObject({ status: 200 });
  if (counts) await story.rest();
  return { story, client };
}

/** A cancellation that fails, of an event that counts and of one that does not yet; its retry with a key and without. */
async function failedOnce(strike: Strike<Named>, isKept: boolean): Promise<void> {
  for (const counts of [true, false]) {
    for (const options of [{ key: unique("crash_key") }, {}]) {
      const { story, client } = await accepted(counts);
      const request = { identifier: client.identifier, ...options };
      await strike(story, client);
      expect(await story.cancel(request)).toMatchObject({ status: 503 });
      const isTold = isKept && options.key === undefined;
      expect(await story.cancel(request)).toMatchObject(
        isTold ? { status: 400, body: { error: { code: "invalid_cancel_configuration" } } } : { status: 200 },
      );
      await cancelledOnce(story, client);
    }
  }
}

/** Only the other event is left, and it cannot be cancelled a second time. */
async function cancelledOnce(story: Story, { identifier }: Named): Promise<void> {
  await story.comesTo(1);
  expect(await storedEvents(story.meter.id)).toBe(2);
  expect(await story.cancel({ identifier })).toMatchObject({ status: 400 });
  await story.comesTo(1);
}

const notKept = (strike: Strike<Named>): Crash => [
  "nothing is kept, and the retry cancels once",
  () => failedOnce(strike, false),
];

const kept = (strike: Strike<Named>): Crash => [
  "it is kept, and the retry is recognised",
  () => failedOnce(strike, true),
];

const cancel = (place: Place, fault: Fault) => () => strikeLog("cancel", place, fault);
const transaction = (fault: Fault) => (story: Story, client: Named) => strikeTransaction(story.log(client), fault);

const CANCELLED = "the event is cancelled once";

const endsLater = (fault: "eviction" | "abort"): Crash => [
  CANCELLED,
  async () => {
    for (const counts of [true, false]) {
      const { story, client } = await accepted(counts);
      expect(await story.cancel({ identifier: client.identifier })).toMatchObject({ status: 200 });
      await end(story.log(client), fault);
      await cancelledOnce(story, client);
    }
  },
];

/** Event and cancellation on their way, each in a message of its own. */
async function bothSent() {
  const { story, client } = await accepted(false);
  await story.ring();
  expect(await story.cancel({ identifier: client.identifier })).toMatchObject({ status: 200 });
  await story.log(client).nudge(aContext());
  const [event, cancellation, ...others] = story.queue.splice(0);
  expect(decodeMessage(cancellation)).toMatchObject([{ kind: "cancellations" }]);
  expect(others).toEqual([]);
  const deliver = async (message: unknown, thenCount: number) => {
    story.queue.push(message);
    await story.deliver();
    expect(await story.counted()).toBe(thenCount);
  };
  return { story, client, event, cancellation, deliver };
}

/** The cancellation comes first, and the event so many times after it. */
const neverCounts = (times: number): Crash => [
  "the event never counts",
  async () => {
    const { story, client, event, cancellation, deliver } = await bothSent();
    for (const message of [cancellation, ...Array(times).fill(event)]) await deliver(message, 1);
    await cancelledOnce(story, client);
  },
];

const answerIsLost: Crash = [
  CANCELLED,
  async () => {
    const { story, client, event, cancellation, deliver } = await bothSent();
    await deliver(event, 2);
    replaceCall(story.database(), "batch", D1.losesItsAnswer);
    await deliver(cancellation, 1);
    await cancelledOnce(story, client);
  },
];

const endsBetween = (fault: "eviction" | "abort"): Crash => [
  CANCELLED,
  async () => {
    const { story, client, event, deliver } = await bothSent();
    await deliver(event, 2);
    await end(story.log(client), fault);
    expect(await story.counted()).toBe(2);
    await cancelledOnce(story, client);
  },
];

/** What happens to a window that is vacated meanwhile, and what it comes to. */
type Meanwhile = readonly [happens: (story: Story, other: Named) => unknown, value: number];

const MEANWHILE: readonly Meanwhile[] = [
  [() => {}, 1],
  [(story) => story.report(aClaimingClient(), "cus_1", at(90), "3"), 3],
  [(story) => story.report(aClaimingClient(), "cus_1", at(30), "4"), 1],
  [(story, { identifier }) => story.cancel({ identifier }), 0],
];

const at = (seconds: number): string => new Date(FUTURE + seconds * SECOND_MS).toISOString();

/**
 * A quarter hour keeps the later of two events, of different slices, and that one is cancelled: the first transaction
 * vacates the window, the second finds it, the third restores it.
 */
const restored = (fate: Fate, skip: number): Crash => [
  "the log sends again, and the window's next event stands for it",
  async () => {
    for (const [happens, value] of MEANWHILE) {
      const story = await Story.begin();
      story.meter = await createdMeter({ "default_aggregation[formula]": "last" }, LOCAL_KEYS.live);
      const [first, second] = [aClaimingClient(), aClaimingClient()];
      expect(await story.report(first, "cus_1", at(60), "1")).toMatchObject({ status: 200 });
      await story.rest();
      story.pass(12 * HOUR_MS);
      expect(await story.report(second, "cus_1", at(61), "2")).toMatchObject({ status: 200 });
      await story.rest();
      expect(await story.summed()).toBe(2);
      expect(await story.cancel({ identifier: second.identifier })).toMatchObject({ status: 200 });
      await story.ring();
      await story.deliverTo(story.database(), fate, skip);
      await happens(story, first);
      await story.rest();
      expect(await story.summed()).toBe(value);
    }
  },
];

crashPoints("crash-points/cancellation.test.ts", {
  "before a cancellation": {
    "the call to the log fails": notKept(cancel("before", "error")),
    "the log dies": notKept(cancel("before", "abort")),
  },
  "inside a cancellation's transaction": {
    "the disk fails": notKept(transaction("error")),
    "the log dies": notKept(transaction("abort")),
  },
  "after a cancellation's transaction": {
    "the log dies before the disk has it": notKept(cancel("unsaved", "abort")),
    "its answer is lost": kept(cancel("after", "error")),
    "the log dies before it answers": kept(cancel("after", "abort")),
  },
  "after a cancellation's answer": {
    "the log dies": endsLater("abort"),
    "the log is evicted": endsLater("eviction"),
  },
  "between an event and its cancellation": {
    "the event's message is lost": neverCounts(0),
    "the event comes later, and again": neverCounts(2),
    "the cancellation's transaction is lost after it committed": answerIsLost,
    "the log dies": endsBetween("abort"),
    "the log is evicted": endsBetween("eviction"),
  },
  "after a cancellation has vacated a window": {
    "D1 refuses": restored(D1.isAway, 1),
    "the consumer dies": restored(dies, 1),
  },
  "before the window is restored": {
    "D1 refuses": restored(D1.isAway, 2),
    "the consumer dies": restored(dies, 2),
  },
  "after the window is restored": {
    "D1's answer is lost": restored(D1.losesItsAnswer, 2),
    "the consumer dies": restored(diesAfterIt, 2),
  },
});
