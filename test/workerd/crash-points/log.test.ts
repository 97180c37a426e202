// Inside the log, from the append to the queue: what was acknowledged counts once, and of what was not
// there is all or nothing.
import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { expect, vi } from "vitest";
import { EventLog } from "../../../src/index.ts";
import { maintain } from "../../../src/scheduled.ts";
import { A_FAILURE, befall, contextOf, end, type Fault, strikeStatement } from "./faults.ts";
import { aClientOf, acknowledged, aPlainClient, type Client, Story, type Strike } from "./story.ts";
import { type Crash, crashPoints } from "./table.ts";

/** A report that fails, and its retry. */
const failedOnce = (strike: Strike): Crash => [
  "the client tries again, and the event counts once",
  async () => {
    const client = aPlainClient();
    const story = await Story.begin();
    await strike(story, client);
    expect(await story.report(client)).toMatchObject({ status: 503 });
    // All or nothing: an event that is known has its alarm.
    const known = await story.knows(client);
    expect(await story.ring()).toBe(known);
    expect(await story.report(client)).toMatchObject({ status: 200 });
    await story.comesTo(1);
  },
];

const statement = (text: string, fault: Fault) => (story: Story, client: Client) =>
  strikeStatement(story.log(client), text, fault);
const beforeRows = (fault: Fault) => statement("INTO groups", fault);
const betweenRows = (fault: Fault) => statement("INTO holders", fault);

/** The log dies in the turn that wrote. */
const unsaved = (story: Story, client: Client) =>
  runInDurableObject(story.log(client), (log, { storage }) => {
    vi.spyOn(storage, "sync").mockImplementationOnce(async () => befall(log, "abort"));
  });

const diskLosesItsAnswer: Crash = [
  "the event counts once",
  async () => {
    const client = aPlainClient();
    const story = await Story.begin();
    await runInDurableObject(story.log(client), (_, { storage }) => {
      vi.spyOn(storage, "sync").mockRejectedValueOnce(new Error(A_FAILURE));
    });
    // The disk fails once; the log takes the second report too.
    for (const _ of [1, 2]) expect(await story.report(client)).toMatchObject({ status: 200 });
    await story.comesTo(1);
  },
];

const ended = (fault: "eviction" | "abort"): Crash => [
  "the event counts once",
  async () => {
    const { story, client } = await acknowledged(aPlainClient());
    await end(story.log(client), fault);
    await story.comesTo(1);
  },
];

const alarmIsLost: Crash = [
  "the minute's nudge brings the event home",
  async () => {
    const { story, client } = await acknowledged(aPlainClient());
    await runInDurableObject(story.log(client), (_, { storage }) => storage.deleteAlarm());
    await end(story.log(client), "abort");
    expect(await story.ring()).toBe(false);
    await maintain(env, Date.now());
    expect(story.queue).toHaveLength(1);
    await story.deliver();
    await story.comesTo(1);
  },
];

/** Something happens to a log while one commit is being written and the other calls wait for the next. */
async function whileOthersWait(meet: (log: EventLog) => void, outcome: "all fail" | "all succeed"): Promise<void> {
  const story = await Story.begin();
  const clients = Array.from({ length: 6 }, () => aClientOf(0));
  let log: EventLog | undefined;
  let calls = 0;
  const { append } = EventLog.prototype;
  vi.spyOn(EventLog.prototype, "append").mockImplementation(function (this: EventLog, ...args) {
    calls++;
    log = this;
    return append.apply(this, args);
  });
  const wait = scheduler.wait.bind(scheduler);
  vi.spyOn(scheduler, "wait").mockImplementationOnce(async () => {
    while (calls < clients.length) await wait(1);
    if (log !== undefined) meet(log);
  });
  const report = (client: Client, i: number) => story.report(client, `cus_${i}`);
  const statuses = (await Promise.all(clients.map(report))).map(({ status }) => status);
  // One alone came into the first commit.
  const expected = clients.map((_, i) => (i === 0 || outcome === "all succeed" ? 200 : 503));
  expect(statuses.toSorted()).toEqual(expected);
  const known = await Promise.all(clients.map((client) => story.knows(client)));
  expect(known).toEqual(statuses.map((status) => status === 200));
  for (const [i, client] of clients.entries()) expect(await report(client, i)).toMatchObject({ status: 200 });
  for (const i of clients.keys()) await story.comesTo(1, `cus_${i}`);
}

const allFail = (meet: (log: EventLog) => void): Crash => [
  "all of them try again, and each event counts once",
  () => whileOthersWait(meet, "all fail"),
];

const allSucceed = (meet: (log: EventLog) => void): Crash => [
  "all are answered, and each event counts once",
  () => whileOthersWait(meet, "all succeed"),
];

const statementFails = (log: EventLog) =>
  void vi.spyOn(contextOf(log).storage.sql, "exec").mockImplementationOnce(() => {
    throw new Error(A_FAILURE);
  });

crashPoints("crash-points/log.test.ts", {
  "before the append's transaction": {
    "the disk fails": failedOnce(beforeRows("error")),
    "the log dies": failedOnce(beforeRows("abort")),
  },
  "inside the append's transaction, between its rows": {
    "the disk fails": failedOnce(betweenRows("error")),
    "the log dies": failedOnce(betweenRows("abort")),
  },
  "after the append's transaction": {
    "the log dies before the disk has it": failedOnce(unsaved),
    "the disk's answer is lost": diskLosesItsAnswer,
  },
  "after the answer": {
    "the log dies": ended("abort"),
    "the log is evicted": ended("eviction"),
    "the alarm is lost and the log dies": alarmIsLost,
  },
  "while callers wait for the next commit": {
    "its transaction fails": allFail(statementFails),
    "the log dies": allFail((log) => befall(log, "abort")),
    "the log is evicted": allSucceed((log) => befall(log, "eviction")),
  },
});
