// `npm run soak -- --days 60`: weeks of usage at a compressed clock, through the real logs, aggregator, archive and audits.
// Databases and logs grow on the way; logs and archivers die, databases and R2 fail, messages are lost and repeated. At the
// end nothing is lost or doubled, and reads and databases are as fast and as small as they were.
import { runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import fc from "fast-check";
import { afterEach, beforeEach, expect, inject, it, vi } from "vitest";
import { consume } from "../../../src/aggregate/consumer.ts";
import { archiveDatabase, archivedDatabases } from "../../../src/archive/archive.ts";
import { ARCHIVER, type Archiver, goOn } from "../../../src/archive/archiver.ts";
import { eraseStep } from "../../../src/archive/erase.ts";
import { eventsDatabases } from "../../../src/catalog/databases.ts";
import { newEventId, uniqueKey } from "../../../src/domain/identifiers.ts";
import { aggregationOf, type Meter } from "../../../src/domain/meter.ts";
import type { Placement } from "../../../src/domain/placement.ts";
import { DAY_MS, floorTo, HOUR_MS, MINUTE_MS, SECOND_MS } from "../../../src/domain/window.ts";
import { appendAll, cancelIn, contextOf } from "../../../src/log/calls.ts";
import type { LogEntry } from "../../../src/log/codec.ts";
import type { EventAppend, LogContext } from "../../../src/log/entries.ts";
import { Sender } from "../../../src/log/sender.ts";
import { shardName } from "../../../src/log/shard-name.ts";
import { maintain } from "../../../src/scheduled.ts";
import { aMeter, resultOf, unique } from "../../support/builders.ts";
import { fold } from "../../support/fold.ts";
import { readSummaries } from "../../support/summaries.ts";
import { end } from "../crash-points/faults.ts";
import { D1, HostileD1 } from "../hostile-d1.ts";
import { aBatch, again, aNewEvent, forgetLogs, recordPlacement, type StoredRow, storedIn } from "../support.ts";
import { archivedRows, empty, statesOf } from "./support.ts";

declare module "vitest" {
  interface ProvidedContext {
    /** How many days of usage the archive's soak plays; 0 for none. */
    soakDays: number;
  }
}

const SEED = inject("seed");
const DAYS = inject("soakDays");

/** Midnight of the first day. It lies ahead, since the runtime rings an alarm that lies behind at once. */
const START = Date.UTC(2040, 5, 15);

/** When usage comes (hours of the day), and how much of it. */
const SESSIONS = [1, 7, 13, 19] as const;
const CALLS_A_SESSION = 5;
const EVENTS_A_CALL = 100;
const CANCELLATIONS_A_SESSION = 8;

/** Aliases of erased customers. */
const aliases: string[] = [];

const CUSTOMERS = Array.from({ length: 200 }, (_, i) => `cus_${i}`);

const METERS: readonly Meter[] = (
  [
    { formula: "sum", eventTimeWindow: null },
    { formula: "count", eventTimeWindow: null },
    { formula: "last", eventTimeWindow: null },
    { formula: "max", eventTimeWindow: null },
    { formula: "sum", eventTimeWindow: "day" },
  ] as const
).map((kind) => aMeter({ ...kind, eventName: unique("soak"), livemode: true, now: START - DAY_MS }));

/** On which day live mode has more databases, and its log more shards. */
const DATABASES: Readonly<Record<number, number>> = { 15: 2, 30: 4 };
const SHARDS: Readonly<Record<number, number>> = { 10: 4, 25: 8 };

/** Of each so many: failures of databases and of R2, deaths of logs, lost messages. */
const ONE_IN = { failure: 50, death: 4, loss: 20 } as const;

/** On which days a customer is erased: everything that was received of it until then belongs to an alias. */
const ERASED: Readonly<Record<number, string>> = { 20: "cus_7", 40: "cus_8", 50: "cus_7" };

const draw = <T>(arbitrary: fc.Arbitrary<T>, count: number, of: number): T[] =>
  fc.sample(arbitrary, { seed: SEED + of, numRuns: count });

const usage = fc.record({
  meter: fc.constantFrom(...METERS),
  customer: fc.constantFrom(...CUSTOMERS),
  value: fc.oneof(fc.integer({ min: 1, max: 1_000 }), fc.constantFrom(999_999_999_999_999)),
  identifier: fc.option(fc.uuid({ version: 4 })),
  payload: fc.option(fc.constant({ model: "large" }), { nil: undefined }),
  agoMs: fc.oneof(
    { weight: 19, arbitrary: fc.integer({ min: -4 * MINUTE_MS, max: 20 * MINUTE_MS }) },
    { weight: 1, arbitrary: fc.integer({ min: 0, max: 34 * DAY_MS }) },
  ),
});

type Known = { readonly reported: EventAppend; readonly logged: LogEntry & { customer: string }; cancelled?: number };

/** What was accepted, by what the callers were told. */
const known: Known[] = [];
const placement: Placement[number][] = [{ databases: 1, since: 0 }];
const shards = [2];
let messages: unknown[] = [];
let hostile: HostileD1;
let chance: () => number = () => 1;

const log = (): LogContext => ({ livemode: true, placement, shards });

const logs = () =>
  Array.from({ length: shards.at(-1) ?? 1 }, (_, place) => env.EVENT_LOG.getByName(shardName(true, place)));

/** Does something until it succeeds: what failed is done again as it was. */
async function untilDone<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (attempt === 20) throw error;
    }
  }
}

/** Numbers from 0 to below 1, each as likely: a linear congruential generator, whose upper bits are good enough here. */
function chances(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

const isStruck = (oneIn: number): boolean => Math.floor(chance() * oneIn) === 0;

async function report(of: number): Promise<void> {
  for (let call = 0; call < CALLS_A_SESSION; call++) {
    const now = Date.now();
    const entries = draw(usage, EVENTS_A_CALL, of * CALLS_A_SESSION + call).map(({ meter, agoMs, ...drawn }) => {
      const identifier = drawn.identifier ?? unique("order");
      const { customer, payload } = drawn;
      const value = meter.formula === "count" ? 1 : drawn.value;
      const event = { customer, payload, value, timestamp: now - agoMs, meter: meter.id, dimensions: "" };
      return {
        ...aNewEvent({ identifier, key: uniqueKey(true, identifier), id: newEventId(now) }),
        event: { ...event, aggregation: aggregationOf(meter) },
      };
    });
    const dies = isStruck(ONE_IN.death) ? logs()[Math.floor(chance() * logs().length)] : undefined;
    const [outcomes] = await Promise.all([
      untilDone(() => appendAll(env, log(), entries)),
      dies && end(dies, "abort").catch(() => {}),
    ]);
    for (const reported of entries) {
      const outcome = outcomes.get(reported);
      if (outcome?.outcome !== "accepted") throw new Error(`an event was not accepted: ${outcome?.outcome}`);
      const { received, timestamp } = outcome;
      const { id, identifier, apiKey, event } = reported;
      known.push({ reported, logged: { ...event, id, identifier, apiKey, received, timestamp } });
    }
    // A client that did not hear the answer.
    const repeated = known.at(-1 - Math.floor(chance() * Math.min(known.length, 1_500)))?.reported;
    if (repeated !== undefined) {
      const outcome = await untilDone(() => appendAll(env, log(), [again(repeated)]));
      expect([...outcome.values()]).toEqual([{ outcome: "duplicate", sameReport: true }]);
    }
  }
}

async function cancelSome(): Promise<void> {
  const recent = known.filter(({ logged, cancelled }) => !cancelled && logged.received > Date.now() - 23 * HOUR_MS);
  for (let i = 0; i < CANCELLATIONS_A_SESSION; i++) {
    const event = recent[Math.floor(chance() * recent.length)];
    if (event === undefined || event.cancelled !== undefined) continue;
    const { key } = event.reported;
    const request = { key, id: unique("adjustment"), meters: METERS.map(({ id }) => id), apiKey: 2 };
    const outcome = await untilDone(() =>
      cancelIn(env, log(), { ...request, keyDigest: undefined, requestDigest: request.id }),
    );
    if (outcome.outcome !== "cancelled") throw new Error(`an event was not cancelled: ${outcome.outcome}`);
    event.cancelled = outcome.at;
  }
}

/** Has the logs send, and the aggregator take what arrives; some is lost, some comes twice. */
async function deliver(): Promise<void> {
  await Promise.allSettled(logs().map((each) => each.nudge(contextOf(log()))));
  const arrived = messages.filter(() => !isStruck(ONE_IN.loss));
  messages = messages.filter(() => isStruck(ONE_IN.loss));
  for (let i = 0; i < arrived.length; i += 100) await consume(aBatch(arrived.slice(i, i + 100)), env);
}

/** Minutes of the archive after each session: a failure ends a minute's run. */
const MINUTES = 60;

/** The schedule's work: all of it for a minute, then the archive's until there is nothing left to do. */
async function keepHouse(): Promise<void> {
  await maintain(env, Date.now());
  for (const { livemode, place, database } of archivedDatabases(env)) {
    // A new stub each time: one that has seen its object reset fails for ever.
    const archiver = () => env.ARCHIVER.getByName(ARCHIVER) as DurableObjectStub<Archiver>;
    const minute = () =>
      archiveDatabase(env, { livemode, place, database }, { steps: 2, until: Number.POSITIVE_INFINITY });
    for (let i = 0; i < MINUTES && (await minute().catch(() => true)); i++) {
      if (isStruck(ONE_IN.death)) await runInDurableObject(archiver(), (_, { abort }) => abort("dies")).catch(() => {});
      await goOn(env, database.name);
      while (await runDurableObjectAlarm(archiver()));
      vi.setSystemTime(Date.now() + SECOND_MS);
    }
  }
}

async function grow(day: number): Promise<void> {
  const [databases, ofLog] = [DATABASES[day], SHARDS[day]];
  if (databases !== undefined) placement.push({ databases, since: Date.now() + 15 * MINUTE_MS });
  if (ofLog !== undefined) shards.push(ofLog);
  await recordPlacement(placement);
  const steps = JSON.stringify(shards.map((count, i) => [count, i]));
  await env.DB.prepare("INSERT OR REPLACE INTO deployment VALUES ('event_log_shards', ?)").bind(steps).run();
}

/** Erases a customer while databases and R2 fail; each failed step is done again. */
async function erase(customer: string): Promise<void> {
  const erasedAt = Date.now();
  const before = known.length;
  let cursor: string | undefined;
  let alias = "";
  do {
    const step = await untilDone(async () => {
      vi.setSystemTime(Date.now() + MINUTE_MS);
      const found = await eraseStep(env, { livemode: true, customer, cursor }, Date.now());
      if (!found.ok) throw new Error(found.error);
      return found.value;
    });
    [alias, cursor] = [step.alias, step.next];
  } while (cursor !== undefined);
  for (const event of known.slice(0, before)) {
    if (event.logged.customer === customer && event.logged.received <= erasedAt) event.logged.customer = alias;
  }
  aliases.push(alias);
}

const databases = () => eventsDatabases(env, true).slice(0, placement.at(-1)?.databases);

/** Readings that are timed together, since the clock of the runtime has whole milliseconds. */
const READ_AT_ONCE = 10;

/** How long a customer's last 30 days take to read (ms): the median of groups of readings. */
async function readTime(): Promise<number> {
  const end = floorTo(Date.now(), DAY_MS);
  const times: number[] = [];
  for (let i = 0; i < CUSTOMERS.length; i += READ_AT_ONCE) {
    const begin = performance.now();
    for (const customer of CUSTOMERS.slice(i, i + READ_AT_ONCE)) {
      await readSummaries(env, {
        ...{ meter: METERS[0] as Meter, customer, range: { start: end - 30 * DAY_MS, end } },
        ...{ windowLength: 30 * DAY_MS, order: "newest_first", limit: 1 },
      }).then(resultOf);
    }
    times.push((performance.now() - begin) / READ_AT_ONCE);
  }
  return times.sort((a, b) => a - b)[times.length / 2] ?? 0;
}

/** What the databases have, by tables whose rows are counted, and in bytes. */
type Measured = {
  readonly day: number;
  readonly events: number;
  readonly live: number;
  readonly archived: number;
  readonly bytes: number;
  readonly rows: Readonly<Record<(typeof KEPT)[number], number>>;
  readonly fileBytes: number;
  readonly p50: number;
};

/** Tables that grow with time, whatever is archived. */
const KEPT = ["sums", "survivors", "archive_files"] as const;

async function measure(day: number): Promise<Measured> {
  const found = await Promise.all(
    databases().map(async ({ db }) => {
      const queries = [
        ...KEPT.map((table) => `SELECT COUNT(*) AS n FROM ${table}`),
        "SELECT COALESCE(SUM(bytes), 0) AS n FROM archive_files",
      ];
      const results = await db.batch<{ n: number }>(queries.map((sql) => db.prepare(sql)));
      const numbers = results.map(({ results: [row] }) => row?.n ?? 0);
      return { numbers, bytes: results.at(-1)?.meta.size_after ?? 0, states: await statesOf(db) };
    }),
  );
  const add = (of: (one: (typeof found)[number]) => number): number => found.reduce((sum, one) => sum + of(one), 0);
  const slices = (isArchived: boolean) =>
    add(({ states }) => states.filter(({ state }) => (state === "archived") === isArchived).length);
  const [sums, survivors, archive_files, fileBytes] = [0, 1, 2, 3].map((i) => add(({ numbers }) => numbers[i] ?? 0));
  return {
    ...{ day, events: known.length, live: slices(false), archived: slices(true), bytes: add(({ bytes }) => bytes) },
    rows: { sums: sums ?? 0, survivors: survivors ?? 0, archive_files: archive_files ?? 0 },
    ...{ fileBytes: fileBytes ?? 0, p50: await readTime() },
  };
}

/** Rows of one statement. */
const COPIED = 2_000;

/** What a row of a table takes (bytes): those of the first database, in the order of time, in a database of their own. */
async function bytesARow(table: (typeof KEPT)[number], time: string): Promise<number> {
  const copy = env.TEST_EVENTS;
  const sizeOf = async () => (await copy.prepare("SELECT 1").all()).meta.size_after;
  await copy.exec(`DELETE FROM ${table}`);
  const before = await sizeOf();
  for (let rows = 0; ; rows += COPIED) {
    const read = env.EVENTS_0.prepare(`SELECT * FROM ${table} ORDER BY ${time} LIMIT ${COPIED} OFFSET ${rows}`);
    const found = await read.raw();
    const [first] = found;
    if (first === undefined) return rows === 0 ? 0 : ((await sizeOf()) - before) / rows;
    const columns = first.map((_, column) => `value ->> ${column}`).join(", ");
    await copy.prepare(`INSERT INTO ${table} SELECT ${columns} FROM json_each(?)`).bind(JSON.stringify(found)).run();
    if (found.length < COPIED) return ((await sizeOf()) - before) / (rows + found.length);
  }
}

/** What is stored, in live slices and in the archive, by id. */
async function everyEvent(): Promise<Map<string, Pick<StoredRow, "value" | "timestamp" | "received" | "cancelled">[]>> {
  const found: (Pick<StoredRow, "value" | "timestamp" | "received" | "cancelled"> & { id: string })[] = [];
  for (const { db } of databases()) {
    found.push(...(await storedIn(db, ...METERS.map(({ id }) => id))));
    for (const { slice, state } of await statesOf(db)) {
      if (state === "archived") found.push(...(await archivedRows(db, slice)));
    }
  }
  return Map.groupBy(found, ({ id }) => id);
}

async function compareEvents(): Promise<{ lost: number; doubled: number; wrong: number }> {
  const stored = await everyEvent();
  const total = { lost: 0, doubled: 0, wrong: 0 };
  for (const { logged, cancelled } of known) {
    const [one, other] = stored.get(logged.id) ?? [];
    if (one === undefined) total.lost++;
    else if (other !== undefined) total.doubled++;
    else if (one.value !== logged.value || one.timestamp !== logged.timestamp) total.wrong++;
    else if (one.received !== logged.received || one.cancelled !== (cancelled ?? null)) total.wrong++;
  }
  total.doubled += Math.max(0, stored.size - known.length);
  return total;
}

/** Compares every customer's summaries of all days, and some that are cut anywhere, with what was accepted. */
async function compareSums(): Promise<number> {
  const counted = Map.groupBy(
    known.filter(({ cancelled }) => cancelled === undefined),
    ({ logged }) => `${logged.meter} ${logged.customer}`,
  );
  const whole = { start: START - 40 * DAY_MS, end: START + (DAYS + 10) * DAY_MS };
  let compared = 0;
  for (const [i, customer] of [...CUSTOMERS, ...aliases].entries()) {
    const ragged = { start: START + (i % DAYS) * DAY_MS + 12_345 * SECOND_MS, end: whole.end - 7 * i * SECOND_MS };
    for (const meter of METERS) {
      const events = (counted.get(`${meter.id} ${customer}`) ?? []).map(({ logged }) => logged);
      for (const [range, windowLength] of [
        [whole, DAY_MS],
        [ragged, ragged.end - ragged.start],
      ] as const) {
        const query = { meter, customer, range, windowLength, order: "newest_first", limit: 1_000 } as const;
        const read = resultOf(await readSummaries(env, query)).map(({ start, value }) => ({ start, value }));
        expect(read, `${customer} on ${meter.formula}`).toEqual(fold(meter, events, range, windowLength));
        compared++;
      }
    }
  }
  return compared;
}

beforeEach(async () => {
  await forgetLogs();
  for (const { db } of eventsDatabases(env, true)) await empty(db);
  vi.useFakeTimers({ toFake: ["Date"], now: START });
  vi.spyOn(env.EVENT_QUEUE, "sendBatch").mockImplementation(async (batch) => {
    for (const { body } of batch) messages.push(body);
    return {} as QueueSendBatchResponse;
  });
  hostile = new HostileD1();
  vi.spyOn(Sender.prototype, "sendSoon").mockReturnValue();
  const put = env.ARCHIVE.put.bind(env.ARCHIVE);
  vi.spyOn(env.ARCHIVE, "put").mockImplementation((async (...args: Parameters<typeof put>) => {
    if (isStruck(ONE_IN.failure)) throw new Error("R2 is away");
    return put(...args);
  }) as typeof put);
  // Failures are part of the story.
  vi.spyOn(console, "error").mockImplementation(() => {});
});

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

it.runIf(DAYS > 0)(
  "weeks of usage are archived, and all of it is counted once",
  async () => {
    console.log(`${DAYS} days: seed ${SEED}`);
    chance = chances(SEED);
    const measured: Measured[] = [];
    for (let day = 0; day < DAYS; day++) {
      hostile.fate = (call) =>
        D1[isStruck(ONE_IN.failure) ? "isAway" : isStruck(ONE_IN.failure) ? "losesItsAnswer" : "works"](call);
      for (const [session, hour] of SESSIONS.entries()) {
        vi.setSystemTime(START + day * DAY_MS + hour * HOUR_MS);
        if (session === 0) await untilDone(() => grow(day));
        await report(day * SESSIONS.length + session);
        await cancelSome();
        await deliver();
        const erased = session === 2 ? ERASED[day] : undefined;
        if (erased !== undefined) await erase(erased);
        vi.setSystemTime(Date.now() + 30 * MINUTE_MS);
        await deliver();
        await keepHouse();
      }
      hostile.fate = D1.works;
      if ((day + 1) % 4 === 0 || day + 1 === DAYS) measured.push(await measure(day + 1));
    }
    // What was lost comes again; what is on its way arrives.
    for (let hour = 0; hour < 4; hour++) {
      vi.setSystemTime(Date.now() + HOUR_MS);
      await Promise.all(logs().map((each) => each.nudge(contextOf(log()))));
      const arrived = messages;
      messages = [];
      for (let i = 0; i < arrived.length; i += 100) await consume(aBatch(arrived.slice(i, i + 100)), env);
      await keepHouse();
    }
    const found = await compareEvents();
    const compared = await compareSums();
    const bytes = {
      sums: await bytesARow("sums", "quarter_hour"),
      survivors: await bytesARow("survivors", "window_start"),
      archive_files: await bytesARow("archive_files", "slice"),
    };
    const cancelled = known.filter((event) => event.cancelled !== undefined).length;
    console.log(
      [
        [
          `${DAYS} days: ${known.length} events accepted, ${cancelled} cancelled`,
          `${found.lost} lost, ${found.doubled} doubled, ${found.wrong} stored wrongly, ${compared} summaries compared`,
          `a row of sums takes ${bytes.sums.toFixed(1)} bytes, of survivors ${bytes.survivors.toFixed(1)}; seed ${SEED}`,
        ].join("; "),
        "| day | events | slices with tables | archived | events (MB) | rows of sums | files | in files (MB) | read p50 (ms) |",
        "| --: | --: | --: | --: | --: | --: | --: | --: | --: |",
        ...measured.map(({ rows, bytes: all, fileBytes, p50, day, events, live, archived }) => {
          const eventBytes = all - KEPT.reduce((sum, name) => sum + rows[name] * bytes[name], 0);
          const [eventMb, fileMb] = [eventBytes, fileBytes].map((value) => (value / 1_000_000).toFixed(2));
          const cells = [day, events, live, archived, eventMb, rows.sums, rows.archive_files, fileMb, p50.toFixed(1)];
          return `| ${cells.join(" | ")} |`;
        }),
        "",
      ].join("\n"),
    );
    expect(found).toEqual({ lost: 0, doubled: 0, wrong: 0 });
  },
  DAYS * 60_000 + 600_000,
);
