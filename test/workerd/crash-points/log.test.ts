// Inside the log, from the append to the queue: what was acknowledged counts once, and of what was not
// there is all or nothing.
import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, expect, vi } from "vitest";
import { shardOf, uniqueKey } from "../../../src/domain/identifiers.ts";
import { settingsOf } from "../../../src/env.ts";
import { EventLog } from "../../../src/index.ts";
import { maintain } from "../../../src/scheduled.ts";
import { unique } from "../../support/builders.ts";
import { A_FAILURE, befall, contextOf, end, strikeStatement, strikeTransaction } from "./faults.ts";
import { type Client, Story } from "./story.ts";
import { agreesWithReadme, crash } from "./table.ts";

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

/** A client whose report is one append: the SDK's own key is not claimed. */
const aClient = (): Client => ({ identifier: unique("crash"), key: `stripe-node-retry-${unique("crash_key")}` });

/** A report that fails, and its retry. */
async function failedOnce(strike: (story: Story, client: Client) => Promise<() => number>): Promise<void> {
  const client = aClient();
  const story = await Story.begin();
  const struck = await strike(story, client);
  expect(await story.report(client)).toMatchObject({ status: 503 });
  expect(struck()).toBe(1);
  // All or nothing: an event that is known has its alarm.
  const known = await story.knows(client);
  expect(await story.ring()).toBe(known);
  expect(await story.report(client)).toMatchObject({ status: 200 });
  await story.rest();
  expect(await story.counted()).toBe(1);
}

/** A report that is acknowledged, whatever happens then. */
async function acknowledged(then: (story: Story, client: Client) => Promise<unknown>): Promise<void> {
  const client = aClient();
  const story = await Story.begin();
  expect(await story.report(client)).toMatchObject({ status: 200 });
  await then(story, client);
  await story.rest();
  expect(await story.counted()).toBe(1);
}

const RETRY_COUNTS = "the client tries again, and the event counts once";
const COUNTS = "the event counts once";

crash("before the append's transaction", "the disk fails", RETRY_COUNTS, () =>
  failedOnce((story, client) => strikeTransaction(story.log(client), "before", "error")),
);
crash("before the append's transaction", "the log dies", RETRY_COUNTS, () =>
  failedOnce((story, client) => strikeTransaction(story.log(client), "before", "abort")),
);
crash("inside the append's transaction, between its rows", "the disk fails", RETRY_COUNTS, () =>
  failedOnce((story, client) => strikeStatement(story.log(client), "INSERT INTO groups", "error")),
);
crash("inside the append's transaction, between its rows", "the log dies", RETRY_COUNTS, () =>
  failedOnce((story, client) => strikeStatement(story.log(client), "INSERT INTO groups", "abort")),
);
crash("after the append's transaction", "the log dies before the disk has it", RETRY_COUNTS, () =>
  failedOnce((story, client) => strikeTransaction(story.log(client), "unsaved", "abort")),
);
crash("after the append's transaction", "the disk's answer is lost", COUNTS, async () => {
  const client = aClient();
  const story = await Story.begin();
  await runInDurableObject(story.log(client), (_, { storage }) => {
    vi.spyOn(storage, "sync").mockRejectedValueOnce(new Error(A_FAILURE));
  });
  expect(await story.report(client)).toMatchObject({ status: 200 });
  // The log goes on.
  expect(await story.report(client)).toMatchObject({ status: 200 });
  await story.rest();
  expect(await story.counted()).toBe(1);
});

for (const [fault, name] of [
  ["abort", "the log dies"],
  ["eviction", "the log is evicted"],
] as const) {
  crash("after the answer", name, COUNTS, () => acknowledged((story, client) => end(story.log(client), fault)));
}
crash("after the answer", "the alarm is lost and the log dies", "the minute's nudge brings the event home", () =>
  acknowledged(async (story, client) => {
    await runInDurableObject(story.log(client), (_, { storage }) => storage.deleteAlarm());
    await end(story.log(client), "abort");
    expect(await story.ring()).toBe(false);
    await maintain(env, Date.now());
    expect(story.queue).toHaveLength(1);
    await story.deliver();
  }),
);

/** Events of as many customers, all for one shard. */
function neighbours(): Client[] {
  const shard = (identifier: string) => shardOf(uniqueKey(false, identifier), settingsOf(env).EVENT_LOG_SHARDS);
  const found: Client[] = [];
  while (found.length < 6) {
    const client = aClient();
    if (shard(client.identifier ?? "") === 0) found.push(client);
  }
  return found;
}

/** Something happens to a log while one commit is being written and the other calls wait for the next. */
async function whileOthersWait(meet: (log: EventLog) => void, outcome: "all fail" | "all succeed"): Promise<void> {
  const story = await Story.begin();
  const clients = neighbours();
  let log: EventLog | undefined;
  let calls = 0;
  const { append } = EventLog.prototype;
  vi.spyOn(EventLog.prototype, "append").mockImplementation(function (this: EventLog, entries) {
    calls++;
    log = this;
    return append.call(this, entries);
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
  await story.rest();
  for (const i of clients.keys()) expect(await story.counted(`cus_${i}`)).toBe(1);
}

const ALL_RETRY = "all of them try again, and each event counts once";

crash("while callers wait for the next commit", "its transaction fails", ALL_RETRY, () =>
  whileOthersWait((log) => {
    vi.spyOn(contextOf(log).storage, "transactionSync").mockImplementationOnce(() => befall(log, "error"));
  }, "all fail"),
);
crash("while callers wait for the next commit", "the log dies", ALL_RETRY, () =>
  whileOthersWait((log) => befall(log, "abort"), "all fail"),
);
crash(
  "while callers wait for the next commit",
  "the log is evicted",
  "all are answered, and each event counts once",
  () => whileOthersWait((log) => befall(log, "eviction"), "all succeed"),
);

agreesWithReadme("crash-points/log.test.ts");
