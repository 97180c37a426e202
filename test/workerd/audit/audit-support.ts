import { env } from "cloudflare:workers";
import { afterEach, beforeEach, expect, vi } from "vitest";
import { consume } from "../../../src/aggregate/consumer.ts";
import { tableOf } from "../../../src/aggregate/sql/events.ts";
import { liveSlices } from "../../../src/aggregate/sql/slices.ts";
import { eventsDatabases } from "../../../src/catalog/databases.ts";
import { insertMeter } from "../../../src/catalog/meters.ts";
import { aggregationOf, type Meter } from "../../../src/domain/meter.ts";
import { MINUTE_MS, SECOND_MS } from "../../../src/domain/window.ts";
import type { EventAppend } from "../../../src/log/entries.ts";
import type { EventLog } from "../../../src/log/event-log.ts";
import { aMeter, unique } from "../../support/builders.ts";
import { aBatch, aContext, aNewEvent, aShard, FUTURE, storedIn } from "../support.ts";

/** What the logs have sent and nobody took yet. */
export const sent: unknown[] = [];

type Line = { readonly level: string; readonly message: string; readonly [field: string]: unknown };

const lines: Line[] = [];

/** What was logged in this test, by its message. */
export const logged = (level: "error" | "warning"): string[] =>
  lines.filter((line) => line.level === level).map(({ message }) => message);

/** What was logged in this test under a message, whole. */
export const linesOf = (message: string): Line[] => lines.filter((line) => line.message === message);

export const forgetLines = (): void => {
  lines.length = 0;
};

/** For each test of a file: it is FUTURE, and what the logs send waits in `sent`. */
export function holdQueueAndClock(): void {
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ["Date"], now: FUTURE });
    sent.length = 0;
    lines.length = 0;
    for (const queue of [env.EVENT_QUEUE, env.TEST_EVENT_QUEUE]) {
      vi.spyOn(queue, "sendBatch").mockImplementation(async (batch) => {
        sent.push(...[...batch].map(({ body }) => body));
        return {} as QueueSendBatchResponse;
      });
    }
    for (const level of ["error", "warn"] as const) {
      vi.spyOn(console, level).mockImplementation((line) => void lines.push(JSON.parse(line)));
    }
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

/** Delivers whatever a log has to send, until its databases have confirmed all of it. */
export async function settle(log: DurableObjectStub<EventLog>): Promise<void> {
  await vi.waitFor(
    async () => {
      await log.nudge(aContext());
      await consume(aBatch(sent.splice(0)), env);
      expect((await log.status()).entries).toBe(0);
    },
    { timeout: 30_000, interval: 5 },
  );
}

/** Events of a meter for a log, of the quarter hour before FUTURE, of a customer each or of one. */
export const someEvents = (meter: Meter, shard: string, count = 10, customer?: (place: number) => string) =>
  Array.from({ length: count }, (_, i): EventAppend => {
    const event = aNewEvent({
      ...{ shard, meter: meter.id, timestamp: FUTURE - MINUTE_MS - i * SECOND_MS, identifier: unique("event") },
      ...(customer === undefined ? {} : { customer: customer(i) }),
    });
    return { ...event, event: { ...event.event, aggregation: aggregationOf(meter) } };
  });

/** Ten events of 25 in a shard's log and in its database; and the shard. */
export async function tenEvents(meter: Meter, { shard, log } = aShard({ livemode: meter.livemode })) {
  const events = someEvents(meter, shard);
  await log.append(events, aContext());
  await settle(log);
  return { shard, log, events };
}

/** Runs SQL on a database; `EVENTS` stands for each live slice in turn, and `SERIES` for the ids of a meter's series. */
export async function damage(db: D1Database, meter: Meter, ...queries: string[]): Promise<void> {
  const tables = (await liveSlices(db)).map(({ slice }) => tableOf(slice));
  const series = `(SELECT id FROM series WHERE meter = '${meter.id}')`;
  for (const query of queries) {
    for (const table of query.includes("EVENTS") ? tables : [""]) {
      await db.prepare(query.replaceAll("EVENTS", table).replaceAll("SERIES", series)).run();
    }
  }
}

/** For `damage`: all of a meter's in a table, deleted or changed. */
export const gone = (table: string): string => `DELETE FROM ${table} WHERE series IN SERIES`;
export const set = (table: string, change: string): string => `UPDATE ${table} SET ${change} WHERE series IN SERIES`;

/** For a log's append: live mode has two databases. */
export const TWO_DATABASES = [1, 2].map((databases) => ({ databases, since: 0 }));

/** All that the databases of a meter's mode keep of it. */
export async function keptOf(meter: Meter): Promise<unknown[]> {
  return Promise.all(
    eventsDatabases(env, meter.livemode).map(async ({ db }) => {
      const [sums, survivors] = await db.batch(
        ["sums", "survivors"].map((table) =>
          db
            .prepare(`SELECT ${table}.* FROM series JOIN ${table} ON series = series.id WHERE meter = ? ORDER BY 1, 2`)
            .bind(meter.id),
        ),
      );
      return { events: await storedIn(db, meter.id), sums: sums?.results, survivors: survivors?.results };
    }),
  );
}

/** Cancels an event of a meter in its log. */
export const cancel = (log: DurableObjectStub<EventLog>, event: EventAppend | undefined, meter: Meter) =>
  log.cancel(
    {
      key: event?.key ?? "",
      id: unique("adjustment"),
      meters: [meter.id],
      apiKey: 2,
      keyDigest: undefined,
      requestDigest: "",
    },
    aContext(),
  );
