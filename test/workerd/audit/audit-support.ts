// What the auditor's tests share: a queue in their hands, a clock that stands still, and damage to D1.
import { env } from "cloudflare:workers";
import { afterEach, beforeEach, expect, vi } from "vitest";
import { consume } from "../../../src/aggregate/consumer.ts";
import { insertMeter } from "../../../src/catalog/meters.ts";
import { aggregationOf, type Meter } from "../../../src/domain/meter.ts";
import { DAY_MS, floorTo, HOUR_MS, MINUTE_MS } from "../../../src/domain/window.ts";
import type { EventAppend } from "../../../src/log/entries.ts";
import type { EventLog } from "../../../src/log/event-log.ts";
import { readSummaries } from "../../../src/query/summaries.ts";
import { aMeter, unique } from "../../support/builders.ts";
import { aBatch, aNewEvent, aShard, FUTURE } from "../support.ts";

/** What the logs have sent and nobody took yet. */
export const sent: string[] = [];

/** For each test of a file: it is FUTURE, and what the logs send waits in `sent`. */
export function holdQueueAndClock(): void {
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ["Date"], now: FUTURE });
    sent.length = 0;
    vi.spyOn(env.EVENT_QUEUE, "sendBatch").mockImplementation(async (batch) => {
      sent.push(...[...batch].map(({ body }) => String(body)));
      return {} as QueueSendBatchResponse;
    });
    vi.spyOn(console, "warn").mockImplementation(() => {});
  });

  afterEach(() => {
    vi.restoreAllMocks();
    vi.useRealTimers();
  });
}

/** A stored meter of its own. */
export async function aStoredMeter(changes: Parameters<typeof aMeter>[0] = {}): Promise<Meter> {
  const meter = aMeter({ eventName: unique("tokens"), ...changes });
  await insertMeter(env.DB, meter).run();
  return meter;
}

/** Delivers whatever a log has to send, until D1 has confirmed all of it. */
export async function settle(log: DurableObjectStub<EventLog>): Promise<void> {
  await vi.waitFor(
    async () => {
      await log.nudge();
      await consume(aBatch(sent.splice(0)), env);
      expect((await log.status()).entries).toBe(0);
    },
    { timeout: 30_000, interval: 5 },
  );
}

/** Ten events of 25 in a shard's log and in D1, one a minute; and the shard. */
export async function tenEvents(meter: Meter, { shard, log } = aShard()) {
  const events = Array.from({ length: 10 }, (_, i) => {
    const event = aNewEvent({ shard, meter: meter.id, timestamp: FUTURE - i * MINUTE_MS, identifier: unique("event") });
    return { ...event, event: { ...event.event, aggregation: aggregationOf(meter) } };
  });
  await log.append(events);
  await settle(log);
  return { shard, log, events };
}

/** What the summaries say of a meter. */
export const totalOf = async (meter: Meter): Promise<bigint | undefined> => {
  const range = { start: 0, end: FUTURE + 10 * DAY_MS - ((FUTURE + 10 * DAY_MS) % DAY_MS) };
  const query = { meter, customer: "cus_1", range, windowLength: range.end, order: "newest_first", limit: 10 } as const;
  return (await readSummaries(env.DB, query))[0]?.value;
};

export const sql = (query: string, ...values: unknown[]) =>
  env.DB.prepare(query)
    .bind(...values)
    .run();

/** Deletes an event from D1 without a trace: its hour says so too. */
export async function lose(meter: Meter, event: EventAppend | undefined): Promise<void> {
  await sql("DELETE FROM events WHERE meter = ? AND identifier = ?", meter.id, event?.identifier);
  await addToHour(meter, event, -1);
}

/** Counts an event of 25 once more in its hour, or once less. */
export const addToHour = (meter: Meter, event: EventAppend | undefined, count: 1 | -1) =>
  sql(
    "UPDATE hourly_summaries SET count = count + ?1, sum_low = sum_low + 25 * ?1 WHERE meter = ?2 AND hour = ?3",
    count,
    meter.id,
    floorTo(event?.event.timestamp ?? 0, HOUR_MS),
  );

/** Cancels an event of a meter in its log. */
export const cancel = (log: DurableObjectStub<EventLog>, event: EventAppend | undefined, meter: Meter) =>
  log.cancel({
    key: event?.key ?? "",
    id: unique("adjustment"),
    meters: [meter.id],
    keyDigest: undefined,
    requestDigest: "",
  });
