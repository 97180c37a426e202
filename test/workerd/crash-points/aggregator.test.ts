// From the queue into D1 and back to the log: D1 ignores what it has, the log sends again what it was
// not told of.
import { env } from "cloudflare:workers";
import { expect } from "vitest";
import { tableOf } from "../../../src/aggregate/sql/events.ts";
import { liveSlices } from "../../../src/aggregate/sql/slices.ts";
import { sliceOf } from "../../../src/domain/window.ts";
import { D1 } from "../hostile-d1.ts";
import { aContext, aNewEvent, FUTURE } from "../support.ts";
import { end, type Fault, strikeLog, strikeTransaction } from "./faults.ts";
import { acknowledged, type Client, dies, diesAfterIt, type Fate, Story, type Strike } from "./story.ts";
import { type Crash, crashPoints } from "./table.ts";

/** An event whose message is on its way. */
async function sent() {
  const { story, client } = await acknowledged();
  await story.ring();
  expect(story.queue).toHaveLength(1);
  return { story, client };
}

async function countsOnceSentAgain(story: Story, countsBefore: number): Promise<void> {
  expect(await story.counted()).toBe(countsBefore);
  const before = story.sent;
  await story.comesTo(1);
  expect(story.sent).toBe(before + 1);
}

async function countsOnceNotSentAgain(story: Story): Promise<void> {
  const before = story.sent;
  await story.comesTo(1);
  expect(story.sent).toBe(before);
}

const sentAgain = (fate: Fate): Crash => [
  "the log sends again, and the event counts once",
  async () => {
    const { story } = await sent();
    await story.deliverTo(story.database(), fate);
    await countsOnceSentAgain(story, 0);
  },
];

const IGNORED = "the log sends again, D1 has it already, and the event counts once";

const ignored = (fate: Fate): Crash => [
  IGNORED,
  async () => {
    const { story } = await sent();
    await story.deliverTo(story.database(), fate);
    await countsOnceSentAgain(story, 1);
  },
];

const logEnds = (fault: "eviction" | "abort"): Crash => [
  "the new log takes the confirmation, and the event counts once",
  async () => {
    const { story, client } = await sent();
    await story.deliverTo(story.database(), (commit) => end(story.log(client), fault).then(commit));
    await countsOnceNotSentAgain(story);
  },
];

const EVENTS = 300;

/** Events of customers in turn with payloads of a length, in the first database. */
async function manySent(customers: readonly string[], length: number): Promise<Story> {
  const story = await Story.begin();
  const note = "x".repeat(length);
  const events = Array.from({ length: EVENTS }, (_, i) => {
    const customer = customers[i % customers.length] ?? "";
    const event = aNewEvent({ meter: story.meter.id, customer, timestamp: FUTURE });
    return { ...event, event: { ...event.event, payload: { note } } };
  });
  await story.logOfShard(0).append(events, aContext());
  await story.ring();
  expect(story.queue.length).toBeGreaterThan(0);
  return story;
}

/** More than is taken together. */
const half = (fate: Fate): Crash => [
  "the first part counts, the log sends the second again, and each event counts once",
  async () => {
    const story = await manySent(["cus_1"], 7_500);
    await story.deliverTo(env.EVENTS_0, fate, 1);
    const first = await story.counted();
    expect(first).toBeGreaterThan(0);
    expect(first).toBeLessThan(EVENTS);
    await story.comesTo(EVENTS);
  },
];

/** So much that it is stored lane by lane, of customers in several lanes. */
const betweenLanes = (fate: Fate): Crash => [
  "the log sends all again, and each event counts once",
  async () => {
    const customers = Array.from({ length: 10 }, (_, i) => `cus_${i}`);
    const each = EVENTS / customers.length;
    const story = await manySent(customers, 1_500);
    const messages = story.sent;
    await story.deliverTo(env.EVENTS_0, fate, 1);
    const counted = await Promise.all(customers.map((customer) => story.counted(customer)));
    // A customer's events are in one lane.
    expect(new Set(counted)).toEqual(new Set([0, each]));
    await story.comesTo(each, ...customers);
    expect(story.sent).toBe(2 * messages);
  },
];

/** The confirmation of an event that D1 has goes wrong. */
const unconfirmed = (strike: Strike): Crash => [
  IGNORED,
  async () => {
    const { story, client } = await sent();
    await strike(story, client);
    await story.deliver();
    await countsOnceSentAgain(story, 1);
  },
];

/** An event whose slice has no table yet; it is there after the fault with its row in `slices`, or neither is. */
const slice = (fate: Fate, isOpened: boolean): Crash => [
  "the log sends again, and the event counts once",
  async () => {
    const { story } = await sent();
    const db = story.database();
    const opened = sliceOf(FUTURE);
    await db.batch([
      db.prepare(`DROP TABLE ${tableOf(opened)}`),
      db.prepare("DELETE FROM slices WHERE slice = ?").bind(opened),
    ]);
    // The first transaction finds no table, the second makes it.
    await story.deliverTo(db, fate, 1);
    const tables = await db.prepare("SELECT 1 FROM sqlite_schema WHERE name = ?").bind(tableOf(opened)).all();
    const rows = (await liveSlices(db)).filter(({ slice }) => slice === opened);
    expect([tables.results.length, rows.length]).toEqual(isOpened ? [1, 1] : [0, 0]);
    await countsOnceSentAgain(story, 0);
  },
];

const confirm = (place: "before" | "unsaved", fault: Fault) => () => strikeLog("confirm", place, fault);
const transaction = (fault: Fault) => (story: Story, client: Client) => strikeTransaction(story.log(client), fault);

const confirmed = (fault: Fault): Crash => [
  "nothing is sent again, and the event counts once",
  async () => {
    const { story } = await sent();
    strikeLog("confirm", "after", fault);
    await story.deliver();
    await countsOnceNotSentAgain(story);
  },
];

crashPoints("crash-points/aggregator.test.ts", {
  "before D1's transaction": {
    "D1 refuses": sentAgain(D1.isAway),
    "the consumer dies": sentAgain(dies),
  },
  "after D1's transaction": {
    "D1's answer is lost": ignored(D1.losesItsAnswer),
    "the consumer dies": ignored(diesAfterIt),
  },
  "during D1's transaction": {
    "the log dies": logEnds("abort"),
    "the log is evicted": logEnds("eviction"),
  },
  "between two transactions of a batch": {
    "D1 refuses the second": half(D1.isAway),
    "the consumer dies": half(dies),
  },
  "between two lanes of what is taken together": {
    "D1 refuses the second": betweenLanes(D1.isAway),
    "the consumer dies": betweenLanes(dies),
  },
  "before a slice's table is made": {
    "D1 refuses": slice(D1.isAway, false),
    "the consumer dies": slice(dies, false),
  },
  "after a slice's table is made": {
    "D1's answer is lost": slice(D1.losesItsAnswer, true),
    "the consumer dies": slice(diesAfterIt, true),
  },
  "before the confirmation": {
    "the call to the log fails": unconfirmed(confirm("before", "error")),
    "the log dies": unconfirmed(confirm("before", "abort")),
  },
  "inside the confirmation": {
    "the disk fails": unconfirmed(transaction("error")),
    "the log dies": unconfirmed(transaction("abort")),
    "the log dies before the disk has it": unconfirmed(confirm("unsaved", "abort")),
  },
  "after the confirmation": {
    "its answer is lost": confirmed("error"),
    "the log dies": confirmed("abort"),
    "the log is evicted": confirmed("eviction"),
  },
});
