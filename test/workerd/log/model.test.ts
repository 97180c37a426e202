// The real logs and the real aggregator, on four databases, live through random stories of appends, retries,
// cancellations, lost, repeated and reordered messages, failures of databases and of the queue, restarts and hours that
// pass; in long ones, live mode grows from one database to two and four, and the archive takes old slices; in growing
// ones, its log grows from two shards to four, sixteen and thirty-two, while calls between shards fail. Every answer,
// and what databases and files hold once all is quiet, must be what a naive model says: each event once, in one slice
// of one database.
import { evictDurableObject, runDurableObjectAlarm } from "cloudflare:test";
import { env } from "cloudflare:workers";
import fc from "fast-check";
import { afterEach, beforeAll, beforeEach, expect, inject, it, vi } from "vitest";
import { consume } from "../../../src/aggregate/consumer.ts";
import { archiveDatabase, archivedDatabases } from "../../../src/archive/archive.ts";
import { eventsDatabases } from "../../../src/catalog/databases.ts";
import { insertMeter } from "../../../src/catalog/meters.ts";
import { identifierOfKey, uniqueKey } from "../../../src/domain/identifiers.ts";
import { aggregationOf, type Meter } from "../../../src/domain/meter.ts";
import type { Placement } from "../../../src/domain/placement.ts";
import { ownerOf } from "../../../src/domain/shards.ts";
import { ceilTo, DAY_MS, floorTo, HOUR_MS, MINUTE_MS, QUARTER_HOUR_MS } from "../../../src/domain/window.ts";
import type { Env } from "../../../src/env.ts";
import { EventLog } from "../../../src/index.ts";
import { appendAll, cancelIn, contextOf, retrieveFrom } from "../../../src/log/calls.ts";
import type {
  AppendOutcome,
  CancelRequest,
  ClaimAppend,
  EventAppend,
  LogContext,
  ShareName,
} from "../../../src/log/entries.ts";
import { patiently } from "../../../src/log/inheritance.ts";
import { Sender } from "../../../src/log/sender.ts";
import { shardName } from "../../../src/log/shard-name.ts";
import { aMeter, anEventId, resultOf, unique } from "../../support/builders.ts";
import { type Drawn, some, word } from "../../support/draw.ts";
import { fold } from "../../support/fold.ts";
import { Model } from "../../support/model.ts";
import { readSummaries } from "../../support/summaries.ts";
import { archivedRows, asStored, empty, statesOf } from "../archive/support.ts";
import { A_FAILURE, befall, end, isFallen, contextOf as stateOf, strikeNow } from "../crash-points/faults.ts";
import { D1, HostileD1 } from "../hostile-d1.ts";
import { aBatch, aClaim, again, aNewEvent, forgetLogs, recordPlacement, type StoredRow, storedIn } from "../support.ts";

/** Where stories begin (ms). It lies ahead, since the runtime rings an alarm that lies behind at once. */
const START = Date.UTC(2040, 5, 15);

/** How far the clock may go back (ms). */
const CLOCK_SLIP_MS = 5 * MINUTE_MS;

/** Longer than the log ever waits before it sends a group again, also when the clock went back (ms). */
const REST_MS = 20 * MINUTE_MS;

/** Sendings after which every group must have been confirmed. */
const ROUNDS_TO_REST = 5;

/** How many databases live mode may have, one after the other; four are bound. */
const SIZES = [1, 2, 4] as const;

const KINDS = [
  { formula: "sum", eventTimeWindow: null },
  { formula: "count", eventTimeWindow: null },
  { formula: "last", eventTimeWindow: null },
  { formula: "max", eventTimeWindow: null },
  { formula: "min", eventTimeWindow: null },
  { formula: "sum", eventTimeWindow: "hour" },
  { formula: "sum", eventTimeWindow: "day" },
  { formula: "last", eventTimeWindow: "day" },
  { formula: "count", eventTimeWindow: "hour" },
] as const satisfies readonly Partial<Meter>[];

const METERS: readonly Meter[] = KINDS.map((kind) => aMeter({ ...kind, livemode: true, eventName: unique("tokens") }));

/** Databases always need room, so that slices are dropped as soon as they are checked. */
const ARCHIVING: Env = { ...env, DATABASE_HIGH_WATER_MB: "1" };
const BALLAST = "CREATE TABLE ballast AS SELECT zeroblob(900000)";

const CUSTOMERS = ["cus_1", "cus_2", "cus_3"] as const;

const UUID = "01234567-89ab-cdef-0123-456789abcdef";

/** What calls of databases come to: some fail, some succeed unheard. */
const FATES: readonly (keyof typeof D1)[] = [...Array(8).fill("works"), "isAway", "losesItsAnswer"];

/** What calls of logs come to, those of the edge and those of other logs. */
const CALLS: Readonly<Record<string, (call: () => Promise<unknown>, log: EventLog) => Promise<unknown>>> = {
  works: (call) => call(),
  isAway: async () => {
    throw new Error(A_FAILURE);
  },
  losesItsAnswer: async (call) => {
    await call();
    throw new Error(A_FAILURE);
  },
  dies: (call, log) => {
    befall(log, "abort");
    return call();
  },
  diesAfterIt: async (call, log) => {
    const answer = await call();
    await stateOf(log).storage.sync();
    befall(log, "abort");
    return answer;
  },
  outlivesItsCaller: async (call, log) => {
    const caller = [...underWay].find((call) => call.isEdges && call.log !== log && !isFallen(call.log));
    if (caller !== undefined) await strikeNow(env.EVENT_LOG.get(stateOf(caller.log).id), "abort");
    return call();
  },
};

/** Calls that have met their fates and have not ended, of the edge and of other logs. */
const underWay = new Set<{ readonly log: EventLog; readonly isEdges: boolean }>();

// Stories stop the clock of `scheduler`.
const wait = scheduler.wait.bind(scheduler);

const fatesOfCalls = fc.oneof(
  some(2, fc.constant<string[]>([])),
  some(1, fc.array(fc.constantFrom("works", "works", ...Object.keys(CALLS)), { minLength: 1, maxLength: 8 })),
);

const pick = fc.nat({ max: 20 });
const apiKey = fc.constantFrom(1, 2);
const digest = fc.constantFrom(undefined, "key_1", "key_2");
const reportDigest = word("report_1", "report_2");
const oneIn = (count: number) => fc.nat({ max: count - 1 }).map((n) => n === 0);

/** A new report; its identifier is one of few, so that they meet, or its own. */
const report = fc.record({
  is: fc.constant("report" as const),
  identifier: fc.option(fc.constantFrom<string>("a", "b", UUID)),
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

/** Likewise, of some 25 identifiers, of which each way to keep a key has some. */
const reportOfFew = report.map((drawn) => ({
  ...drawn,
  identifier: drawn.value % 2 === 0 ? `name_${drawn.value % 16}` : `${UUID.slice(0, -2)}${10 + (drawn.value % 16)}`,
}));

/** Likewise, always with an identifier of its own. */
const newReport = report.map((drawn) => ({ ...drawn, identifier: null, underKey: null }));

/** A request of another kind under an Idempotency-Key. */
const claim = fc.record({ is: fc.constant("claim" as const), underKey: word("k", "l"), reportDigest });

/** An earlier report again, by the platform (`sameId`) or by the client. */
const repeat = fc.record({ is: fc.constant("repeat" as const), of: pick, sameId: fc.boolean() });

/** Entries of a log that grows. */
const entryOfFew = fc.oneof(some(6, reportOfFew), some(4, repeat), some(1, claim));

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
    /** How many steps of the histories its edge does not know. */
    behind: fc.constantFrom<number>(0, 0, 0, 1, 2),
    /** What the calls of logs come to, over and over. */
    fates: fc.constant<string[]>([]),
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
    behind: fc.constantFrom<number>(0, 0, 0, 1, 2),
    fates: fc.constant<string[]>([]),
  }),
  retrieve: fc.record({ do: fc.constant("retrieve" as const), of: fc.nat({ max: 60 }), behind: fc.nat({ max: 2 }) }),
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
  restart: fc.record({ do: fc.constant("restart" as const), shard: fc.nat({ max: 31 }), dies: fc.boolean() }),
  grow: fc.record({ do: fc.constant("grow" as const), ahead: fc.constantFrom(0, 15 * MINUTE_MS) }),
  growLog: fc.record({ do: fc.constant("growLog" as const) }),
  archive: fc.record({
    do: fc.constant("archive" as const),
    steps: fc.constantFrom(2, 1_000, 1_000),
    /** What the calls of the databases come to, over and over. */
    fates: fc.oneof(
      fc.constant<(keyof typeof D1)[]>(["works"]),
      fc.array(fc.constantFrom(...FATES), { minLength: 20, maxLength: 60, size: "max" }),
    ),
  }),
};

type Command = Drawn<(typeof commands)[keyof typeof commands]>;
type CommandOf<K extends Command["do"]> = Extract<Command, { do: K }>;
type Entry = CommandOf<"append">["entries"][number];

/** One log, few identifiers, and a clock that slips: what it answers. */
const short = fc.record({
  meters: fc.uniqueArray(fc.constantFrom(...METERS), { minLength: 2, maxLength: 2 }),
  shards: fc.constant([1]),
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
  shards: fc.constant([2]),
  startHour: fc.constantFrom(3, 11, 23),
  commands: fc.array(
    fc.oneof(
      some(
        8,
        commands.append.chain((drawn) =>
          fc.record({
            ...{ do: fc.constant(drawn.do), apart: fc.constant(drawn.apart), crash: fc.constant(false) },
            ...{ sent: fc.constant(false), behind: fc.constant(drawn.behind), fates: fc.constant(drawn.fates) },
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
          ms: fc.constantFrom(36_000, REST_MS, 3 * HOUR_MS, 13 * HOUR_MS, 13 * HOUR_MS),
        }),
      ),
      some(1, commands.restart),
      some(1, commands.grow),
      some(2, commands.archive),
    ),
    { minLength: 40, maxLength: 50, size: "max" },
  ),
});

/** A log that grows, some 25 identifiers, and calls that fail. */
const growing = fc.record({
  meters: fc.constant(METERS.slice(0, 1)),
  shards: fc.constant([2, 4, 16, 32]),
  startHour: fc.constantFrom(3, 11, 23),
  commands: fc.array(
    fc.oneof(
      some(
        12,
        fc
          .tuple(commands.append, fc.array(entryOfFew, { minLength: 1, maxLength: 4 }), fatesOfCalls)
          .map(([drawn, entries, fates]) => ({ ...drawn, entries, fates, crash: false, sent: false })),
      ),
      some(
        3,
        fc.tuple(commands.cancel, fatesOfCalls).map(([drawn, fates]) => ({ ...drawn, sent: false, fates })),
      ),
      some(2, commands.retrieve),
      some(1, commands.deliver),
      some(
        2,
        fc.record({
          do: fc.constant("wait" as const),
          ms: fc.constantFrom(1, MINUTE_MS, HOUR_MS, 3 * HOUR_MS, 12 * HOUR_MS, DAY_MS - 1, DAY_MS),
        }),
      ),
      // An eviction would wait for the calls of logs that died.
      some(
        1,
        commands.restart.map((drawn) => ({ ...drawn, dies: true })),
      ),
      some(1, commands.growLog),
    ),
    { minLength: 50, maxLength: 90, size: "max" },
  ),
});

type Drama = Drawn<typeof short | typeof long | typeof growing>;

/** Whatever the logs send to the queue. */
let send: (body: unknown) => void = () => {};
let hostile: HostileD1;
/** What calls of logs come to, over and over. */
let fates: readonly string[] = [];

const databases = (): D1Database[] => eventsDatabases(env, true).map(({ db }) => db);

const takeMessages = (): unknown =>
  vi
    .spyOn(env.EVENT_QUEUE, "sendBatch")
    .mockReset()
    .mockImplementation(async (batch) => {
      for (const { body } of batch) send(body);
      return {} as QueueSendBatchResponse;
    });

/** Each call of a log meets its fate. */
function takeCalls(): void {
  let calls = 0;
  const methods = ["append", "cancel", "handOver", "holdersOf", "earlierInherited", "cancelInherited"] as const;
  for (const method of methods) {
    const original = EventLog.prototype[method] as (this: EventLog, ...args: unknown[]) => unknown;
    const met = function (this: EventLog, ...args: unknown[]): unknown {
      if (fates.length === 0) return original.apply(this, args);
      const call = { log: this, isEdges: method === "append" || method === "cancel" };
      underWay.add(call);
      const fate = CALLS[fates[calls++ % fates.length] ?? "works"];
      return fate?.(async () => original.apply(this, args), this).finally(() => underWay.delete(call));
    };
    vi.spyOn(EventLog.prototype, method).mockImplementation(met as never);
  }
}

/** Does something while calls of logs meet their fates. */
async function meeting<T>(these: readonly string[], work: () => Promise<T>): Promise<T> {
  fates = these;
  try {
    return await work();
  } finally {
    // Of several calls, the first that fails is heard of at once. Those of a log that died never end.
    while ([...underWay].some(({ log }) => !isFallen(log))) await wait(1);
    fates = [];
    underWay.clear();
  }
}

beforeAll(async () => {
  await env.DB.batch([
    ...METERS.map((meter) => insertMeter(env.DB, meter)),
    env.DB.prepare("UPDATE deployment SET value = '[[2,0]]' WHERE name = 'event_log_shards'"),
  ]);
  for (const db of databases()) await db.prepare(BALLAST).run();
});

beforeEach(async () => {
  await forgetLogs();
  vi.useFakeTimers({ toFake: ["Date"], now: START });
  takeMessages();
  hostile = new HostileD1(databases());
  takeCalls();
  // So that a story has one course: the log sends when it is told to, and delays are not spread.
  vi.spyOn(Sender.prototype, "sendSoon").mockReturnValue();
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
  /** How many shards the log has, one number after the other, and how many of those it has had. */
  readonly #sizes: readonly number[];
  #grown = 1;
  readonly #name = unique("story");
  /** Every event that was ever appended. */
  readonly #reported: EventAppend[] = [];
  /** Every message that was ever sent. */
  readonly #sent: unknown[] = [];
  /** Shares that their databases have. */
  readonly #stored: (ShareName & { readonly shard: string })[] = [];
  readonly #history: Placement[number][] = [{ databases: 1, since: 0 }];
  #latest: number;

  constructor({ meters, shards, startHour }: Drama) {
    this.#sizes = shards;
    this.#meters = meters;
    this.#latest = START + startHour * HOUR_MS;
    vi.setSystemTime(this.#latest);
    send = (body) => this.#sent.push(body);
  }

  /** What an edge knows that is so many steps behind. */
  #known(behind = 0): LogContext {
    const upTo = <T>(history: readonly T[]): T[] => history.slice(0, Math.max(1, history.length - behind));
    return { livemode: true, placement: upTo(this.#history), shards: upTo(this.#sizes.slice(0, this.#grown)) };
  }

  get #places(): number[] {
    return Array.from({ length: this.#sizes[this.#grown - 1] ?? 1 }, (_, place) => place);
  }

  async play(step: Command): Promise<void> {
    switch (step.do) {
      case "append":
        return this.#append(step);
      case "cancel":
        return this.#cancel(step);
      case "retrieve":
        return this.#retrieve(step);
      case "send":
        return this.#send(step);
      case "deliver":
        return this.#deliver(step);
      case "confirm":
        return this.#confirm(step);
      case "wait":
        return this.#wait(step.ms);
      case "restart":
        return this.#restart(step);
      case "grow":
        return this.#grow(step.ahead);
      case "growLog":
        this.#grown = Math.min(this.#grown + 1, this.#sizes.length);
        return;
      case "archive":
        return this.#archive(step);
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
    await this.#checkEvents(rows.flatMap(({ events }) => events));
    await this.#checkSummaries();
    await this.#checkLogs();
    // Whatever the queue brings again, in whatever order, nothing changes.
    await consume(aBatch(this.#sent.toReversed()), env);
    expect(await this.#rows()).toEqual(rows);
  }

  async #append({ entries, apart, crash, sent, behind, fates }: CommandOf<"append">): Promise<void> {
    const drawn = entries.flatMap((entry) => this.#newEntry(entry) ?? []);
    // What fails does so alone, so that nothing of it is under way when its call has failed.
    const calls = apart || fates.length > 0 ? drawn.map((one) => [one]) : [drawn];
    const append = () => Promise.allSettled(calls.map((call) => appendAll(env, this.#known(behind), call)));
    if (crash) {
      // Whether it was accepted before the end or not, the retry must find out.
      const place = ownerOf(drawn[0]?.key ?? "", this.#known(behind).shards);
      await this.#log(place).status();
      await Promise.allSettled([append(), evictDurableObject(this.#log(place))]);
    }
    const settled = await meeting(fates, append);
    const met = settled.flatMap((result, i) =>
      (calls[i] ?? []).map((entry) => {
        if (result.status === "rejected" && fates.length === 0) throw result.reason;
        return { entry, outcome: result.status === "fulfilled" ? result.value.get(entry) : undefined };
      }),
    );
    await this.#compare(met);
    if (sent) await this.#nudge();
  }

  /** What calls at once were answered, nothing where they failed, is what the model says in some order of theirs. */
  async #compare(met: readonly { entry: EventAppend | ClaimAppend; outcome: AppendOutcome | undefined }[]) {
    const all = await Promise.all(
      met.map(async ({ entry, outcome }) => {
        const isKept = outcome === undefined ? await this.#isKept(entry) : hasKey(entry, outcome);
        return { entry, outcome, isKept };
      }),
    );
    for (const { entry, outcome, isKept } of all.sort((a, b) => Number(b.isKept) - Number(a.isKept))) {
      if (outcome !== undefined) expect(outcome).toEqual(this.#model.append(entry, Date.now()));
      else if (isKept) expect(this.#model.append(entry, Date.now())).toMatchObject({ outcome: "accepted" });
    }
  }

  /** Whether some shard has an entry whose call failed. */
  async #isKept(entry: EventAppend | ClaimAppend): Promise<boolean> {
    const found = await Promise.all(
      this.#places.map((place) => patiently(async () => this.#log(place).holdersOf([entry.key]))),
    );
    return found
      .flat()
      .filter(({ received }) => received > Date.now() - DAY_MS)
      .some(({ event, reportDigest }) =>
        entry.kind === "claim" ? event === undefined && reportDigest === entry.reportDigest : event?.id === entry.id,
      );
  }

  #newEntry(entry: Entry): EventAppend | ClaimAppend | undefined {
    if (entry.is === "claim") {
      return { ...aClaim(), key: keyOfClaim(entry.underKey), reportDigest: entry.reportDigest };
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
      key: underKey === null ? uniqueKey(true, name) : keyOfClaim(underKey),
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

  #repeat({ of, sameId }: Extract<Entry, { is: "repeat" }>): EventAppend | undefined {
    const earlier = this.#reported[of % Math.max(1, this.#reported.length)];
    if (earlier === undefined) return undefined;
    // The platform repeats a call at once or never.
    const repeats = sameId && this.#model.isTaken(earlier.key, Date.now());
    return repeats ? earlier : again(earlier);
  }

  async #cancel(step: CommandOf<"cancel">): Promise<void> {
    const { of, keyDigest, requestDigest, apiKey, ofMeter, sameId, sent, behind, fates } = step;
    const reported = of === null ? undefined : this.#reported.at(-1 - (of % Math.max(1, this.#reported.length)));
    const key = reported?.key ?? uniqueKey(true, "never");
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
    const cancel = () => cancelIn(env, this.#known(behind), request);
    // Whatever came of a call that failed, its repetition finds out.
    const outcome = fates.length === 0 ? undefined : await meeting(fates, cancel).catch(() => undefined);
    expect(expected).toContainEqual(outcome ?? (await cancel()));
    if (sent) await this.#nudge();
  }

  async #retrieve({ of, behind }: CommandOf<"retrieve">): Promise<void> {
    const key = this.#reported.at(-1 - (of % Math.max(1, this.#reported.length)))?.key ?? uniqueKey(true, "never");
    await this.#checkKey(key, this.#known(behind));
  }

  /** The log knows which event has a key, if any has. */
  async #checkKey(key: string, known: LogContext): Promise<boolean | undefined> {
    const holder = this.#model.isTaken(key, Date.now()) ? this.#model.holder(key) : undefined;
    const found = await retrieveFrom(env, known, key);
    expect(found && [found.event.id, found.cancelled]).toEqual(holder && [holder.logged.id, holder.cancelled]);
    return found?.aggregated;
  }

  async #send({ by, queueFails }: CommandOf<"send">): Promise<void> {
    if (queueFails) vi.mocked(env.EVENT_QUEUE.sendBatch).mockRejectedValueOnce(new Error("the queue is down"));
    if (by === "nudge") await this.#nudge();
    else for (const place of this.#places) await runDurableObjectAlarm(this.#log(place));
    // When there was nothing to send, the failure waits for another story.
    if (queueFails) takeMessages();
  }

  async #nudge(): Promise<void> {
    for (const place of this.#places) await this.#log(place).nudge(contextOf(this.#known()));
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
        return env.EVENT_LOG.getByName(shard).confirm(shares);
      },
    });
    return { getByName } as unknown as Env["EVENT_LOG"];
  }

  async #confirm({ of, times }: CommandOf<"confirm">): Promise<void> {
    const share = this.#stored[of % Math.max(1, this.#stored.length)];
    if (share !== undefined)
      await env.EVENT_LOG.getByName(share.shard).confirm(Array.from({ length: times }, () => share));
  }

  async #restart({ shard, dies }: CommandOf<"restart">): Promise<void> {
    await end(this.#log(shard % this.#places.length), dies ? "abort" : "eviction");
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

  /** What a run of the archive does, as far as the databases let it. */
  async #archive({ steps, fates }: CommandOf<"archive">): Promise<void> {
    let calls = 0;
    hostile.fate = (call) => D1[fates[calls++ % fates.length] ?? "works"](call);
    await Promise.allSettled(
      archivedDatabases(ARCHIVING)
        .filter(({ livemode }) => livemode)
        .map((known) => archiveDatabase(ARCHIVING, known, { steps, until: Number.POSITIVE_INFINITY })),
    );
    hostile.fate = D1.works;
  }

  /** What the files have of slices that are gone. */
  async #dropped(): Promise<StoredRow[]> {
    const dropped: StoredRow[] = [];
    for (const db of databases()) {
      for (const { slice, state } of await statesOf(db)) {
        if (state !== "archived") continue;
        dropped.push(...(await archivedRows(db, slice)).map(asStored));
      }
    }
    return dropped;
  }

  async #checkEvents(live: readonly StoredRow[]): Promise<void> {
    const accepted = this.#model.events.map(
      ({ logged: { aggregation: _, apiKey, payload, ...logged }, cancelled }): StoredRow => ({
        ...logged,
        api_key: apiKey,
        payload: payload === undefined ? null : JSON.stringify(payload),
        cancelled: cancelled?.at ?? null,
        cancelled_by: cancelled?.by ?? null,
      }),
    );
    expect([...live, ...(await this.#dropped())].sort(byId)).toEqual(accepted.sort(byId));
  }

  async #checkSummaries(): Promise<void> {
    const times = this.#model.events.map(({ logged }) => logged.timestamp);
    if (times.length === 0) return;
    const [first, last] = [Math.min(...times), Math.max(...times)];
    const whole = { start: floorTo(first, DAY_MS), end: ceilTo(last + 1, DAY_MS) };
    const ragged = { start: ceilTo(first + 1, MINUTE_MS), end: ceilTo(last + 1, MINUTE_MS) + MINUTE_MS };
    // For a log that grows the shortest windows say enough.
    const isWhole = this.#sizes.length === 1;
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
      expect(read[i] === undefined ? [] : resultOf(read[i])).toEqual(
        expected.map(({ start, value }) => ({ start, end: start + windowLength, value })),
      );
    }
  }

  /** The logs know who has a key, and that its database has it; nothing waits. */
  async #checkLogs(): Promise<void> {
    for (const place of this.#places) expect((await this.#log(place).status()).entries).toBe(0);
    for (const key of new Set(this.#reported.map((event) => event.key))) {
      expect(await this.#checkKey(key, this.#known())).not.toBe(false);
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
  #log(place: number): DurableObjectStub<EventLog> {
    return env.EVENT_LOG.getByName(shardName(true, place));
  }
}

const keyOfClaim = (idempotencyKey: string): string => uniqueKey(true, identifierOfKey(true, idempotencyKey));

/** Whether an entry has its key by what it was told, and not an earlier one. */
const hasKey = (entry: EventAppend | ClaimAppend, outcome: AppendOutcome): boolean =>
  outcome.outcome === "accepted" && outcome.id === (entry.kind === "claim" ? undefined : entry.id);

const byId = (a: StoredRow, b: StoredRow): number => (a.id < b.id ? -1 : 1);

/** The shortest windows that a meter's sums and survivors are kept for (ms). */
const lengthOf = ({ eventTimeWindow }: Meter): number =>
  eventTimeWindow === null ? QUARTER_HOUR_MS : eventTimeWindow === "hour" ? HOUR_MS : DAY_MS;

/** Leaves databases, archive and logs as they were before a story. */
async function clear(): Promise<void> {
  for (const db of databases()) await empty(db);
  await forgetLogs();
  vi.clearAllMocks();
}

it.each([
  ["a log answers", short, inject("modelRuns")],
  ["databases that grow end", long, inject("placementRuns")],
  ["a log that grows answers", growing, inject("growthRuns")],
] as const)(
  "%s as a naive model does, in random stories",
  async (name, story, runs) => {
    console.log(`${name}: seed ${inject("seed")}, ${runs} runs`);
    const property = fc.asyncProperty<[Drama]>(story, async (drawn) => {
      const played = new Story(drawn);
      for (const step of drawn.commands) await played.play(step);
      await played.rest();
      await played.check();
    });
    await fc.assert(property.afterEach(clear), {
      seed: inject("seed"),
      numRuns: runs,
      endOnFailure: story === growing,
    });
  },
  120_000 + (inject("modelRuns") + inject("placementRuns") + 2 * inject("growthRuns")) * 2_000,
);
