// What the crash-point tests share: the way of events from their report to their summary, in which the
// test rings the alarms, carries the queue and turns the clock.
import { runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { expect, vi } from "vitest";
import { consume } from "../../../src/aggregate/consumer.ts";
import { identifierOfKey, newEventId, shardOf, uniqueKey } from "../../../src/domain/identifiers.ts";
import { HOUR_MS, MINUTE_MS } from "../../../src/domain/window.ts";
import { settingsOf } from "../../../src/env.ts";
import type { EventLog } from "../../../src/index.ts";
import { decodeMessage } from "../../../src/log/groups.ts";
import { unique } from "../../support/builders.ts";
import { aBatch, answerOf, call, createdMeter, eventually, FUTURE } from "../support.ts";
import { callsUnderWay, forgetCalls, isFallen, watched } from "./faults.ts";

/** Longer than the log ever waits before it sends a group again (ms). */
const REST_MS = 15 * MINUTE_MS;

/** Rings of the alarms after which all must be quiet. */
const ROUNDS_TO_REST = 8;

/** The log's patience with the queue (ms), and what a story makes of it. */
const LONG_MS = 30_000;
const SHORT_MS = 20;

/** By what a client lets its retry be recognised. */
export type Client = { readonly identifier?: string; readonly key?: string };

/** A client that chose an Idempotency-Key beside an identifier, so that the key is claimed before its event is appended. */
export const aClaimingClient = (): Required<Client> => ({ identifier: unique("crash"), key: unique("crash_key") });

/** A client whose report is one append: the SDK's own key is not claimed. */
export const aPlainClient = (): Required<Client> => ({
  identifier: unique("crash"),
  key: `stripe-node-retry-${unique("crash_key")}`,
});

/** Sets a fault for a client's request. */
export type Strike<C = Client> = (story: Story, client: C) => void | Promise<void>;

/** The identifier of a client's event. */
const nameOf = ({ identifier, key }: Client): string => identifier ?? identifierOfKey(false, key ?? "");

/** A story of an event that waits to be sent. */
export async function acknowledged<C extends Client = Required<Client>>(
  client = aClaimingClient() as Client as C,
): Promise<{ story: Story; client: C }> {
  const story = await Story.begin();
  expect(await story.report(client)).toMatchObject({ status: 200 });
  return { story, client };
}

let stories = 0;

/** One meter with logs of its own, a queue that the test carries by hand, and a clock that it turns. */
export class Story {
  /** Messages that the logs sent and nobody has taken yet. */
  readonly queue: string[] = [];
  /** How many messages the logs have sent. */
  sent = 0;
  meter = { id: "", event_name: "" };
  readonly #firstShard = 10_000 + 4 * stories++;
  readonly #asked = new Set<number>();

  static async begin(): Promise<Story> {
    const story = new Story();
    forgetCalls();
    vi.restoreAllMocks();
    vi.useFakeTimers({ toFake: ["Date"], now: FUTURE });
    story.#takeLogs();
    story.#takeQueue();
    story.#takeTimers();
    // Failures are part of the story.
    vi.spyOn(console, "error").mockImplementation(() => {});
    story.meter = await createdMeter();
    return story;
  }

  /** Reports 25 over HTTP, as a client does. */
  report({ identifier, key }: Client, customer = "cus_1", timestamp?: string): ReturnType<typeof answerOf> {
    return this.ask("/v2/billing/meter_events", key, {
      event_name: this.meter.event_name,
      payload: { stripe_customer_id: customer, value: "25" },
      identifier,
      timestamp,
    });
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
  ask(path: string, idempotencyKey: string | undefined, body: object, token?: string): ReturnType<typeof answerOf> {
    return watched(answerOf(path, { body, idempotencyKey, key: token }));
  }

  /** The log that a client's event goes to: a new stub each time, as one that has seen a crash fails for ever. */
  log(client: Client): DurableObjectStub<EventLog> {
    return this.logOfShard(shardOf(uniqueKey(false, nameOf(client)), settingsOf(env).EVENT_LOG_SHARDS));
  }

  logOfShard(shard: number): DurableObjectStub<EventLog> {
    return env.EVENT_LOG.getByName(`shard-${shard}`);
  }

  /** Whether the log has a client's event. */
  async knows(client: Client): Promise<boolean> {
    const key = uniqueKey(false, nameOf(client));
    const inquiry = { key, id: newEventId(Date.now()), keyDigest: undefined, reportDigest: "", claims: false };
    return (await this.log(client).recall([inquiry]))[0] !== undefined;
  }

  /** Lets every log's alarm ring, where one is set; whether one was. */
  async ring(): Promise<boolean> {
    const rang = await watched(Promise.all([...this.#asked].map((shard) => this.#ringAt(shard))));
    return rang.includes(true);
  }

  /** Lets the alarms ring whose time has come. */
  async ringDue(): Promise<void> {
    const now = Date.now();
    await Promise.all(
      [...this.#asked].map(async (shard) => {
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
    for (const object of [lock, ...[...this.#asked].map((shard) => this.logOfShard(shard))]) {
      expect(await runInDurableObject(object, isFallen)).toBe(false);
    }
  }

  /** How often 25 counts for a customer: by the rows of D1 and by the summary over HTTP, which must agree. */
  async counted(customer = "cus_1"): Promise<number> {
    const events = await env.DB.prepare(
      "SELECT COUNT(*) AS n FROM events WHERE meter = ? AND customer = ? AND cancelled IS NULL",
    )
      .bind(this.meter.id, customer)
      .first<number>("n");
    const hour = Math.floor(FUTURE / HOUR_MS) * 3_600;
    const response = await call(
      `/v1/billing/meters/${this.meter.id}/event_summaries?customer=${customer}&start_time=${hour - 36_000}&end_time=${hour + 360_000}`,
    );
    const total = /"aggregated_value":([^,]+),/.exec(await response.text())?.[1] ?? "0";
    expect(Number(total)).toBe(25 * (events ?? Number.NaN));
    return events ?? Number.NaN;
  }

  /** Comes to rest, and then so many events count. */
  async comesTo(count: number, customer?: string): Promise<void> {
    await this.rest();
    expect(await this.counted(customer)).toBe(count);
  }

  /** Gives the Worker's shards other names, so that no story meets another's alarms and timers. */
  #takeLogs(): void {
    const shards = settingsOf(env).EVENT_LOG_SHARDS;
    const getByName = env.EVENT_LOG.getByName.bind(env.EVENT_LOG);
    vi.spyOn(env.EVENT_LOG, "getByName").mockImplementation((name, options) => {
      const shard = Number(name.slice("shard-".length));
      if (shard >= shards) return getByName(name, options);
      this.#asked.add(shard);
      return getByName(`shard-${this.#firstShard + shard}`, options);
    });
  }

  #takeQueue(): void {
    vi.spyOn(env.EVENT_QUEUE, "sendBatch").mockImplementation((batch) => this.send(batch));
  }

  /** What the queue does with what it is sent, when nothing is wrong with it. */
  async send(batch: Iterable<MessageSendRequest>): Promise<QueueSendBatchResponse> {
    for (const { body } of batch) {
      const [group] = decodeMessage(String(body));
      // Logs of earlier stories may still be sending.
      if (Math.floor(((group?.shard ?? 0) - this.#firstShard) / 4) !== 0) continue;
      this.queue.push(String(body));
      this.sent++;
    }
    return {} as QueueSendBatchResponse;
  }

  /** The logs send when their alarm rings, and soon give up on a queue that hangs. */
  #takeTimers(): void {
    const setTimeout = globalThis.setTimeout.bind(globalThis);
    vi.spyOn(globalThis, "setTimeout").mockImplementation(((callback: () => void, ms?: number) =>
      ms === settingsOf(env).SEND_DELAY_MS
        ? 0
        : setTimeout(callback, ms === LONG_MS ? SHORT_MS : ms)) as typeof setTimeout);
  }
}

const isReset = (error: unknown): boolean =>
  error instanceof Error && "durableObjectReset" in error && error.durableObjectReset === true;
