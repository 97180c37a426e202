// From the queue into D1 and back to the log: D1 ignores what it has, the log sends again what it was
// not told of.
import { env } from "cloudflare:workers";
import { afterEach, expect, vi } from "vitest";
import { unique } from "../../support/builders.ts";
import { aNewEvent, FUTURE } from "../support.ts";
import { A_FAILURE, end, type Fault, strikeLog, strikeTransaction } from "./faults.ts";
import { type Client, Story } from "./story.ts";
import { agreesWithReadme, crash } from "./table.ts";

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

const never = (): Promise<never> => new Promise(() => {});

/** An event whose message is on its way. */
async function sent(): Promise<{ story: Story; client: Client }> {
  const client = { identifier: unique("crash"), key: unique("crash_key") };
  const story = await Story.begin();
  expect(await story.report(client)).toMatchObject({ status: 200 });
  await story.ring();
  expect(story.queue).toHaveLength(1);
  return { story, client };
}

/** What befalls the aggregator's next transaction, after others. */
function strikeD1(befall: (commit: () => Promise<D1Result[]>) => Promise<D1Result[]>, skip = 0): () => number {
  const batch = env.DB.batch.bind(env.DB);
  let calls = 0;
  vi.spyOn(env.DB, "batch").mockImplementation(((statements: D1PreparedStatement[]) =>
    calls++ === skip ? befall(() => batch(statements)) : batch(statements)) as typeof batch);
  return () => calls;
}

/** A consumer that may die: nobody hears of it again. Settled once D1 was asked. */
async function deliverAndDie(story: Story, reached: () => boolean): Promise<void> {
  void story.deliver();
  await vi.waitFor(() => expect(reached()).toBe(true));
}

const SENT_AGAIN = "the log sends again, and the event counts once";
const IGNORED = "the log sends again, D1 has it already, and the event counts once";

async function comesHome(story: Story, countsBefore: number): Promise<void> {
  expect(await story.counted()).toBe(countsBefore);
  const before = story.sent;
  await story.rest();
  expect(story.sent).toBe(before + 1);
  expect(await story.counted()).toBe(1);
}

crash("before D1's transaction", "D1 refuses", SENT_AGAIN, async () => {
  const { story } = await sent();
  const asked = strikeD1(() => Promise.reject(new Error(`D1_ERROR: ${A_FAILURE}`)));
  await story.deliver();
  expect(asked()).toBe(1);
  await comesHome(story, 0);
});

crash("before D1's transaction", "the consumer dies", SENT_AGAIN, async () => {
  const { story } = await sent();
  const asked = strikeD1(never);
  await deliverAndDie(story, () => asked() === 1);
  await comesHome(story, 0);
});

crash("after D1's transaction", "D1's answer is lost", IGNORED, async () => {
  const { story } = await sent();
  const asked = strikeD1(async (commit) => {
    await commit();
    throw new Error(`D1_ERROR: ${A_FAILURE}`);
  });
  await story.deliver();
  expect(asked()).toBe(1);
  await comesHome(story, 1);
});

crash("after D1's transaction", "the consumer dies", IGNORED, async () => {
  const { story } = await sent();
  let committed = false;
  strikeD1(async (commit) => {
    await commit();
    committed = true;
    return never();
  });
  await deliverAndDie(story, () => committed);
  await comesHome(story, 1);
});

for (const [fault, name] of [
  ["abort", "the log dies"],
  ["eviction", "the log is evicted"],
] as const) {
  crash("during D1's transaction", name, "the new log takes the confirmation, and the event counts once", async () => {
    const { story, client } = await sent();
    const asked = strikeD1(async (commit) => {
      await end(story.log(client), fault);
      return commit();
    });
    await story.deliver();
    expect(asked()).toBe(1);
    await confirmed(story);
  });
}

/** Nothing is sent any more. */
async function confirmed(story: Story): Promise<void> {
  const before = story.sent;
  await story.rest();
  expect(story.sent).toBe(before);
  expect(await story.counted()).toBe(1);
}

/** More than one transaction takes: some 300 events of 8 KB each, of one customer. */
async function manySent(): Promise<{ story: Story; events: number }> {
  const story = await Story.begin();
  const note = "x".repeat(7_500);
  const events = Array.from({ length: 300 }, () => {
    const event = aNewEvent({ meter: story.meter.id, timestamp: FUTURE });
    return { ...event, event: { ...event.event, dimensions: { note } } };
  });
  await story.logOfShard(0).append(events);
  await story.ring();
  expect(story.queue.length).toBeGreaterThan(10);
  return { story, events: events.length };
}

const HALF = "the first part counts, the log sends the second again, and each event counts once";

crash("between two transactions of a batch", "D1 refuses the second", HALF, async () => {
  const { story, events } = await manySent();
  const asked = strikeD1(() => Promise.reject(new Error(`D1_ERROR: ${A_FAILURE}`)), 1);
  await story.deliver();
  expect(asked()).toBe(2);
  await halfCameHome(story, events);
});

crash("between two transactions of a batch", "the consumer dies", HALF, async () => {
  const { story, events } = await manySent();
  const asked = strikeD1(never, 1);
  await deliverAndDie(story, () => asked() === 2);
  await halfCameHome(story, events);
});

async function halfCameHome(story: Story, events: number): Promise<void> {
  const first = await story.counted();
  expect(first).toBeGreaterThan(0);
  expect(first).toBeLessThan(events);
  await story.rest();
  expect(await story.counted()).toBe(events);
}

/** The confirmation of an event that D1 has goes wrong. */
async function confirmationFails(strike: (story: Story, client: Client) => Promise<() => number>): Promise<void> {
  const { story, client } = await sent();
  const struck = await strike(story, client);
  await story.deliver();
  expect(struck()).toBe(1);
  await comesHome(story, 1);
}

const strikeConfirm = (place: "before" | "unsaved" | "after", fault: Fault) => async () =>
  strikeLog("confirm", place, fault);

crash("before the confirmation", "the call to the log fails", IGNORED, () =>
  confirmationFails(strikeConfirm("before", "error")),
);
crash("before the confirmation", "the log dies", IGNORED, () => confirmationFails(strikeConfirm("before", "abort")));
crash("inside the confirmation", "the disk fails", IGNORED, () =>
  confirmationFails((story, client) => strikeTransaction(story.log(client), "inside", "error")),
);
crash("inside the confirmation", "the log dies", IGNORED, () =>
  confirmationFails((story, client) => strikeTransaction(story.log(client), "inside", "abort")),
);
crash("inside the confirmation", "the log dies before the disk has it", IGNORED, () =>
  confirmationFails(strikeConfirm("unsaved", "abort")),
);

const NOT_AGAIN = "nothing is sent again, and the event counts once";

for (const [fault, name] of [
  ["error", "its answer is lost"],
  ["abort", "the log dies"],
  ["eviction", "the log is evicted"],
] as const) {
  crash("after the confirmation", name, NOT_AGAIN, async () => {
    const { story } = await sent();
    const struck = strikeLog("confirm", "after", fault);
    await story.deliver();
    expect(struck()).toBe(1);
    await confirmed(story);
  });
}

agreesWithReadme("crash-points/aggregator.test.ts");
