// From the log to the queue, again and again until D1 has confirmed: alarms that never end, and what
// goes when it has expired.
import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, expect, vi } from "vitest";
import { HOUR_MS } from "../../../src/domain/window.ts";
import type { EventLog } from "../../../src/index.ts";
import { maintain } from "../../../src/scheduled.ts";
import { unique } from "../../support/builders.ts";
import { A_FAILURE, befall, end, strikeStatement } from "./faults.ts";
import { type Client, Story } from "./story.ts";
import { agreesWithReadme, crash } from "./table.ts";

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

const aClient = (): Client => ({ identifier: unique("crash"), key: unique("crash_key") });

const never = (): Promise<never> => new Promise(() => {});

/** An event that waits to be sent. */
async function acknowledged(): Promise<{ story: Story; client: Client }> {
  const client = aClient();
  const story = await Story.begin();
  expect(await story.report(client)).toMatchObject({ status: 200 });
  return { story, client };
}

/** What goes wrong the next time, or the next times, that a log sends. */
const strikeQueue = (send: (batch: Iterable<MessageSendRequest>) => Promise<QueueSendBatchResponse>, times = 1) => {
  const queue = vi.mocked(env.EVENT_QUEUE.sendBatch);
  for (let i = 0; i < times; i++) queue.mockImplementationOnce(send);
  return queue;
};

/** To be called by the log that is to die or to be evicted. */
const endItself = (log: DurableObjectStub<EventLog>, fault: "eviction" | "abort"): Promise<void> =>
  runInDurableObject(log, (object) => befall(object, fault)).catch(() => {});

const COUNTS = "the alarm sends again, and the event counts once";

crash("before a send", "the queue refuses", COUNTS, async () => {
  const { story } = await acknowledged();
  const queue = strikeQueue(() => Promise.reject(new Error(A_FAILURE)));
  await story.ring();
  expect(queue).toHaveBeenCalledTimes(1);
  expect(story.queue).toHaveLength(0);
  await story.rest();
  expect(await story.counted()).toBe(1);
});

crash("before a send", "the queue hangs for longer than the log's patience", COUNTS, async () => {
  const { story } = await acknowledged();
  const queue = strikeQueue(never);
  await story.ring();
  expect(queue).toHaveBeenCalledTimes(1);
  await story.rest();
  expect(await story.counted()).toBe(1);
});

for (const [fault, name] of [
  ["abort", "the log dies"],
  ["eviction", "the log is evicted"],
] as const) {
  crash("before a send", `${name} while the queue hangs`, COUNTS, async () => {
    const { story, client } = await acknowledged();
    strikeQueue(async () => {
      await endItself(story.log(client), fault);
      return never();
    });
    await story.ring();
    expect(story.queue).toHaveLength(0);
    await story.rest();
    expect(await story.counted()).toBe(1);
  });
}

const SENT_TWICE = "it is sent twice, and the event counts once";

crash("after a send", "the queue's answer is lost", SENT_TWICE, async () => {
  const { story } = await acknowledged();
  strikeQueue(async (batch) => {
    await story.send(batch);
    throw new Error(A_FAILURE);
  });
  await story.ring();
  await sentTwice(story);
});

for (const [fault, name] of [
  ["abort", "the log dies before it knows"],
  ["eviction", "the log is evicted"],
] as const) {
  crash("after a send", name, SENT_TWICE, async () => {
    const { story, client } = await acknowledged();
    strikeQueue(async (batch) => {
      await story.send(batch);
      await endItself(story.log(client), fault);
      return {} as QueueSendBatchResponse;
    });
    await story.ring();
    await sentTwice(story);
  });
}

/** The message on its way is not taken for a confirmation; both copies come to D1, apart. */
async function sentTwice(story: Story): Promise<void> {
  const [first] = story.queue;
  expect(story.queue).toHaveLength(1);
  story.pass();
  await story.ring();
  expect(story.queue).toEqual([first, first]);
  const [, second] = story.queue.splice(1);
  await story.deliver();
  story.queue.push(second ?? "");
  await story.rest();
  expect(await story.counted()).toBe(1);
}

const RINGS_ON = "it rings on, and the event counts once";

crash("at an alarm", "the queue fails ten times running", RINGS_ON, async () => {
  const { story } = await acknowledged();
  const queue = strikeQueue(() => Promise.reject(new Error(A_FAILURE)), 10);
  while (queue.mock.calls.length < 10) {
    story.pass();
    expect(await story.ring()).toBe(true);
  }
  expect(story.queue).toHaveLength(0);
  await story.rest();
  expect(await story.counted()).toBe(1);
});

crash("at an alarm", "the disk fails ten times running", RINGS_ON, async () => {
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
  await story.rest();
  expect(await story.counted()).toBe(1);
});

crash("at an alarm", "the log dies ten times running", RINGS_ON, async () => {
  const { story, client } = await acknowledged();
  const queue = strikeQueue(async () => {
    await endItself(story.log(client), "abort");
    return never();
  }, 10);
  while (queue.mock.calls.length < 10) {
    story.pass();
    expect(await story.ring()).toBe(true);
  }
  await story.rest();
  expect(await story.counted()).toBe(1);
});

crash(
  "at an alarm",
  "the platform gives up on it after the log died",
  "the minute's nudge brings the event home",
  async () => {
    const { story, client } = await acknowledged();
    strikeQueue(async () => {
      await endItself(story.log(client), "abort");
      return never();
    });
    await story.ring();
    await runInDurableObject(story.log(client), (_, { storage }) => storage.deleteAlarm());
    expect(await story.ring()).toBe(false);
    await maintain(env, Date.now());
    await story.rest();
    expect(await story.counted()).toBe(1);
  },
);

/** The tables of a log's slices. */
const tablesOf = (log: DurableObjectStub<EventLog>): Promise<number> =>
  runInDurableObject(
    log,
    (_, { storage }) =>
      storage.sql.exec("SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB '*_[0-9]*'").toArray().length,
  );

/** A log with one slice, confirmed and expired. */
async function expired(): Promise<{ story: Story; client: Client; tables: number }> {
  const { story, client } = await acknowledged();
  await story.rest();
  const tables = await tablesOf(story.log(client));
  expect(tables).toBeGreaterThan(1);
  story.pass(48 * HOUR_MS);
  return { story, client, tables };
}

/** The identifier is free again, and the event that had it still counts. */
async function usedAgain(story: Story, client: Client): Promise<void> {
  expect(await story.report({ ...client, key: unique("crash_key") })).toMatchObject({ status: 200 });
  await story.rest();
  expect(await story.counted()).toBe(2);
}

const DROPPED_LATER = "all of it stays until the next nudge, and its identifiers are free";

for (const [fault, name] of [
  ["error", "the disk fails"],
  ["abort", "the log dies"],
] as const) {
  crash("inside the drop of an expired slice", name, DROPPED_LATER, async () => {
    const { story, client, tables } = await expired();
    // The second of its tables.
    const struck = await strikeStatement(story.log(client), "DROP TABLE", fault, 1);
    await maintain(env, Date.now());
    expect(struck()).toBe(1);
    expect(await tablesOf(story.log(client))).toBe(tables);
    await maintain(env, Date.now());
    expect(await tablesOf(story.log(client))).toBe(0);
    await usedAgain(story, client);
  });
}

for (const [fault, name] of [
  ["abort", "the log dies"],
  ["eviction", "the log is evicted"],
] as const) {
  crash("after the drop of an expired slice", name, "it is gone, and its identifiers are free", async () => {
    const { story, client } = await expired();
    await maintain(env, Date.now());
    await end(story.log(client), fault);
    expect(await tablesOf(story.log(client))).toBe(0);
    await usedAgain(story, client);
  });
}

for (const [fault, name] of [
  ["abort", "the log dies"],
  ["eviction", "the log is evicted"],
] as const) {
  crash("at the expiry of a slice with an unconfirmed group", name, "the group stays until D1 has it", async () => {
    const { story, client } = await acknowledged();
    // Nobody delivers for two days.
    await story.ring();
    story.queue.length = 0;
    story.pass(48 * HOUR_MS);
    await maintain(env, Date.now());
    await end(story.log(client), fault);
    await maintain(env, Date.now());
    expect(await tablesOf(story.log(client))).toBeGreaterThan(0);
    await story.rest();
    expect(await story.counted()).toBe(1);
    await maintain(env, Date.now());
    expect(await tablesOf(story.log(client))).toBe(0);
    await usedAgain(story, client);
  });
}

agreesWithReadme("crash-points/delivery.test.ts");
