// The whole way of events, from the HTTP door to the summary, while the queue and D1 do their worst for hours.

import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import fc from "fast-check";
import { afterEach, describe, expect, inject, it, vi } from "vitest";
import { consume } from "../../../src/aggregate/consumer.ts";
import { DAY_MS, MINUTE_MS } from "../../../src/domain/window.ts";
import type { EventLog } from "../../../src/index.ts";
import type { EventAppend } from "../../../src/log/entries.ts";
import { decodeMessage } from "../../../src/log/message.ts";
import { unique } from "../../support/builders.ts";
import { end } from "../crash-points/faults.ts";
import { type Client, Story } from "../crash-points/story.ts";
import { D1, HostileD1 } from "../hostile-d1.ts";
import { aBatch, aContext, aNewEvent, FUTURE } from "../support.ts";

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

const aClient = (): Client => ({ identifier: unique("hostile") });

describe("a hostile queue", () => {
  type Fate = "lost" | "delayed" | "twice" | "delivered";

  it("that drops, repeats, delays, reorders and has two consumers at once changes no sum", async () => {
    const story = await Story.begin();
    const random = fc.sample(fc.nat({ max: 9_999 }), { numRuns: 5_000, seed: inject("seed") });
    const draw = (): number => (random.pop() ?? 0) / 10_000;
    const fate = (): Fate =>
      (["lost", "lost", "delayed", "twice", "delivered"] as const)[Math.floor(draw() * 5)] ?? "lost";
    const fates: Record<Fate, number> = { lost: 0, delayed: 0, twice: 0, delivered: 0 };
    const onTheirWay: { at: number; body: unknown }[] = [];
    const start = Date.now();
    let reported = 0;
    for (let minute = 0; minute < 80; minute++) {
      if (minute < 40) {
        await story.report(aClient());
        reported++;
      }
      await story.ringDue();
      for (const body of story.queue.splice(0)) {
        // The queue turns well for the last half hour.
        const drawn = minute < 50 ? fate() : "delivered";
        fates[drawn]++;
        if (drawn === "lost") continue;
        onTheirWay.push({ at: Date.now() + (drawn === "delayed" ? 20 * MINUTE_MS : 0), body });
        if (drawn === "twice") onTheirWay.push({ at: Date.now() + (draw() < 0.5 ? 0 : MINUTE_MS), body });
      }
      const arrived = onTheirWay.filter(({ at }) => at <= Date.now());
      onTheirWay.splice(0, onTheirWay.length, ...onTheirWay.filter((message) => !arrived.includes(message)));
      const bodies = arrived.map(({ body }) => ({ body, place: draw() })).sort((a, b) => a.place - b.place);
      const batch = bodies.map(({ body }) => body);
      const consumers = draw() < 0.3 ? 2 : 1;
      await Promise.all(Array.from({ length: consumers }, () => consume(aBatch(batch), env)));
      expect(await story.counted()).toBeLessThanOrEqual(reported);
      story.pass(MINUTE_MS);
    }
    expect(Date.now() - start).toBe(80 * MINUTE_MS);
    expect(await story.counted()).toBe(reported);
    for (const count of Object.values(fates)) expect(count).toBeGreaterThan(0);
    await story.rest();
    expect(await story.counted()).toBe(reported);
  });
});

/** The log's delays (ms): the first before a group is sent again, and the longest. */
const FIRST_DELAY_MS = 10_000;
const LONGEST_DELAY_MS = 10 * MINUTE_MS;

/** How often at most a group is sent within a time (ms) in which nobody confirms it: its delays double. */
function sendings(ms: number): number {
  let sent = 1;
  for (let delay = FIRST_DELAY_MS, at = delay; at <= ms; at += delay) {
    sent++;
    delay = Math.min(2 * delay, LONGEST_DELAY_MS);
  }
  return sent;
}

/** What was sent and when: how often each group, how many messages in the busiest minute. */
class Traffic {
  readonly #groups = new Map<string, number>();
  readonly #minutes = new Map<number, number>();

  note(bodies: readonly unknown[]): void {
    const minute = Math.floor(Date.now() / MINUTE_MS);
    if (bodies.length > 0) this.#minutes.set(minute, (this.#minutes.get(minute) ?? 0) + bodies.length);
    for (const { shard, group } of bodies.flatMap(decodeMessage)) {
      this.#groups.set(`${shard}:${group}`, (this.#groups.get(`${shard}:${group}`) ?? 0) + 1);
    }
  }

  get groups(): number {
    return this.#groups.size;
  }

  /** How often the group was sent that was sent most often. */
  get mostSendings(): number {
    return Math.max(...this.#groups.values());
  }

  get messages(): number {
    return [...this.#minutes.values()].reduce((sum, count) => sum + count, 0);
  }

  /** Messages in the minute that had most. */
  get busiest(): number {
    return Math.max(...this.#minutes.values());
  }
}

describe("an outage of D1", () => {
  /** One event a step for as long; then nothing but alarms until all counts. Both in ms of the clock. */
  async function outage(fate: HostileD1["fate"], ms: number, stepMs: number) {
    const story = await Story.begin();
    const d1 = new HostileD1();
    const [during, after] = [new Traffic(), new Traffic()];
    const step = async (traffic: Traffic) => {
      await story.ringDue();
      traffic.note(story.queue);
      await story.deliver();
      story.pass(stepMs);
    };
    // A key and a meter that the isolate knows.
    expect(await story.report(aClient())).toMatchObject({ status: 200 });
    let reported = 1;
    d1.fate = fate;
    const start = Date.now();
    while (Date.now() < start + ms) {
      expect(await story.report(aClient())).toMatchObject({ status: 200 });
      reported++;
      await step(during);
    }
    expect(d1.calls).toBeGreaterThan(0);
    d1.fate = D1.works;
    const back = Date.now();
    while ((await story.counted()) < reported) await step(after);
    const drained = Date.now() - back;
    await story.rest();
    expect(await story.counted()).toBe(reported);
    return { reported, during, after, drained };
  }

  const minutes = inject("outageMinutes");

  it(`of ${minutes} minutes costs no 503, no event and no storm, and is made up for within a minute`, async () => {
    const { reported, during, after, drained } = await outage(D1.isAway, minutes * MINUTE_MS, 15_000);
    console.log(
      `outage of ${minutes} min: ${reported} events; ${during.messages} messages during it, ${during.busiest} in the busiest minute, ` +
        `a group at most ${during.mostSendings} times; ${after.messages} messages to drain, in ${drained / 1_000} s`,
    );
    expect(during.mostSendings).toBeLessThanOrEqual(sendings(minutes * MINUTE_MS));
    // Each shard looks at what is due at most every two seconds, and packs it into one message.
    expect(during.busiest).toBeLessThanOrEqual(4 * 30);
    expect(after.mostSendings).toBeLessThanOrEqual(2);
    expect(after.messages).toBeLessThanOrEqual(after.groups);
    expect(drained).toBeLessThanOrEqual(MINUTE_MS);
  });

  it("that commits and says that it failed, for ten minutes, counts nothing twice", async () => {
    const { during } = await outage(D1.losesItsAnswer, 10 * MINUTE_MS, 20_000);
    expect(during.mostSendings).toBeGreaterThan(1);
  });
});

describe("an event whose key and meter the isolate knows", () => {
  /** The age (ms) at which an isolate looks them up again, and a little more. */
  const AGE_MS = 6_000;

  /** A story in which the isolate has just met the key and the meter, and a D1 that can be broken. */
  async function knownToTheIsolate() {
    const story = await Story.begin();
    // Later than all other stories, which the isolate remembers.
    story.pass(2 * DAY_MS);
    expect(await story.report(aClient())).toMatchObject({ status: 200 });
    return { story, d1: new HostileD1() };
  }

  it("makes no call of D1", async () => {
    const { story, d1 } = await knownToTheIsolate();
    for (const customer of ["cus_1", "cus_2"]) {
      expect(await story.report(aClient(), customer)).toMatchObject({ status: 200 });
    }
    expect(d1.calls).toBe(0);
  });

  it("is answered while D1 has not answered the look-up that refreshes them", async () => {
    const { story, d1 } = await knownToTheIsolate();
    const answer = Promise.withResolvers<void>();
    d1.fate = (call) => answer.promise.then(call);
    story.pass(AGE_MS);
    expect(await story.report(aClient())).toMatchObject({ status: 200 });
    expect(d1.calls).toBeGreaterThan(0);
    answer.resolve();
    await story.rest();
    expect(await story.counted()).toBe(2);
  });
});

describe("a backlog many times as large as what may be on its way", () => {
  /** What a log may have on its way: groups, and characters of their entries. */
  const MOST_GROUPS = 1_000;
  const MOST_CHARACTERS = 4_000_000;
  /** A group that is sent when there is only just room. */
  const ONE_GROUP = 120_000;

  const events = (story: Story, count: number, note: string): EventAppend[] =>
    Array.from({ length: count }, () => {
      const event = aNewEvent({ meter: story.meter.id, timestamp: FUTURE });
      return { ...event, event: { ...event.event, payload: { note } } };
    });

  const backlogs = {
    "of small groups": { commits: 2_500, eventsEach: 1, note: "" },
    "of large groups": { commits: 15, eventsEach: 100, note: "x".repeat(7_500) },
  };

  for (const [name, { commits, eventsEach, note }] of Object.entries(backlogs)) {
    it(`${name} is read in pages, is never on its way as a whole, and drains by alarms alone`, async () => {
      const story = await Story.begin();
      const log = () => story.logOfShard(0);
      vi.spyOn(scheduler, "wait").mockResolvedValue();
      await runInDurableObject(log(), async (instance) => {
        for (let i = 0; i < commits; i++) await instance.append(events(story, eventsEach, note), aContext());
      });
      const sent = new Map<number, number>();
      const characters = () => [...sent.values()].reduce((sum, length) => sum + length, 0);
      // For half an hour nobody takes anything; in the middle of it the log is restarted.
      for (let minute = 0; minute < 30; minute++) {
        if (minute === 15) await end(log(), "eviction");
        const rows = minute % 15 === 0 ? await mostGroupsRead(log()) : () => 0;
        await story.ringDue();
        expect(rows()).toBeLessThanOrEqual(50);
        for (const share of story.queue.splice(0).flatMap(decodeMessage)) sent.set(share.group, share.size);
        story.pass(MINUTE_MS);
      }
      expect(sent.size).toBeGreaterThan(20);
      expect(sent.size).toBeLessThanOrEqual(MOST_GROUPS);
      expect(characters()).toBeLessThanOrEqual(MOST_CHARACTERS + ONE_GROUP);
      expect(sent.size >= MOST_GROUPS || characters() >= MOST_CHARACTERS).toBe(true);
      const total = commits * eventsEach;
      expect(total * (note.length || 1)).toBeGreaterThan(2 * (note === "" ? MOST_GROUPS : MOST_CHARACTERS));
      await story.rest(40);
      expect(await story.counted()).toBe(total);
    });
  }

  /** The most groups that one statement of a log gives, from now on until the log ends. */
  async function mostGroupsRead(log: DurableObjectStub<EventLog>): Promise<() => number> {
    let most = 0;
    await runInDurableObject(log, (_, { storage }) => {
      const exec = storage.sql.exec.bind(storage.sql);
      vi.spyOn(storage.sql, "exec").mockImplementation(((query: string, ...bindings: never[]) => {
        const cursor = exec(query, ...bindings);
        const toArray = cursor.toArray.bind(cursor);
        cursor.toArray = () => {
          const rows = toArray();
          if (query.includes("entries")) most = Math.max(most, rows.length);
          return rows;
        };
        return cursor;
      }) as typeof exec);
    });
    return () => most;
  }
});
