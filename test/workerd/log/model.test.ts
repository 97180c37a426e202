// The real log and the real aggregator live through random stories of appends, retries, cancellations,
// lost, repeated and reordered messages, failures of D1 and of the queue, restarts and hours that pass.
// Every answer, and what D1 holds once all is quiet, must be what a naive model says.
import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import fc from "fast-check";
import { afterEach, beforeEach, expect, inject, it, vi } from "vitest";
import { consume } from "../../../src/aggregate/consumer.ts";
import { uniqueKey } from "../../../src/domain/identifiers.ts";
import { aggregationOf, type Meter } from "../../../src/domain/meter.ts";
import { ceilTo, DAY_MS, floorTo, HOUR_MS, MINUTE_MS } from "../../../src/domain/window.ts";
import { type Env, settingsOf } from "../../../src/env.ts";
import type { CancelRequest, ClaimAppend, EventAppend } from "../../../src/log/entries.ts";
import type { EventLog } from "../../../src/log/event-log.ts";
import { decodeMessage } from "../../../src/log/groups.ts";
import { readSummaries } from "../../../src/query/summaries.ts";
import { aMeter, anEventId, unique } from "../../support/builders.ts";
import { fold } from "../../support/fold.ts";
import { Model } from "../../support/model.ts";
import { aBatch, aClaim, again, aNewEvent, aShard } from "../support.ts";

/** Where stories begin (ms). It lies ahead, since the runtime rings an alarm that lies behind at once. */
const START = Date.UTC(2040, 5, 15);

/** How far the clock may go back (ms). */
const CLOCK_SLIP_MS = 5 * MINUTE_MS;

/** Longer than the log ever waits before it sends a group again, also when the clock went back (ms). */
const REST_MS = 20 * MINUTE_MS;

/** Sendings after which every group must have been confirmed. */
const ROUNDS_TO_REST = 5;

const KINDS = [
  { formula: "sum", eventTimeWindow: null },
  { formula: "count", eventTimeWindow: null },
  { formula: "last", eventTimeWindow: null },
  { formula: "sum", eventTimeWindow: "hour" },
  { formula: "sum", eventTimeWindow: "day" },
  { formula: "last", eventTimeWindow: "day" },
  { formula: "count", eventTimeWindow: "hour" },
] as const satisfies readonly Partial<Meter>[];

const CUSTOMERS = ["cus_1", "cus_2"] as const;

const pick = fc.nat({ max: 20 });
const digest = fc.constantFrom(undefined, "key_1", "key_2");
const reportDigest = fc.constantFrom("report_1", "report_2");

/** A new report; its identifier is one of few, so that they meet, or its own. */
const report = fc.record({
  is: fc.constant("report" as const),
  identifier: fc.option(fc.constantFrom("a", "b", "c")),
  /** It has no identifier, and takes the one that an Idempotency-Key stands for. */
  underKey: fc.option(fc.constantFrom("k", "l"), { freq: 2 }),
  keyDigest: digest,
  reportDigest,
  meter: fc.constantFrom(0, 1),
  customer: fc.constantFrom(...CUSTOMERS),
  value: fc.oneof(
    { weight: 4, arbitrary: fc.integer({ min: 1, max: 100 }) },
    { weight: 1, arbitrary: fc.constantFrom(999_999_999_999_999, 1_000_000_000) },
  ),
  /** How far the clock of the edge is off that it came through (ms). */
  skew: fc.constantFrom(0, 0, -20, 20),
  /** How long ago it happened (ms), or nothing: when it is received. */
  ago: fc.option(
    fc.constantFrom(0, 1, MINUTE_MS, 20 * MINUTE_MS, HOUR_MS, 5 * HOUR_MS, DAY_MS, 30 * DAY_MS, -4 * MINUTE_MS),
  ),
});

/** A request of another kind under an Idempotency-Key. */
const claim = fc.record({
  is: fc.constant("claim" as const),
  underKey: fc.constantFrom("k", "l"),
  reportDigest,
});

/** An earlier report again, by the platform (`sameId`) or by the client. */
const repeat = fc.record({ is: fc.constant("repeat" as const), of: pick, sameId: fc.boolean() });

const command = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant("append" as const),
      entries: fc.array(
        fc.oneof({ weight: 6, arbitrary: report }, { weight: 2, arbitrary: repeat }, { weight: 1, arbitrary: claim }),
        { minLength: 1, maxLength: 3 },
      ),
      /** Each in a call of its own, all at once. */
      apart: fc.boolean(),
      /** The log dies meanwhile, and the callers try again. */
      crash: fc.integer({ min: 0, max: 9 }).map((n) => n === 9),
      /** In a message of its own. */
      sent: fc.boolean(),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant("cancel" as const),
      /** Of the events that were ever reported, from the newest; or one that never was. */
      of: fc.option(fc.nat({ max: 7 }), { freq: 7 }),
      keyDigest: digest,
      requestDigest: fc.constantFrom("request_1", "request_2"),
      meters: fc.constantFrom([0, 1], [0, 1], [0, 1], [0], [1]),
      /** The same adjustment once more, if there was one. */
      sameId: fc.integer({ min: 0, max: 3 }).map((n) => n === 3),
      /** In a message of its own. */
      sent: fc.boolean(),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant("send" as const),
      by: fc.constantFrom("nudge", "alarm"),
      queueFails: fc.integer({ min: 0, max: 5 }).map((n) => n === 5),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant("deliver" as const),
      /** Of the messages ever sent, from the newest; those that are never taken were lost. */
      of: fc.oneof(
        fc.nat({ max: 3 }).map((back) => [back]),
        fc.array(fc.nat({ max: 7 }), { minLength: 1, maxLength: 3 }),
      ),
      fault: fc.constantFrom("none", "none", "none", "before_commit", "after_commit", "confirmation_lost"),
      /** By two consumers at once. */
      twice: fc.boolean(),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("confirm" as const), of: pick, times: fc.constantFrom(1, 2) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant("wait" as const),
      ms: fc.constantFrom(
        1,
        15_000,
        13 * MINUTE_MS,
        HOUR_MS,
        12 * HOUR_MS,
        DAY_MS - 1,
        DAY_MS,
        37 * HOUR_MS,
        -1,
        -CLOCK_SLIP_MS,
      ),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("restart" as const) }) },
);

type Command = typeof command extends fc.Arbitrary<infer T> ? T : never;
type CommandOf<K extends Command["do"]> = Extract<Command, { do: K }>;
type Entry = CommandOf<"append">["entries"][number];

const story = fc.record({
  meters: fc.tuple(fc.constantFrom(...KINDS), fc.constantFrom(...KINDS)),
  startHour: fc.constantFrom(3, 11, 23),
  commands: fc.array(command, { minLength: 5, maxLength: 25, size: "max" }),
});

/** Whatever the logs send to the queue. */
let send: (body: string) => void = () => {};

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["Date"], now: START });
  vi.spyOn(env.EVENT_QUEUE, "sendBatch").mockImplementation(async (batch) => {
    for (const { body } of batch) send(String(body));
    return {} as QueueSendBatchResponse;
  });
  // So that a story has one course: the log sends when it is told to, and delays are not spread.
  const setTimeout = globalThis.setTimeout.bind(globalThis);
  vi.spyOn(globalThis, "setTimeout").mockImplementation(((callback: () => void, ms?: number) =>
    ms === settingsOf(env).SEND_DELAY_MS ? 0 : setTimeout(callback, ms)) as typeof setTimeout);
  vi.spyOn(scheduler, "wait").mockResolvedValue();
  vi.spyOn(Math, "random").mockReturnValue(0.5);
  // Failures are part of the story.
  vi.spyOn(console, "error").mockImplementation(() => {});
});

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

class Story {
  readonly #model = new Model();
  readonly #meters: readonly [Meter, Meter];
  readonly #shard: number;
  readonly #name = unique("story");
  /** Every event that was ever appended. */
  readonly #reported: EventAppend[] = [];
  /** Every message that was ever sent. */
  readonly #sent: string[] = [];
  /** Groups that D1 has. */
  readonly #stored: number[] = [];
  #latest: number;

  constructor(kinds: readonly [(typeof KINDS)[number], (typeof KINDS)[number]], start: number) {
    this.#shard = aShard().shard;
    const meter = (kind: (typeof KINDS)[number], place: string): Meter => ({
      ...aMeter(kind),
      id: `mtr_${this.#name}_${place}`,
    });
    this.#meters = [meter(kinds[0], "a"), meter(kinds[1], "b")];
    this.#latest = start;
    vi.setSystemTime(start);
    send = (body) => {
      if (decodeMessage(body)[0]?.shard === this.#shard) this.#sent.push(body);
    };
  }

  async play(step: Command): Promise<void> {
    switch (step.do) {
      case "append":
        return this.#append(step);
      case "cancel":
        return this.#cancel(step);
      case "send":
        return this.#send(step);
      case "deliver":
        return this.#deliver(step);
      case "confirm":
        return this.#confirm(step);
      case "wait":
        return this.#wait(step.ms);
      case "restart":
        return this.#restart();
    }
  }

  /** Lets the log send and D1 answer until nothing is left to send; what was lost before stays lost. */
  async rest(): Promise<void> {
    for (let round = 0; round < ROUNDS_TO_REST; round++) {
      const before = this.#sent.length;
      this.#wait(REST_MS);
      await this.#log().nudge();
      if (this.#sent.length === before) return;
      await consume(aBatch(this.#sent.slice(before)), env);
    }
    throw new Error("the log goes on sending although everything was confirmed");
  }

  /** Compares what D1 and the log say with the model. */
  async check(): Promise<void> {
    const rows = await this.#rows();
    expect(rows.events).toEqual(
      this.#model.events
        .map(({ logged, cancelled }) => ({
          meter: logged.meter,
          customer: logged.customer,
          timestamp: logged.timestamp,
          id: logged.id,
          identifier: logged.identifier,
          value: logged.value,
          received: logged.received,
          cancelled: cancelled?.at ?? null,
        }))
        .sort((a, b) => (a.id < b.id ? -1 : 1)),
    );
    await this.#checkSummaries();
    await this.#checkRetrieval();
    // Whatever the queue brings again, in whatever order, nothing changes.
    if (this.#sent.length === 0) return;
    for (const body of this.#sent.toReversed()) await consume(aBatch([body]), env);
    expect(await this.#rows()).toEqual(rows);
  }

  async #append({ entries, apart, crash, sent }: CommandOf<"append">): Promise<void> {
    const events = entries.flatMap((entry) => this.#newEntry(entry) ?? []);
    const log = this.#log();
    const call = async (to: DurableObjectStub<EventLog>) =>
      (await Promise.all(apart ? events.map((event) => to.append([event])) : [to.append(events)])).flat();
    if (crash) {
      // Whether it was accepted before the end or not, the retry must find out.
      await Promise.allSettled([call(log), evictDurableObject(log)]);
    }
    const outcomes = await call(crash ? this.#log() : log);
    expect(outcomes).toEqual(events.map((event) => this.#model.append(event, Date.now())));
    if (sent) await this.#log().nudge();
  }

  #newEntry(entry: Entry): EventAppend | ClaimAppend | undefined {
    if (entry.is === "claim") {
      return { ...aClaim(), shard: this.#shard, key: this.#keyUnder(entry.underKey), reportDigest: entry.reportDigest };
    }
    const event = entry.is === "report" ? this.#report(entry) : this.#repeat(entry);
    if (event !== undefined) this.#reported.push(event);
    return event;
  }

  #report(drawn: Extract<Entry, { is: "report" }>): EventAppend {
    const { identifier, underKey, keyDigest, reportDigest, skew, meter, customer, value, ago } = drawn;
    const of = this.#meters[meter === 0 ? 0 : 1];
    const name = identifier === null ? unique(this.#name) : `${this.#name}_${identifier}`;
    const event = aNewEvent({ identifier: name, shard: this.#shard, keyDigest, reportDigest });
    return {
      ...event,
      ...(underKey === null ? {} : { key: this.#keyUnder(underKey), claims: true }),
      id: anEventId((Date.now() + skew) * 1_000 + this.#reported.length),
      event: {
        ...event.event,
        meter: of.id,
        aggregation: aggregationOf(of),
        customer,
        value: of.formula === "count" ? 1 : value,
        timestamp: ago === null ? undefined : Date.now() - ago,
      },
    };
  }

  /** The unique key that an Idempotency-Key stands for. */
  #keyUnder(idempotencyKey: string): string {
    return uniqueKey(false, `${this.#name}_${idempotencyKey}`);
  }

  #repeat({ of, sameId }: Extract<Entry, { is: "repeat" }>): EventAppend | undefined {
    const earlier = this.#reported[of % Math.max(1, this.#reported.length)];
    if (earlier === undefined) return undefined;
    // The platform repeats a call at once or never.
    const repeats = sameId && this.#model.isTaken(earlier.key, Date.now());
    return repeats ? earlier : again(earlier);
  }

  async #cancel({ of, keyDigest, requestDigest, meters, sameId, sent }: CommandOf<"cancel">): Promise<void> {
    const reported = of === null ? undefined : this.#reported.at(-1 - (of % Math.max(1, this.#reported.length)));
    const key = reported?.key ?? uniqueKey(false, `${this.#name}_never`);
    const holder = this.#model.holder(key);
    const request: CancelRequest = {
      key,
      id: (sameId ? holder?.cancelled?.id : undefined) ?? unique("adjustment"),
      meters: meters.map((place) => this.#meters[place === 0 ? 0 : 1].id),
      keyDigest,
      requestDigest,
    };
    const expected = this.#model.cancel(request, Date.now());
    expect(expected).toContainEqual(await this.#log().cancel(request));
    if (sent) await this.#log().nudge();
  }

  async #send({ by, queueFails }: CommandOf<"send">): Promise<void> {
    if (queueFails) vi.mocked(env.EVENT_QUEUE.sendBatch).mockRejectedValueOnce(new Error("the queue is down"));
    const log = this.#log();
    if (by === "nudge") await log.nudge();
    else await runDurableObjectAlarm(log);
    // When there was nothing to send, the failure waits for another story.
    if (queueFails) sendAgain();
  }

  async #deliver({ of, fault, twice }: CommandOf<"deliver">): Promise<void> {
    const bodies = of.flatMap((back) => this.#sent.at(-1 - (back % Math.max(1, this.#sent.length))) ?? []);
    if (bodies.length === 0) return;
    const consumers = Array.from({ length: twice ? 2 : 1 }, () => consume(aBatch(bodies), faulty(fault)));
    await Promise.all(consumers);
    if (fault !== "before_commit") this.#stored.push(...bodies.flatMap(decodeMessage).map(({ id }) => id));
  }

  async #confirm({ of, times }: CommandOf<"confirm">): Promise<void> {
    const id = this.#stored[of % Math.max(1, this.#stored.length)];
    if (id !== undefined) await this.#log().confirm(Array.from({ length: times }, () => id));
  }

  async #restart(): Promise<void> {
    // Only what runs can be stopped.
    await this.#log().retrieve("wake up");
    await evictDurableObject(this.#log());
  }

  #wait(ms: number): void {
    const now = Math.max(Date.now() + ms, this.#latest - CLOCK_SLIP_MS);
    this.#latest = Math.max(this.#latest, now);
    vi.setSystemTime(now);
  }

  async #checkSummaries(): Promise<void> {
    const times = this.#model.events.map(({ logged }) => logged.timestamp);
    if (times.length === 0) return;
    const [first, last] = [Math.min(...times), Math.max(...times)];
    const whole = { start: floorTo(first, DAY_MS), end: ceilTo(last + 1, DAY_MS) };
    const ragged = { start: ceilTo(first + 1, MINUTE_MS), end: ceilTo(last + 1, MINUTE_MS) + MINUTE_MS };
    const queries = this.#meters.flatMap((meter) =>
      CUSTOMERS.flatMap((customer) =>
        [
          { range: whole, windowLength: whole.end - whole.start },
          { range: ragged, windowLength: ragged.end - ragged.start },
          { range: whole, windowLength: HOUR_MS },
          { range: whole, windowLength: DAY_MS },
        ].map((ranges) => ({ meter, customer, ...ranges, order: "newest_first" as const, limit: 1_000 })),
      ),
    );
    const read = await Promise.all(queries.map((query) => readSummaries(env.DB, query)));
    expect(read).toEqual(
      queries.map(({ meter, customer, range, windowLength }) =>
        fold(meter, this.#model.counted(meter.id, customer), range, windowLength).map(({ start, value }) => ({
          start,
          end: start + windowLength,
          value,
        })),
      ),
    );
  }

  /** The log knows who holds a key, and that D1 has it. */
  async #checkRetrieval(): Promise<void> {
    const now = Date.now();
    const keys = [...new Set(this.#reported.map(({ key }) => key))];
    const known = await runInDurableObject(this.#log(), (log: EventLog) => keys.map((key) => log.retrieve(key)));
    expect(known.map((event) => event && [event.event.id, event.aggregated, event.cancelled])).toEqual(
      keys.map((key) => {
        const holder = this.#model.isTaken(key, now) ? this.#model.holder(key) : undefined;
        return holder && [holder.logged.id, true, holder.cancelled?.at];
      }),
    );
  }

  /** What D1 has of this story. */
  async #rows(): Promise<Record<"events" | "hours" | "survivors", unknown[]>> {
    const statements = [
      "SELECT meter, customer, timestamp, id, identifier, value, received, cancelled FROM events WHERE meter IN (?, ?) ORDER BY id",
      "SELECT * FROM hourly_summaries WHERE meter IN (?, ?) ORDER BY meter, customer, hour",
      "SELECT * FROM window_survivors WHERE meter IN (?, ?) ORDER BY meter, customer, window_start",
    ];
    const ids = this.#meters.map(({ id }) => id);
    const results = await env.DB.batch(statements.map((statement) => env.DB.prepare(statement).bind(...ids)));
    const [events = [], hours = [], survivors = []] = results.map((result) => result.results);
    return { events, hours, survivors };
  }

  /** A new stub each time: one that has seen its object reset fails for ever. */
  #log(): DurableObjectStub<EventLog> {
    return env.EVENT_LOG.getByName(`shard-${this.#shard}`);
  }
}

/** The queue works again. */
function sendAgain(): void {
  vi.mocked(env.EVENT_QUEUE.sendBatch)
    .mockReset()
    .mockImplementation(async (batch) => {
      for (const { body } of batch) send(String(body));
      return {} as QueueSendBatchResponse;
    });
}

/** What the consumer is bound to, when something is out of order. */
function faulty(fault: CommandOf<"deliver">["fault"]): Env {
  switch (fault) {
    case "none":
      return env;
    case "before_commit":
      return { ...env, DB: failing(async () => {}) };
    case "after_commit":
      return { ...env, DB: failing((statements) => env.DB.batch(statements)) };
    case "confirmation_lost":
      return { ...env, EVENT_LOG: failingLogs };
  }
}

/** A D1 that says of each batch that it failed, after doing something with it. */
const failing = (first: (statements: D1PreparedStatement[]) => Promise<unknown>): D1Database =>
  Object.assign(Object.create(env.DB), {
    prepare: env.DB.prepare.bind(env.DB),
    batch: async (statements: D1PreparedStatement[]) => {
      await first(statements);
      throw new Error("D1 is away");
    },
  });

const failingLogs = {
  getByName: () => ({
    confirm: async () => {
      throw new Error("the log is away");
    },
  }),
} as unknown as Env["EVENT_LOG"];

const runs = inject("modelRuns");

it(
  `log and aggregator end where a naive model ends, in ${runs} random stories`,
  async () => {
    console.log(`model: seed ${inject("seed")}, ${runs} runs`);
    await fc.assert(
      fc.asyncProperty(story, async ({ meters, startHour, commands }) => {
        const played = new Story(meters, START + startHour * HOUR_MS);
        for (const step of commands) await played.play(step);
        await played.rest();
        await played.check();
      }),
      { seed: inject("seed"), numRuns: runs },
    );
  },
  120_000 + runs * 1_000,
);
