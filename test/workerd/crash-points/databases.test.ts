// A group with shares in two databases, and a log that learns of more: what one database has is not sent to it again
// without need, what it lacks is, and where an event belongs is decided once.
import { expect } from "vitest";
import { ONE_DATABASE, type Placement } from "../../../src/domain/placement.ts";
import { EventLog } from "../../../src/index.ts";
import { D1 } from "../hostile-d1.ts";
import { aClaim, aContext, again, aNewEvent, eventually } from "../support.ts";
import { end, type Fault, replaceCall, strikeLog, strikeStatement } from "./faults.ts";
import { dies, type Fate, Story } from "./story.ts";
import { type Crash, crashPoints } from "./table.ts";

type End = "eviction" | "abort";

/** A group of one event for EVENTS_1 and one for EVENTS_2, on its way. */
async function twoShares() {
  const story = await Story.begin();
  const customers = [1, 2].map((database) => story.customerIn(database));
  expect(await story.reportTogether(customers)).toMatchObject({ status: 200 });
  await story.ring();
  expect(story.databasesSent()).toEqual([1, 2]);
  return { story, customers, log: () => story.logOfShard(0) };
}

/** The databases whose shares are sent again when nothing but time passes. */
async function sentAgain(story: Story): Promise<number[]> {
  story.pass();
  await story.ring();
  return story.databasesSent();
}

/** EVENTS_1 has its share and the log knows of it, before EVENTS_2's transaction meets its fate. */
const between = (outcome: string, fate: (log: () => DurableObjectStub<EventLog>) => Fate, again: number): Crash => [
  `${outcome}, and each event counts once`,
  async () => {
    const { story, customers, log } = await twoShares();
    let isHeard = false;
    replaceCall(EventLog.prototype, "confirm", (confirm) =>
      confirm().finally(() => {
        isHeard = true;
      }),
    );
    await story.deliverTo(story.database(customers[1]), async (...way) => {
      await eventually(() => expect(isHeard).toBe(true));
      return fate(log)(...way);
    });
    expect(await story.counted(customers[0])).toBe(1);
    expect(await sentAgain(story)).toEqual([again]);
    await story.comesTo(1, ...customers);
  },
];

const secondAgain = (fate: Fate): Crash => between("the log sends the second share alone again", () => fate, 2);

const firstAgain = (fault: End): Crash =>
  between(
    "the new log hears of the second share and sends the first again",
    (log) => (commit) => end(log(), fault).then(commit),
    1,
  );

/** Both databases have their shares, and the second confirmation goes wrong. */
async function halfConfirmed(fault: Fault = "error") {
  const told = await twoShares();
  strikeLog("confirm", "before", fault, 1);
  await told.story.deliver();
  return told;
}

const lost: Crash = [
  "the log sends that share alone again, and each event counts once",
  async () => {
    const { story, customers } = await halfConfirmed();
    expect(await sentAgain(story)).toHaveLength(1);
    await story.comesTo(1, ...customers);
  },
];

/** The log's memory is lost, in which alone it was that one share is confirmed. */
const forgotten = (halfOf: () => ReturnType<typeof halfConfirmed>): Crash => [
  "both shares are sent again, and each event counts once",
  async () => {
    const { story, customers } = await halfOf();
    expect(await sentAgain(story)).toEqual([1, 2]);
    await story.comesTo(1, ...customers);
  },
];

const endsUnwritten = (fault: End) => async () => {
  const told = await halfConfirmed();
  await end(told.log(), fault);
  return told;
};

/** An alarm a minute later, which writes down what is confirmed in part. */
async function alarmAfterMinute({ story }: { story: Story }): Promise<void> {
  await sentAgain(story);
  story.queue.length = 0;
}

const unwritten = (fault: "error" | "abort") => async () => {
  const told = await halfConfirmed();
  await strikeStatement(told.log(), "INTO partly_confirmed", fault);
  await alarmAfterMinute(told);
  return told;
};

const written = (fault: End): Crash => [
  "the missing share alone is sent again, and each event counts once",
  async () => {
    const told = await halfConfirmed();
    await alarmAfterMinute(told);
    await end(told.log(), fault);
    expect(await sentAgain(told.story)).toHaveLength(1);
    await told.story.comesTo(1, ...told.customers);
  },
];

const GROWN: Placement = [...ONE_DATABASE, { databases: 4, since: 0 }];

/** An event for EVENTS_3 by the longer placement, and the log that it goes to. */
async function growing() {
  const story = await Story.begin();
  const customer = story.customerIn(3);
  return { story, customer, log: () => story.logOfShard(0), event: aNewEvent({ meter: story.meter.id, customer }) };
}

async function isPlaced({ story, customer }: { story: Story; customer: string }): Promise<void> {
  await story.ring();
  expect(story.databasesSent()).toEqual([3]);
  await story.comesTo(1, customer);
}

const retried = (fault: "error" | "abort"): Crash => [
  "the retry is placed by it, and counts once",
  async () => {
    const told = await growing();
    await strikeStatement(told.log(), "INTO groups", fault);
    const failed = told
      .log()
      .append([told.event], aContext({ placement: GROWN }))
      .then(
        () => false,
        () => true,
      );
    expect(await failed).toBe(true);
    for (const _ of [1, 2]) await told.log().append([again(told.event)], aContext({ placement: GROWN }));
    await isPlaced(told);
  },
];

const remembered = (fault: End): Crash => [
  "an event from an edge that knows fewer is placed by it, and counts once",
  async () => {
    const told = await growing();
    await told.log().append([aClaim()], aContext({ placement: GROWN }));
    await end(told.log(), fault);
    await told.log().append([told.event], aContext({ placement: ONE_DATABASE }));
    await isPlaced(told);
  },
];

crashPoints("crash-points/databases.test.ts", {
  "between two databases of a batch": {
    "the second refuses": secondAgain(D1.isAway),
    "the second's answer is lost": secondAgain(D1.losesItsAnswer),
    "the consumer dies": secondAgain(dies),
    "the log dies": firstAgain("abort"),
    "the log is evicted": firstAgain("eviction"),
  },
  "between the confirmations of a group's shares": {
    "the second is lost": lost,
    "the second is lost and the log dies": forgotten(endsUnwritten("abort")),
    "the second is lost and the log is evicted": forgotten(endsUnwritten("eviction")),
    "the log dies": forgotten(() => halfConfirmed("abort")),
  },
  "before a partly confirmed group is written down": {
    "the disk fails": forgotten(unwritten("error")),
    "the log dies": forgotten(unwritten("abort")),
  },
  "after a partly confirmed group is written down": {
    "the log dies": written("abort"),
    "the log is evicted": written("eviction"),
  },
  "between the adoption of a longer placement and the log's first commit": {
    "the disk fails": retried("error"),
    "the log dies": retried("abort"),
  },
  "after the adoption of a longer placement": {
    "the log dies": remembered("abort"),
    "the log is evicted": remembered("eviction"),
  },
});
