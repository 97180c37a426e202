// What the crash-point tests share: the way of events from their report to their summary, in which the
// test rings the alarms, carries the queue and turns the clock.
import { runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { expect, vi } from "vitest";
import { LOCAL_KEYS } from "../../../scripts/local-keys.ts";
import { consume } from "../../../src/aggregate/consumer.ts";
import { openSlice } from "../../../src/aggregate/sql/slices.ts";
import { eventsDatabase, eventsDatabases } from "../../../src/catalog/databases.ts";
import { identifierOfKey, newEventId, uniqueKey } from "../../../src/domain/identifiers.ts";
import { databaseOf, databasesOf } from "../../../src/domain/placement.ts";
import { HOUR_MS, MINUTE_MS, sliceOf } from "../../../src/domain/window.ts";
import type { EventLog } from "../../../src/index.ts";
import { decodeMessage } from "../../../src/log/message.ts";
import { Sender } from "../../../src/log/sender.ts";
import { shardName } from "../../../src/log/shard-name.ts";
import { unique } from "../../support/builders.ts";
import {
  aBatch,
  aContext,
  answerOf,
  aToken,
  call,
  calledLogs,
  createdMeter,
  eventually,
  FUTURE,
  forgetLogs,
  liveShardOf,
  storedIn,
} from "../support.ts";
import { callsUnderWay, forgetCalls, isFallen, replaceCall, watched } from "./faults.ts";

/** Longer than the log ever waits before it sends a group again (ms). */
const REST_MS = 15 * MINUTE_MS;

/** Rings of the alarms after which all must be quiet. */
const ROUNDS_TO_REST = 8;

/** The log's patience with the queue (ms), and what a story makes of it. */
const LONG_MS = 20_000;
const SHORT_MS = 20;

/** Stories so far: each begins later than what the aggregator remembers of a database that hung. */
let begun = 0;

/** By what a client lets its retry be recognised. */
export type Client = { readonly identifier?: string; readonly key?: string };

/** A client that chose an Idempotency-Key beside an identifier, so that the key is claimed before its event is appended. */
export const aClaimingClient = (): Required<Client> => ({ identifier: unique("crash"), key: unique("crash_key") });

/** A client whose report is one append: the SDK's own key is not claimed. */
export const aPlainClient = (): Required<Client> => ({
  identifier: unique("crash"),
  key: `stripe-node-retry-${unique("crash_key")}`,
});

/** A client whose events go to one shard of live mode. */
export function aClientOf(shard: number): Required<Client> {
  for (;;) {
    const client = aPlainClient();
    if (liveShardOf(uniqueKey(true, client.identifier)) === shardName(true, shard)) return client;
  }
}

/** What a transaction of D1 comes to; a consumer that `dies` is never heard of again. */
export type Fate = (commit: () => Promise<unknown>, dies: () => Promise<never>) => Promise<unknown>;

export const dies: Fate = (_, dies) => dies();
export const diesAfterIt: Fate = (commit, dies) => commit().then(dies);

/** Sets a fault for a client's request. */
export type Strike<C = Client> = (story: Story, client: C) => void | Promise<void>;

/** The identifier of a client's event. */
const nameOf = ({ identifier, key }: Client): string => identifier ?? identifierOfKey(true, key ?? "");

/** A story of an event that waits to be sent. */
export async function acknowledged<C extends Client = Required<Client>>(
  client = aClaimingClient() as Client as C,
): Promise<{ story: Story; client: C }> {
  const story = await Story.begin();
  expect(await story.report(client)).toMatchObject({ status: 200 });
  return { story, client };
}

/** One meter of live mode with logs of its own, a queue that the test carries by hand, and a clock that it turns. */
export class Story {
  /** Messages that the logs sent and nobody has taken yet. */
  readonly queue: unknown[] = [];
  /** How many messages the logs have sent. */
  sent = 0;
  meter = { id: "", event_name: "" };

  static async begin(): Promise<Story> {
    const story = new Story();
    forgetCalls();
    vi.restoreAllMocks();
    vi.useFakeTimers({ toFake: ["Date"], now: FUTURE + MINUTE_MS * begun++ });
    await forgetLogs();
    story.#takeQueue();
    story.#takeTimers();
    // Failures are part of the story.
    vi.spyOn(console, "error").mockImplementation(() => {});
    // As the minute's maintenance would have done.
    await Promise.all(eventsDatabases(env, true).map(({ db }) => openSlice(db, sliceOf(FUTURE))));
    story.meter = await createdMeter({}, LOCAL_KEYS.live);
    return story;
  }

  /** Reports 25 over HTTP, as a client does. */
  report(
    { identifier, key }: Client,
    customer = "cus_1",
    timestamp?: string,
    value = "25",
  ): ReturnType<typeof answerOf> {
    return this.ask("/v2/billing/meter_events", key, {
      event_name: this.meter.event_name,
      payload: { stripe_customer_id: customer, value },
      identifier,
      timestamp,
    });
  }

  /** Reports 25 for each of some customers in one stream's request; one log makes one group of them. */
  async reportTogether(customers: readonly string[], shard = 0): ReturnType<typeof answerOf> {
    const events = customers.map((customer) => ({
      event_name: this.meter.event_name,
      payload: { stripe_customer_id: customer, value: "25" },
      identifier: aClientOf(shard).identifier,
    }));
    return this.ask("/v2/billing/meter_event_stream", undefined, { events }, await aToken(LOCAL_KEYS.live));
  }

  /** Cancels an event over HTTP. */
  cancel({ identifier, key }: Client): ReturnType<typeof answerOf> {
    return this.ask("/v2/billing/meter_event_adjustments", key, {
      event_name: this.meter.event_name,
      type: "cancel",
      cancel: { identifier },
    });
  }

  /** Posts a body, under an Idempotency-Key if there is one; `token`: a session's, where one is needed. */
  ask(
    path: string,
    idempotencyKey: string | undefined,
    body: object,
    token: string = LOCAL_KEYS.live,
  ): ReturnType<typeof answerOf> {
    return watched(answerOf(path, { body, idempotencyKey, key: token }));
  }

  /** The log that a client's event goes to: a new stub each time, as one that has seen a crash fails for ever. */
  log(client: Client): DurableObjectStub<EventLog> {
    return env.EVENT_LOG.getByName(liveShardOf(uniqueKey(true, nameOf(client))));
  }

  logOfShard(shard: number): DurableObjectStub<EventLog> {
    return env.EVENT_LOG.getByName(shardName(true, shard));
  }

  /** The database of a customer's events. */
  database(customer = "cus_1"): D1Database {
    return eventsDatabase(env, true, databaseOf(this.meter.id, customer, 4));
  }

  /** A customer whose events go to one of the four databases. */
  customerIn(database: number): string {
    for (let i = 1; ; i++) {
      if (databaseOf(this.meter.id, `cus_${i}`, 4) === database) return `cus_${i}`;
    }
  }

  /** Whether the log has a client's event. */
  async knows(client: Client): Promise<boolean> {
    const key = uniqueKey(true, nameOf(client));
    const inquiry = { key, id: newEventId(Date.now()), keyDigest: undefined, reportDigest: "", claims: false };
    return (await this.log(client).recall([inquiry], aContext()))[0] !== undefined;
  }

  /** Lets every log's alarm ring, where one is set; whether one was. */
  async ring(): Promise<boolean> {
    const rang = await watched(Promise.all([...calledLogs].map((shard) => this.#ringAt(shard))));
    return rang.includes(true);
  }

  /** Lets the alarms ring whose time has come. */
  async ringDue(): Promise<void> {
    const now = Date.now();
    await Promise.all(
      [...calledLogs].map(async (shard) => {
        const alarm = await runInDurableObject(this.logOfShard(shard), (_, { storage }) => storage.getAlarm());
        if (alarm !== null && alarm <= now) await this.#ringAt(shard);
      }),
    );
  }

  /** As the platform does, an alarm whose object died is set again; one that throws is not, and fails the test. */
  async #ringAt(shard: number): Promise<boolean> {
    try {
      return await runDurableObjectAlarm(this.logOfShard(shard));
    } catch (error) {
      if (!isReset(error)) throw error;
      await runInDurableObject(this.logOfShard(shard), (_, { storage }) => storage.setAlarm(Date.now()));
      return true;
    }
  }

  /** Hands what was sent to a consumer. */
  deliver(): Promise<void> {
    return watched(consume(aBatch(this.queue.splice(0)), env));
  }

  /** Delivers what was sent, with a fate for a database's transaction after `skip` others. */
  async deliverTo(db: D1Database, fate: Fate, skip = 0): Promise<void> {
    const death = Promise.withResolvers<void>();
    const dies = () => {
      death.resolve();
      return new Promise<never>(() => {});
    };
    replaceCall(db, "batch", (commit) => fate(commit, dies), skip);
    await Promise.race([this.deliver(), death.promise]);
    // A transaction more would be the aggregator's own retry, which the logs alone own.
    expect(db.batch).toHaveBeenCalledTimes(skip + 1);
  }

  /** The databases of the shares that were sent and nobody has taken yet. */
  databasesSent(): number[] {
    return this.queue.flatMap(decodeMessage).map(({ database }) => database);
  }

  /** Turns the clock; by default as far as any wait of the log. */
  pass(ms = REST_MS): void {
    vi.setSystemTime(Date.now() + ms);
  }

  /** Alarms and the queue alone bring everything home; afterwards no alarm is set and nothing is sent. */
  async rest(rounds = ROUNDS_TO_REST): Promise<void> {
    await eventually(() => expect(callsUnderWay()).toBe(0));
    for (let round = 0; round < rounds; round++) {
      this.pass();
      const rang = await this.ring();
      if (!rang && this.queue.length === 0) return this.#checkFallen();
      await this.deliver();
    }
    throw new Error("the logs have no rest");
  }

  /** Whoever was to die or to be evicted is gone: a test of a crash that did not happen would show nothing. */
  async #checkFallen(): Promise<void> {
    const lock = env.CUSTOMER_METER.getByName(`${this.meter.id}:cus_1`);
    for (const object of [lock, ...[...calledLogs].map((shard) => this.logOfShard(shard))]) {
      expect(await runInDurableObject(object, isFallen)).toBe(false);
    }
  }

  /** How often 25 counts for a customer: by the rows of its databases and by the summary over HTTP, which must agree. */
  async counted(customer = "cus_1"): Promise<number> {
    const databases = databasesOf(
      this.meter.id,
      customer,
      [1, 4].map((count) => ({ databases: count, since: 0 })),
    );
    const stored = await Promise.all(
      databases.map((database) => storedIn(eventsDatabase(env, true, database), this.meter.id)),
    );
    const events = stored.flat().filter((row) => row.customer === customer && row.cancelled === null).length;
    expect(await this.summed(customer)).toBe(25 * events);
    return events;
  }

  /** What the summary of all days of the story says over HTTP. */
  async summed(customer?: string): Promise<number> {
    const { status, text } = await this.read(customer);
    expect(status).toBe(200);
    return Number(/"aggregated_value":([^,]+),/.exec(text)?.[1] ?? "0");
  }

  /** The response with that summary. */
  async read(customer = "cus_1"): Promise<{ readonly status: number; readonly text: string }> {
    const hour = Math.floor(FUTURE / HOUR_MS) * 3_600;
    const response = await call(
      `/v1/billing/meters/${this.meter.id}/event_summaries?customer=${customer}&start_time=${hour - 36_000}&end_time=${hour + 360_000}`,
      { key: LOCAL_KEYS.live },
    );
    return { status: response.status, text: await response.text() };
  }

  /** Comes to rest, and then so many events of each customer count. */
  async comesTo(count: number, ...customers: readonly string[]): Promise<void> {
    await this.rest();
    for (const customer of customers.length === 0 ? ["cus_1"] : customers) {
      expect(await this.counted(customer)).toBe(count);
    }
  }

  #takeQueue(): void {
    vi.spyOn(env.EVENT_QUEUE, "sendBatch").mockImplementation((batch) => this.send(batch));
  }

  /** What the queue does with what it is sent, when nothing is wrong with it. */
  async send(batch: Iterable<MessageSendRequest>): Promise<QueueSendBatchResponse> {
    for (const { body } of batch) {
      this.queue.push(body);
      this.sent++;
    }
    return {} as QueueSendBatchResponse;
  }

  /** The logs send when their alarm rings, and soon give up on a queue that hangs. */
  #takeTimers(): void {
    vi.spyOn(Sender.prototype, "sendSoon").mockReturnValue();
    const setTimeout = globalThis.setTimeout.bind(globalThis);
    vi.spyOn(globalThis, "setTimeout").mockImplementation(((callback: () => void, ms?: number) =>
      setTimeout(callback, ms === LONG_MS ? SHORT_MS : ms)) as typeof setTimeout);
  }
}

const isReset = (error: unknown): boolean =>
  error instanceof Error && "durableObjectReset" in error && error.durableObjectReset === true;
