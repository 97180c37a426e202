// From the log to the queue, again and again until D1 has confirmed: alarms that never end, and what
// goes when it has expired.
import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { expect, vi } from "vitest";
import { HOUR_MS } from "../../../src/domain/window.ts";
import type { EventLog } from "../../../src/index.ts";
import { maintain } from "../../../src/scheduled.ts";
import { unique } from "../../support/builders.ts";
import { A_FAILURE, end, strikeNow, strikeStatement } from "./faults.ts";
import { acknowledged, type Client, type Story } from "./story.ts";
import { type Crash, crashPoints } from "./table.ts";

type End = "eviction" | "abort";

const never = (): Promise<never> => new Promise(() => {});

/** What goes wrong when a log sends. */
type Send = (story: Story, client: Client, batch: Iterable<MessageSendRequest>) => Promise<void>;

const refuses: Send = () => Promise.reject(new Error(A_FAILURE));

const endsAndHangs =
  (fault: End): Send =>
  async (story, client) => {
    await strikeNow(story.log(client), fault);
    return never();
  };

const losesItsAnswer: Send = async (story, _, batch) => {
  await story.send(batch);
  throw new Error(A_FAILURE);
};

const endsAfterIt =
  (fault: End): Send =>
  async (story, client, batch) => {
    await story.send(batch);
    await strikeNow(story.log(client), fault);
  };

/** An event that waits while the next sends go wrong. */
async function waiting(send: Send, times = 1) {
  const { story, client } = await acknowledged();
  const queue = vi.mocked(env.EVENT_QUEUE.sendBatch);
  for (let i = 0; i < times; i++) {
    queue.mockImplementationOnce(async (batch) => {
      await send(story, client, batch);
      return {} as QueueSendBatchResponse;
    });
  }
  return { story, client, queue };
}

const sentAgain = (send: Send): Crash => [
  "the alarm sends again, and the event counts once",
  async () => {
    const { story, queue } = await waiting(send);
    await story.ring();
    expect(queue).toHaveBeenCalledTimes(1);
    expect(story.queue).toHaveLength(0);
    await story.comesTo(1);
  },
];

/** The message on its way is not taken for a confirmation; both copies come to D1, apart. */
const sentTwice = (send: Send): Crash => [
  "it is sent twice, and the event counts once",
  async () => {
    const { story } = await waiting(send);
    await story.ring();
    const [first] = story.queue;
    expect(story.queue).toHaveLength(1);
    story.pass();
    await story.ring();
    expect(story.queue).toEqual([first, first]);
    const [, second] = story.queue.splice(1);
    await story.deliver();
    story.queue.push(second ?? "");
    await story.comesTo(1);
  },
];

const RINGS_ON = "it rings on, and the event counts once";

const ringsOn = (send: Send): Crash => [
  RINGS_ON,
  async () => {
    const { story, queue } = await waiting(send, 10);
    while (queue.mock.calls.length < 10) {
      story.pass();
      expect(await story.ring()).toBe(true);
    }
    expect(story.queue).toHaveLength(0);
    await story.comesTo(1);
  },
];

const diskFails: Crash = [
  RINGS_ON,
  async () => {
    const { story, client } = await acknowledged();
    // Of a log that has just been started, so that it has nothing in memory.
    await end(story.log(client), "eviction");
    const exec = await runInDurableObject(story.log(client), (_, { storage }) =>
      vi.spyOn(storage.sql, "exec").mockImplementation(() => {
        throw new Error("disk I/O error");
      }),
    );
    for (let i = 0; i < 10; i++) {
      story.pass();
      expect(await story.ring()).toBe(true);
    }
    exec.mockRestore();
    await story.comesTo(1);
  },
];

const alarmIsLost: Crash = [
  "the minute's nudge brings the event home",
  async () => {
    const { story, client } = await waiting(endsAndHangs("abort"));
    await story.ring();
    await runInDurableObject(story.log(client), (_, { storage }) => storage.deleteAlarm());
    expect(await story.ring()).toBe(false);
    await maintain(env, Date.now());
    await story.comesTo(1);
  },
];

/** The tables of a log's partitions. */
const tablesOf = (log: DurableObjectStub<EventLog>): Promise<number> =>
  runInDurableObject(
    log,
    (_, { storage }) =>
      storage.sql.exec("SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB '*_[0-9]*'").toArray().length,
  );

/** A log with one partition, confirmed and expired. */
async function expired() {
  const { story, client } = await acknowledged();
  await story.rest();
  const tables = await tablesOf(story.log(client));
  expect(tables).toBeGreaterThan(1);
  story.pass(48 * HOUR_MS);
  return { story, client, tables };
}

/** The partition is gone, its identifier is free again, and the event that had it still counts. */
async function usedAgain(story: Story, client: Client): Promise<void> {
  expect(await tablesOf(story.log(client))).toBe(0);
  expect(await story.report({ ...client, key: unique("crash_key") })).toMatchObject({ status: 200 });
  await story.comesTo(2);
}

const droppedLater = (fault: "error" | "abort"): Crash => [
  "all of it stays until the next nudge, and its identifiers are free",
  async () => {
    const { story, client, tables } = await expired();
    // The second of its tables.
    await strikeStatement(story.log(client), "DROP TABLE", fault, 1);
    await maintain(env, Date.now());
    expect(await tablesOf(story.log(client))).toBe(tables);
    await maintain(env, Date.now());
    await usedAgain(story, client);
  },
];

const dropped = (fault: End): Crash => [
  "it is gone, and its identifiers are free",
  async () => {
    const { story, client } = await expired();
    await maintain(env, Date.now());
    await end(story.log(client), fault);
    await usedAgain(story, client);
  },
];

const kept = (fault: End): Crash => [
  "the group stays until D1 has it",
  async () => {
    const { story, client } = await acknowledged();
    // Nobody delivers for two days.
    await story.ring();
    story.queue.length = 0;
    story.pass(48 * HOUR_MS);
    await maintain(env, Date.now());
    await end(story.log(client), fault);
    await maintain(env, Date.now());
    expect(await tablesOf(story.log(client))).toBeGreaterThan(0);
    await story.comesTo(1);
    await maintain(env, Date.now());
    await usedAgain(story, client);
  },
];

crashPoints("crash-points/delivery.test.ts", {
  "before a send": {
    "the queue refuses": sentAgain(refuses),
    "the queue hangs for longer than the log's patience": sentAgain(never),
    "the log dies while the queue hangs": sentAgain(endsAndHangs("abort")),
    "the log is evicted while the queue hangs": sentAgain(endsAndHangs("eviction")),
  },
  "after a send": {
    "the queue's answer is lost": sentTwice(losesItsAnswer),
    "the log dies before it knows": sentTwice(endsAfterIt("abort")),
    "the log is evicted": sentTwice(endsAfterIt("eviction")),
  },
  "at an alarm": {
    "the queue fails ten times running": ringsOn(refuses),
    "the disk fails ten times running": diskFails,
    "the log dies ten times running": ringsOn(endsAndHangs("abort")),
    "the platform gives up on it after the log died": alarmIsLost,
  },
  "inside the drop of an expired partition": {
    "the disk fails": droppedLater("error"),
    "the log dies": droppedLater("abort"),
  },
  "after the drop of an expired partition": {
    "the log dies": dropped("abort"),
    "the log is evicted": dropped("eviction"),
  },
  "at the expiry of a partition with an unconfirmed group": {
    "the log dies": kept("abort"),
    "the log is evicted": kept("eviction"),
  },
});
