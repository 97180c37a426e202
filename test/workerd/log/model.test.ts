// The real logs and the real aggregator, on four databases, live through random stories of appends, retries,
// cancellations, lost, repeated and reordered messages, failures of databases and of the queue, restarts and hours that
// pass; in long ones, live mode grows from one database to two and four, and loses old slices. Every answer, and what
// the databases hold once all is quiet, must be what a naive model says: each event once, in one slice of one database.
import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import fc from "fast-check";
import { afterEach, beforeEach, expect, inject, it, vi } from "vitest";
import { consume } from "../../../src/aggregate/consumer.ts";
import { tableOf } from "../../../src/aggregate/sql/events.ts";
import { type LiveSlice, liveSlices } from "../../../src/aggregate/sql/slices.ts";
import { eventsDatabases } from "../../../src/catalog/databases.ts";
import { hashedTo, uniqueKey } from "../../../src/domain/identifiers.ts";
import { aggregationOf, type Meter } from "../../../src/domain/meter.ts";
import type { Placement } from "../../../src/domain/placement.ts";
import { ceilTo, DAY_MS, floorTo, HOUR_MS, MINUTE_MS, QUARTER_HOUR_MS, receiptOf } from "../../../src/domain/window.ts";
import { type Env, settingsOf } from "../../../src/env.ts";
import type { CancelRequest, ClaimAppend, EventAppend, ShareName } from "../../../src/log/entries.ts";
import type { EventLog } from "../../../src/log/event-log.ts";
import { decodeMessage } from "../../../src/log/groups.ts";
import { readSummaries, type SummaryQuery } from "../../../src/query/summaries.ts";
import { aMeter, anEventId, resultOf, unique } from "../../support/builders.ts";
import { type Drawn, some, word } from "../../support/draw.ts";
import { fold } from "../../support/fold.ts";
import { Model } from "../../support/model.ts";
import { D1, HostileD1 } from "../hostile-d1.ts";
import { aBatch, aClaim, again, aNewEvent, aShard, recordPlacement, type StoredRow, storedIn } from "../support.ts";

/** Where stories begin (ms). It lies ahead, since the runtime rings an alarm that lies behind at once. */
const START = Date.UTC(2040, 5, 15);

/** How far the clock may go back (ms). */
const CLOCK_SLIP_MS = 5 * MINUTE_MS;

/** Longer than the log ever waits before it sends a group again, also when the clock went back (ms). */
const REST_MS = 20 * MINUTE_MS;

/** Sendings after which every group must have been confirmed. */
const ROUNDS_TO_REST = 5;

/** How long after its end a slice can be changed: for a day by cancellations, and an hour for clocks (ms). */
const SETTLED_MS = DAY_MS + HOUR_MS;

/** How many databases live mode may have, one after the other; four are bound. */
const SIZES = [1, 2, 4] as const;

const KINDS = [
  { formula: "sum", eventTimeWindow: null },
  { formula: "count", eventTimeWindow: null },
  { formula: "last", eventTimeWindow: null },
  { formula: "sum", eventTimeWindow: "hour" },
  { formula: "sum", eventTimeWindow: "day" },
  { formula: "last", eventTimeWindow: "day" },
  { formula: "count", eventTimeWindow: "hour" },
] as const satisfies readonly Partial<Meter>[];

const METERS: readonly Meter[] = KINDS.map((kind) => aMeter({ ...kind, livemode: true }));

const CUSTOMERS = ["cus_1", "cus_2", "cus_3"] as const;

const UUID = "01234567-89ab-cdef-0123-456789abcdef";

/** What calls of databases come to: some fail, some succeed unheard. */
const FATES: readonly (keyof typeof D1)[] = [...Array(8).fill("works"), "isAway", "losesItsAnswer"];

const pick = fc.nat({ max: 20 });
const apiKey = fc.constantFrom(1, 2);
const digest = fc.constantFrom(undefined, "key_1", "key_2");
const reportDigest = word("report_1", "report_2");
const oneIn = (count: number) => fc.nat({ max: count - 1 }).map((n) => n === 0);

/** A new report; its identifier is one of few, so that they meet, or its own. */
const report = fc.record({
  is: fc.constant("report" as const),
  identifier: fc.option(word("a", "b", UUID)),
  /** It has no identifier, and takes the one that an Idempotency-Key stands for. */
  underKey: fc.option(word("k", "l"), { freq: 2 }),
  keyDigest: digest,
  reportDigest,
  apiKey,
  meter: pick,
  customer: word(...CUSTOMERS),
  dimensions: word("", "", '{"region":"eu"}'),
  payload: fc.option(fc.constant({ note: "a\nb" }), { nil: undefined }),
  value: fc.oneof(
    some(4, fc.integer({ min: 1, max: 100 })),
    some(1, fc.constantFrom(999_999_999_999_999, 1_000_000_000)),
  ),
  /** How far the clock of the edge is off that it came through (ms). */
  skew: fc.constantFrom(0, 0, -20, 20),
  /** How long ago it happened (ms), or nothing: when it is received. */
  ago: fc.option(
    fc.constantFrom(0, 1, MINUTE_MS, 20 * MINUTE_MS, HOUR_MS, 5 * HOUR_MS, DAY_MS, 35 * DAY_MS, -4 * MINUTE_MS),
  ),
});

/** Likewise, always with an identifier of its own. */
const newReport = report.map((drawn) => ({ ...drawn, identifier: null, underKey: null }));

/** A request of another kind under an Idempotency-Key. */
const claim = fc.record({ is: fc.constant("claim" as const), underKey: word("k", "l"), reportDigest });

/** An earlier report again, by the platform (`sameId`) or by the client. */
const repeat = fc.record({ is: fc.constant("repeat" as const), of: pick, sameId: fc.boolean() });

const commands = {
  append: fc.record({
    do: fc.constant("append" as const),
    entries: fc.array(fc.oneof(some(6, report), some(2, repeat), some(1, claim)), { minLength: 1, maxLength: 3 }),
    /** Each in a call of its own, all at once. */
    apart: fc.boolean(),
    /** The log dies meanwhile, and the callers try again. */
    crash: oneIn(10),
    /** In a message of its own. */
    sent: fc.boolean(),
    /** How many steps of the history its edge does not know. */
    behind: fc.constantFrom(0, 0, 0, 1, 2),
  }),
  cancel: fc.record({
    do: fc.constant("cancel" as const),
    /** Of the events that were ever reported, from the newest; or one that never was. */
    of: fc.option(fc.oneof(fc.nat({ max: 7 }), fc.nat({ max: 60 })), { freq: 7 }),
    keyDigest: digest,
    requestDigest: word("request_1", "request_2"),
    apiKey,
    /** Names the event's meter, or another alone. */
    ofMeter: fc.constantFrom(true, true, true, false),
    /** The same adjustment once more, if there was one. */
    sameId: oneIn(4),
    /** In a message of its own. */
    sent: fc.boolean(),
  }),
  send: fc.record({ do: fc.constant("send" as const), by: word("nudge", "alarm"), queueFails: oneIn(6) }),
  deliver: fc.record({
    do: fc.constant("deliver" as const),
    /** First the logs send what is due. */
    sent: fc.boolean(),
    /** Of all messages, from the newest; those that are never taken were lost. */
    of: fc.oneof(
      some(3, fc.array(fc.nat({ max: 5 }), { minLength: 1, maxLength: 4 })),
      some(1, fc.constant<number[]>([3, 2, 1, 0])),
      some(1, fc.array(fc.nat(), { minLength: 1, maxLength: 1 })),
    ),
    /** What the calls of the databases come to, over and over. */
    fates: fc.oneof(
      fc.constant<(keyof typeof D1)[]>(["works"]),
      fc.array(fc.constantFrom(...FATES), { minLength: 1, maxLength: 20 }),
    ),
    confirmationLost: oneIn(6),
    /** By two consumers at once. */
    twice: oneIn(6),
  }),
  confirm: fc.record({ do: fc.constant("confirm" as const), of: pick, times: fc.constantFrom(1, 2) }),
  wait: fc.record({
    do: fc.constant("wait" as const),
    ms: fc.constantFrom(
      ...[1, 15_000, 13 * MINUTE_MS, HOUR_MS, 12 * HOUR_MS],
      ...[DAY_MS - 1, DAY_MS, 37 * HOUR_MS, -1, -CLOCK_SLIP_MS],
    ),
  }),
  restart: fc.record({ do: fc.constant("restart" as const), shard: fc.nat({ max: 1 }) }),
  grow: fc.record({ do: fc.constant("grow" as const), ahead: fc.constantFrom(0, 15 * MINUTE_MS) }),
  archive: fc.record({ do: fc.constant("archive" as const) }),
};

type Command = Drawn<(typeof commands)[keyof typeof commands]>;
type CommandOf<K extends Command["do"]> = Extract<Command, { do: K }>;
type Entry = CommandOf<"append">["entries"][number];

/** One log, few identifiers, and a clock that slips: what it answers. */
const short = fc.record({
  meters: fc.uniqueArray(fc.constantFrom(...METERS), { minLength: 2, maxLength: 2 }),
  shards: fc.constant(1),
  startHour: fc.constantFrom(3, 11, 23),
  commands: fc.array(
    fc.oneof(
      some(6, commands.append),
      some(5, commands.cancel),
      some(2, commands.send),
      some(6, commands.deliver),
      some(2, commands.confirm),
      some(3, commands.wait),
      some(1, commands.restart),
    ),
    { minLength: 5, maxLength: 25, size: "max" },
  ),
});

/** Two logs and days of new events, so that databases grow and slices go. */
const long = fc.record({
  // Each way to aggregate.
  meters: fc.constant(METERS.slice(0, 5)),
  shards: fc.constant(2),
  startHour: fc.constantFrom(3, 11, 23),
  commands: fc.array(
    fc.oneof(
      some(
        8,
        commands.append.chain((drawn) =>
          fc.record({
            ...{ do: fc.constant(drawn.do), apart: fc.constant(drawn.apart), crash: fc.constant(false) },
            ...{ sent: fc.constant(false), behind: fc.constant(drawn.behind) },
            entries: fc.array(newReport, { minLength: 1, maxLength: 4 }),
          }),
        ),
      ),
      some(4, commands.cancel),
      some(7, commands.deliver),
      some(
        4,
        fc.record({
          do: fc.constant("wait" as const),
          ms: fc.constantFrom(36_000, REST_MS, 3 * HOUR_MS, 13 * HOUR_MS),
        }),
      ),
      some(1, commands.restart),
      some(1, commands.grow),
      some(2, commands.archive),
    ),
    { minLength: 90, maxLength: 100, size: "max" },
  ),
});

/** Whatever the logs send to the queue. */
let send: (body: string) => void = () => {};
let hostile: HostileD1;

const databases = (): D1Database[] => eventsDatabases(env, true).map(({ db }) => db);

const takeMessages = (): unknown =>
  vi
    .spyOn(env.EVENT_QUEUE, "sendBatch")
    .mockReset()
    .mockImplementation(async (batch) => {
      for (const { body } of batch) send(String(body));
      return {} as QueueSendBatchResponse;
    });

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["Date"], now: START });
  takeMessages();
  hostile = new HostileD1(databases());
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
  readonly #meters: readonly Meter[];
  readonly #shards: readonly string[];
  readonly #name = unique("story");
  /** Every event that was ever appended. */
  readonly #reported: EventAppend[] = [];
  /** Every message that was ever sent. */
  readonly #sent: string[] = [];
  /** Shares that their databases have. */
  readonly #stored: (ShareName & { readonly shard: string })[] = [];
  readonly #history: Placement[number][] = [{ databases: 1, since: 0 }];
  /** What slices held that are gone. */
  readonly #dropped: StoredRow[] = [];
  #latest: number;

  constructor({ meters, shards, startHour }: Drawn<typeof short | typeof long>) {
    this.#shards = Array.from({ length: shards }, () => aShard({ livemode: true }).shard);
    this.#meters = meters;
    this.#latest = START + startHour * HOUR_MS;
    vi.setSystemTime(this.#latest);
    send = (body) => {
      if (this.#shards.includes(decodeMessage(body)[0]?.shard ?? "")) this.#sent.push(body);
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
        return this.#restart(step.shard);
      case "grow":
        return this.#grow(step.ahead);
      case "archive":
        return this.#archive();
    }
  }

  /** Lets the logs send and the databases answer until nothing is left to send; what was lost before stays lost. */
  async rest(): Promise<void> {
    for (let round = 0; round < ROUNDS_TO_REST; round++) {
      const before = this.#sent.length;
      this.#wait(REST_MS);
      await this.#nudge();
      if (this.#sent.length === before) return;
      await consume(aBatch(this.#sent.slice(before)), env);
    }
    throw new Error("the log goes on sending although everything was confirmed");
  }

  /** Compares what the databases and the logs say with the model. */
  async check(): Promise<void> {
    await recordPlacement(this.#history);
    const rows = await this.#rows();
    this.#checkEvents(rows.flatMap(({ events }) => events));
    await this.#checkSummaries();
    await this.#checkLogs();
    // Whatever the queue brings again, in whatever order, nothing changes.
    await consume(aBatch(this.#sent.toReversed()), env);
    expect(await this.#rows()).toEqual(rows);
  }

  async #append({ entries, apart, crash, sent, behind }: CommandOf<"append">): Promise<void> {
    const drawn = entries.flatMap((entry) => this.#newEntry(entry) ?? []);
    const known = this.#history.slice(0, Math.max(1, this.#history.length - behind));
    for (const [shard, ofShard] of Map.groupBy(drawn, (entry) => entry.shard)) {
      const log = this.#log(shard);
      const call = async (to: DurableObjectStub<EventLog>) =>
        (
          await Promise.all((apart ? ofShard.map((one) => [one]) : [ofShard]).map((all) => to.append(all, known)))
        ).flat();
      if (crash) {
        // Whether it was accepted before the end or not, the retry must find out.
        await Promise.allSettled([call(log), evictDurableObject(log)]);
      }
      const outcomes = await call(crash ? this.#log(shard) : log);
      expect(outcomes).toEqual(ofShard.map((event) => this.#model.append(event, Date.now())));
    }
    if (sent) await this.#nudge();
  }

  #newEntry(entry: Entry): EventAppend | ClaimAppend | undefined {
    if (entry.is === "claim") {
      return { ...aClaim(), ...this.#placeOf(entry.underKey), reportDigest: entry.reportDigest };
    }
    const event = entry.is === "report" ? this.#report(entry) : this.#repeat(entry);
    if (event !== undefined) this.#reported.push(event);
    return event;
  }

  #report(drawn: Extract<Entry, { is: "report" }>): EventAppend {
    const { identifier, underKey, keyDigest, reportDigest, apiKey, skew, customer, value, ago } = drawn;
    const of = this.#meters[drawn.meter % this.#meters.length] as Meter;
    const name = identifier ?? unique(this.#name);
    const event = aNewEvent({ identifier: name, keyDigest, reportDigest, apiKey });
    return {
      ...event,
      ...this.#placeOf(underKey ?? name),
      claims: underKey !== null,
      id: anEventId((Date.now() + skew) * 1_000 + this.#reported.length),
      event: {
        meter: of.id,
        aggregation: aggregationOf(of),
        customer,
        dimensions: drawn.dimensions,
        payload: drawn.payload,
        value: of.formula === "count" ? 1 : value,
        timestamp: ago === null ? undefined : Date.now() - ago,
      },
    };
  }

  /** The unique key of an identifier, or of what an Idempotency-Key stands for, and its shard. */
  #placeOf(name: string): Pick<EventAppend, "key" | "shard"> {
    const key = uniqueKey(true, `${this.#name}_${name}`);
    return { key, shard: this.#shards[hashedTo(key, this.#shards.length)] ?? "" };
  }

  #repeat({ of, sameId }: Extract<Entry, { is: "repeat" }>): EventAppend | undefined {
    const earlier = this.#reported[of % Math.max(1, this.#reported.length)];
    if (earlier === undefined) return undefined;
    // The platform repeats a call at once or never.
    const repeats = sameId && this.#model.isTaken(earlier.key, Date.now());
    return repeats ? earlier : again(earlier);
  }

  async #cancel({ of, keyDigest, requestDigest, apiKey, ofMeter, sameId, sent }: CommandOf<"cancel">): Promise<void> {
    const reported = of === null ? undefined : this.#reported.at(-1 - (of % Math.max(1, this.#reported.length)));
    const { key, shard } = reported ?? this.#placeOf("never");
    const meters = this.#meters.map(({ id }) => id);
    const holder = this.#model.holder(key);
    const request: CancelRequest = {
      key,
      id: (sameId ? holder?.cancelled?.id : undefined) ?? unique("adjustment"),
      meters: ofMeter ? meters : meters.filter((id) => id !== reported?.event.meter),
      apiKey,
      keyDigest,
      requestDigest,
    };
    const expected = this.#model.cancel(request, Date.now());
    expect(expected).toContainEqual(await this.#log(shard).cancel(request));
    if (sent) await this.#nudge();
  }

  async #send({ by, queueFails }: CommandOf<"send">): Promise<void> {
    if (queueFails) vi.mocked(env.EVENT_QUEUE.sendBatch).mockRejectedValueOnce(new Error("the queue is down"));
    if (by === "nudge") await this.#nudge();
    else for (const shard of this.#shards) await runDurableObjectAlarm(this.#log(shard));
    // When there was nothing to send, the failure waits for another story.
    if (queueFails) takeMessages();
  }

  async #nudge(): Promise<void> {
    for (const shard of this.#shards) await this.#log(shard).nudge();
  }

  async #deliver({ of, sent, fates, confirmationLost, twice }: CommandOf<"deliver">): Promise<void> {
    if (sent) await this.#nudge();
    const bodies = of.flatMap((back) => this.#sent.at(-1 - (back % Math.max(1, this.#sent.length))) ?? []);
    let calls = 0;
    hostile.fate = (call) => D1[fates[calls++ % fates.length] ?? "works"](call);
    const bound = { ...env, EVENT_LOG: this.#logsThatHear(!confirmationLost) };
    await Promise.all(Array.from({ length: twice ? 2 : 1 }, () => consume(aBatch(bodies), bound)));
    hostile.fate = D1.works;
  }

  /** The logs as the consumer knows them, for their confirmations alone. */
  #logsThatHear(hears: boolean): Env["EVENT_LOG"] {
    const getByName = (shard: string) => ({
      confirm: async (shares: readonly ShareName[]) => {
        this.#stored.push(...shares.map((share) => ({ ...share, shard })));
        if (!hears) throw new Error("the log is away");
        return this.#log(shard).confirm(shares);
      },
    });
    return { getByName } as unknown as Env["EVENT_LOG"];
  }

  async #confirm({ of, times }: CommandOf<"confirm">): Promise<void> {
    const share = this.#stored[of % Math.max(1, this.#stored.length)];
    if (share !== undefined) await this.#log(share.shard).confirm(Array.from({ length: times }, () => share));
  }

  async #restart(place: number): Promise<void> {
    const shard = this.#shards[place % this.#shards.length] ?? "";
    // Only what runs can be stopped.
    await this.#log(shard).retrieve("wake up");
    await evictDurableObject(this.#log(shard));
  }

  #wait(ms: number): void {
    const now = Math.max(Date.now() + ms, this.#latest - CLOCK_SLIP_MS);
    this.#latest = Math.max(this.#latest, now);
    vi.setSystemTime(now);
  }

  #grow(ahead: number): void {
    const databases = SIZES[this.#history.length];
    const last = this.#history.at(-1)?.since ?? 0;
    if (databases !== undefined) this.#history.push({ databases, since: Math.max(last, Date.now() + ahead) });
  }

  /** Drops the slices that can change no more: those that ended long ago, when all of their entries are confirmed. */
  async #archive(): Promise<void> {
    const logs = await Promise.all(this.#shards.map((shard) => this.#log(shard).status()));
    const size = this.#history.at(-1)?.databases;
    for (const [place, db] of databases().slice(0, size).entries()) {
      const settled = Math.min(Date.now(), ...logs.map(({ oldestOf }) => oldestOf[place] ?? Date.now())) - SETTLED_MS;
      for (const { slice } of await liveSlices(db)) {
        const { start, end } = receiptOf(slice);
        if (settled < end) continue;
        const stored = await storedIn(db, ...this.#meters.map(({ id }) => id));
        this.#dropped.push(...stored.filter(({ received }) => received >= start && received < end));
        await db.batch([
          db.prepare(`DROP TABLE ${tableOf(slice)}`),
          db.prepare("UPDATE slices SET state = 'archived' WHERE slice = ?").bind(slice),
        ]);
      }
    }
  }

  #checkEvents(live: readonly StoredRow[]): void {
    const accepted = this.#model.events.map(
      ({ logged: { aggregation: _, apiKey, payload, ...logged }, cancelled }): StoredRow => ({
        ...logged,
        api_key: apiKey,
        payload: payload === undefined ? null : JSON.stringify(payload),
        cancelled: cancelled?.at ?? null,
        cancelled_by: cancelled?.by ?? null,
      }),
    );
    expect([...live, ...this.#dropped].sort(byId)).toEqual(accepted.sort(byId));
  }

  async #checkSummaries(): Promise<void> {
    const times = this.#model.events.map(({ logged }) => logged.timestamp);
    if (times.length === 0) return;
    const [first, last] = [Math.min(...times), Math.max(...times)];
    const whole = { start: floorTo(first, DAY_MS), end: ceilTo(last + 1, DAY_MS) };
    const ragged = { start: ceilTo(first + 1, MINUTE_MS), end: ceilTo(last + 1, MINUTE_MS) + MINUTE_MS };
    // Where slices may be gone, only what sums and survivors answer is exact.
    const isWhole = this.#shards.length === 1;
    const ofPair = (meter: Meter, customer: string) =>
      [
        { range: whole, windowLength: lengthOf(meter) },
        ...(isWhole ? [whole, ragged].map((range) => ({ range, windowLength: range.end - range.start })) : []),
        ...(isWhole ? [HOUR_MS, DAY_MS].map((windowLength) => ({ range: whole, windowLength })) : []),
      ].map((ranges) => ({ meter, customer, ...ranges, order: "newest_first" as const, limit: 10_000 }));
    const queries = this.#meters.flatMap((meter) => CUSTOMERS.flatMap((customer) => ofPair(meter, customer)));
    const read = await Promise.all(queries.map((query) => readSummaries(env, query)));
    for (const [i, query] of queries.entries()) {
      const { meter, customer, range, windowLength } = query;
      const expected = fold(meter, this.#model.counted(meter.id, customer), range, windowLength);
      const unsettled = this.#unsettledWindows(query);
      const summaries = read[i] === undefined ? [] : resultOf(read[i]);
      expect(summaries.filter(({ start }) => !unsettled.has(start))).toEqual(
        expected
          .filter(({ start }) => !unsettled.has(start))
          .map(({ start, value }) => ({ start, end: start + windowLength, value })),
      );
    }
  }

  /** The windows of survivors in which events were cancelled: who comes next may have been dropped with its slice. */
  #unsettledWindows({ meter, customer, windowLength }: SummaryQuery): ReadonlySet<number> {
    const dropped = new Set(this.#dropped.map(({ id }) => id));
    if (aggregationOf(meter) === "additive" || dropped.size === 0) return new Set();
    const ofPair = this.#model.events.filter(({ logged }) => logged.meter === meter.id && logged.customer === customer);
    const windows = Map.groupBy(ofPair, ({ logged }) => floorTo(logged.timestamp, windowLength));
    const unsettled = [...windows].filter(
      ([, all]) => all.some(({ cancelled }) => cancelled) && all.some(({ logged }) => dropped.has(logged.id)),
    );
    return new Set(unsettled.map(([start]) => start));
  }

  /** The logs know who holds a key, and that its database has it; nothing waits. */
  async #checkLogs(): Promise<void> {
    const now = Date.now();
    for (const shard of this.#shards) {
      const keys = [...new Set(this.#reported.filter((event) => event.shard === shard).map(({ key }) => key))];
      const read = (log: EventLog) => ({ status: log.status(), known: keys.map((key) => log.retrieve(key)) });
      const { status, known } = await runInDurableObject(this.#log(shard), read);
      expect(status.entries).toBe(0);
      expect(known.map((event) => event && [event.event.id, event.aggregated, event.cancelled])).toEqual(
        keys.map((key) => {
          const holder = this.#model.isTaken(key, now) ? this.#model.holder(key) : undefined;
          return holder && [holder.logged.id, true, holder.cancelled];
        }),
      );
    }
  }

  /** What the databases have. */
  #rows(): Promise<{ events: StoredRow[]; sums: unknown; survivors: unknown }[]> {
    return Promise.all(
      databases().map(async (db) => {
        const tables = ["sums", "survivors"].map((name) => db.prepare(`SELECT * FROM ${name}`));
        const [sums, survivors] = await db.batch(tables);
        const events = await storedIn(db, ...this.#meters.map(({ id }) => id));
        return { events, sums: sums?.results, survivors: survivors?.results };
      }),
    );
  }

  /** A new stub each time: one that has seen its object reset fails for ever. */
  #log(shard: string): DurableObjectStub<EventLog> {
    return env.EVENT_LOG.getByName(shard);
  }
}

const byId = (a: StoredRow, b: StoredRow): number => (a.id < b.id ? -1 : 1);

/** The shortest windows that a meter's sums and survivors are kept for (ms). */
const lengthOf = ({ eventTimeWindow }: Meter): number =>
  eventTimeWindow === null ? QUARTER_HOUR_MS : eventTimeWindow === "hour" ? HOUR_MS : DAY_MS;

/** Leaves the databases as they were before a story. */
async function clear(): Promise<void> {
  for (const db of databases()) {
    const drop = ({ slice }: LiveSlice): D1PreparedStatement => db.prepare(`DROP TABLE ${tableOf(slice)}`);
    const empty = ["series", "sums", "survivors", "slices"].map((table) => db.prepare(`DELETE FROM ${table}`));
    await db.batch([...(await liveSlices(db)).map(drop), ...empty]);
  }
  vi.clearAllMocks();
}

it.each([
  ["a log answers", short, inject("modelRuns")],
  ["databases that grow end", long, inject("placementRuns")],
] as const)(
  "%s as a naive model does, in random stories",
  async (name, story, runs) => {
    console.log(`${name}: seed ${inject("seed")}, ${runs} runs`);
    const property = fc.asyncProperty<[Drawn<typeof short | typeof long>]>(story, async (drawn) => {
      const played = new Story(drawn);
      for (const step of drawn.commands) await played.play(step);
      await played.rest();
      await played.check();
    });
    await fc.assert(property.afterEach(clear), { seed: inject("seed"), numRuns: runs });
  },
  120_000 + (inject("modelRuns") + inject("placementRuns")) * 2_000,
);
