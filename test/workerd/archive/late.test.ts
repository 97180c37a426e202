// Lists of late events say the same before and after slices are dropped.
import { env } from "cloudflare:workers";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, inject, it, vi } from "vitest";
import { LOCAL_KEYS } from "../../../scripts/local-keys.ts";
import { tableOf } from "../../../src/aggregate/sql/events.ts";
import { eventsDatabase, eventsDatabases } from "../../../src/catalog/databases.ts";
import { insertMeter } from "../../../src/catalog/meters.ts";
import { orderAt } from "../../../src/domain/identifiers.ts";
import { LATE_MS } from "../../../src/domain/limits.ts";
import type { Meter } from "../../../src/domain/meter.ts";
import { databasesOf, ONE_DATABASE, type Placement } from "../../../src/domain/placement.ts";
import { DAY_MS, floorTo, HOUR_MS, MINUTE_MS, SECOND_MS, sliceOf } from "../../../src/domain/window.ts";
import type { LogEntry } from "../../../src/log/codec.ts";
import type { StoredEvent } from "../../../src/query/event-order.ts";
import { aLogEntry, aMeter, anEventId, errorOf, resultOf, unique } from "../../support/builders.ts";
import { answerOf, FUTURE, readPage, recordPlacement } from "../support.ts";
import { archive, cancel, empty, statesOf, store } from "./support.ts";

const START = floorTo(FUTURE, DAY_MS);
const OLD = START + 70 * DAY_MS;
const ALWAYS = { start: 0, end: Number.MAX_SAFE_INTEGER };

const BUCKET = env.ARCHIVE;

type Changes = NonNullable<Parameters<typeof readPage>[1]>;

/** Those that came an hour late or later, of all customers. */
const LATE = { customer: undefined, late: LATE_MS } as const;

async function aKnownMeter(livemode = true): Promise<Meter> {
  const meter = aMeter({ livemode, eventName: unique("late") });
  await insertMeter(env.DB, meter).run();
  return meter;
}

/** An event that was received at a time, so long after its timestamp (ms). */
const anEvent = (meter: Meter, received: number, delay: number, changes: Partial<LogEntry> = {}): LogEntry =>
  aLogEntry({ meter: meter.id, id: anEventId(orderAt(received)), timestamp: received - delay, received, ...changes });

const idsOf = (events: readonly Pick<StoredEvent, "id">[]): string[] => events.map(({ id }) => id);

/** The ids of all pages. */
async function listAll(meter: Meter, changes: Changes & { readonly limit: number }): Promise<string[]> {
  const order = changes.from?.order ?? "newest_first";
  const listed: StoredEvent[] = [];
  for (;;) {
    const { events } = resultOf(await readPage(meter, { ...changes, from: { order, place: listed.at(-1) } }));
    listed.push(...events);
    if (events.length < changes.limit) return idsOf(listed);
  }
}

const databases = () => eventsDatabases(env, true);

beforeEach(async () => {
  vi.useFakeTimers({ toFake: ["Date"], now: START });
  for (const db of [env.EVENTS_0, env.EVENTS_1, env.EVENTS_2, env.EVENTS_3, env.TEST_EVENTS]) await empty(db);
});

afterEach(async () => {
  vi.restoreAllMocks();
  vi.useRealTimers();
  await recordPlacement(ONE_DATABASE);
});

const GROWN: Placement = [
  { databases: 1, since: 0 },
  { databases: 4, since: 1 },
];

describe.each([
  ["one database", ONE_DATABASE],
  ["four databases", GROWN],
])("late events of %s", (_, placement) => {
  const drawn = fc.record({
    received: fc.integer({ min: 0, max: 2 * DAY_MS }).map((offset) => START + offset),
    delay: fc.constantFrom(0, LATE_MS - 1, LATE_MS, LATE_MS + 1, 13 * HOUR_MS),
    customer: fc.constantFrom("cus_1", "cus_2", "cus_3", "cus_4"),
    meter: fc.nat({ max: 3 }).map((chance) => Math.min(1, chance)),
    dimensions: fc.constantFrom("", '{"region":"eu"}'),
    value: fc.integer({ min: 1, max: 9 }),
    isLost: fc.nat({ max: 3 }).map((chance) => chance === 0),
    place: fc.nat({ max: 1 }),
  });

  it("are listed in the order of receipt, live and archived, from either end", async () => {
    const property = fc.asyncProperty(fc.array(drawn, { minLength: 40, maxLength: 60 }), async (events) => {
      await recordPlacement(placement);
      const meters = [await aKnownMeter(), await aKnownMeter()] as const;
      const reported = events.map(({ received, delay, meter: index, isLost, place, ...fields }) => {
        const meter = meters[index] ?? meters[0];
        const places = databasesOf(meter.id, fields.customer, placement);
        const entry = anEvent(meter, received, delay, { ...fields });
        return { entry, isLost, delay, db: eventsDatabase(env, true, places[place % places.length] ?? 0) };
      });
      for (const [db, own] of Map.groupBy(reported, (each) => each.db)) {
        await store(
          db,
          own.map(({ entry }) => entry),
        );
        await cancel(
          db,
          own.filter(({ isLost }) => isLost).map(({ entry }) => entry),
        );
      }
      const period = { start: START - DAY_MS, end: START + DAY_MS };
      const since = { start: START + 18 * HOUR_MS, end: START + 40 * HOUR_MS };
      const questions: readonly (Changes & { readonly limit: number })[] = [
        { ...LATE, limit: 7 },
        { ...LATE, limit: 6, from: { order: "oldest_first", place: undefined } },
        { ...LATE, limit: 50, late: LATE_MS + 1 },
        { ...LATE, limit: 5, customer: "cus_1" },
        { ...LATE, limit: 5, late: 13 * HOUR_MS, range: period },
        { ...LATE, limit: 5, cancelled: false, range: period },
        { ...LATE, limit: 2, cancelled: true, from: { order: "oldest_first", place: undefined } },
        { ...LATE, limit: 5, received: since },
        { ...LATE, limit: 5, received: since, from: { order: "oldest_first", place: undefined } },
      ];
      const expected = questions.map(({ customer, late = 0, cancelled, range = ALWAYS, received = ALWAYS, from }) => {
        const isIn = (time: number, { start, end }: typeof ALWAYS) => time >= start && time < end;
        const ids = idsOf(
          reported
            .filter(({ entry, delay, isLost }) => {
              const isOwn = entry.meter === meters[1].id && (customer === undefined || entry.customer === customer);
              const isAsked = delay >= late && (cancelled === undefined || cancelled === isLost);
              return isOwn && isAsked && isIn(entry.timestamp, range) && isIn(entry.received, received);
            })
            .map(({ entry }) => entry),
        ).sort();
        return from?.order === "oldest_first" ? ids : ids.reverse();
      });
      expect(expected[0]?.length).toBeGreaterThan(10);
      for (const now of [START, START + 36 * DAY_MS, OLD]) {
        vi.setSystemTime(now);
        for (const { name } of databases()) await archive(name);
        const listed = [];
        for (const question of questions) listed.push(await listAll(meters[1], question));
        expect(listed).toEqual(expected);
      }
      const states = (await Promise.all(databases().map(({ db }) => statesOf(db)))).flat();
      expect(new Set(states.map(({ state }) => state))).toEqual(new Set(["archived"]));
    });
    await fc.assert(property, { seed: inject("seed"), numRuns: 1, endOnFailure: true });
  }, 120_000);
});

describe("a reader of late events", () => {
  const db = env.EVENTS_0;

  /** Of each of some days an event on time, of another customer, and a late one; the late ones. */
  async function aStory(meter: Meter, days: readonly number[]): Promise<LogEntry[]> {
    const events = days.map((day) => {
      const received = START + day * DAY_MS + 2 * HOUR_MS;
      return [
        anEvent(meter, received, MINUTE_MS, { customer: "cus_2" }),
        anEvent(meter, received, 2 * HOUR_MS),
      ] as const;
    });
    await store(meter.livemode ? db : env.TEST_EVENTS, events.flat());
    return events.map(([, late]) => late);
  }

  it("reads no file without events that came so late, and none that were received before", async () => {
    const meter = await aKnownMeter();
    const late = await aStory(meter, [0, 1, 2]);
    await store(
      db,
      [3, 4].map((day) => anEvent(meter, START + day * DAY_MS, MINUTE_MS)),
    );
    vi.setSystemTime(OLD);
    await archive();
    const get = vi.spyOn(BUCKET, "get");
    const read = async (changes: Changes): Promise<readonly [string[], number]> => {
      get.mockClear();
      const { events } = resultOf(await readPage(meter, { ...LATE, ...changes }));
      return [idsOf(events), get.mock.calls.length];
    };
    expect(await read({})).toEqual([idsOf(late.toReversed()), 3]);
    expect(await read({ late: 2 * HOUR_MS + 1 })).toEqual([[], 0]);
    const received = { start: late[1]?.received ?? 0, end: ALWAYS.end };
    expect(await read({ received })).toEqual([idsOf(late.slice(1).toReversed()), 2]);
    expect(await read({ range: { start: 0, end: (late[0]?.timestamp ?? 0) + 1 } })).toEqual([
      idsOf(late.slice(0, 1)),
      1,
    ]);
    expect(await read({ limit: 1 })).toEqual([idsOf(late.slice(2)), 1]);
  });

  it("finds an event of long ago in a slice of later", async () => {
    const meter = await aKnownMeter();
    // More slices than are asked at once.
    const late = await aStory(meter, [0, 1, 2, 3, 4, 5, 6, 7]);
    const slice = sliceOf(late.at(-1)?.received ?? 0);
    const letter = anEvent(meter, START - 3 * DAY_MS, 2 * HOUR_MS);
    await store(db, [letter]);
    await db.batch([
      db.prepare(`INSERT INTO ${tableOf(slice)} SELECT * FROM ${tableOf(sliceOf(letter.received))}`),
      db.prepare(`DROP TABLE ${tableOf(sliceOf(letter.received))}`),
      db.prepare("DELETE FROM slices WHERE slice = ?").bind(sliceOf(letter.received)),
      db.prepare("UPDATE slices SET min_timestamp = ? WHERE slice = ?").bind(START - 5 * DAY_MS, slice),
    ]);
    const expected = idsOf([letter, ...late]);
    for (const now of [START, OLD]) {
      vi.setSystemTime(now);
      await archive();
      expect(await listAll(meter, { ...LATE, limit: 4 })).toEqual(expected.toReversed());
      const from = { order: "oldest_first", place: undefined } as const;
      expect(await listAll(meter, { ...LATE, limit: 4, from })).toEqual(expected);
    }
  });

  it("asks slices that are older than the index, and gives it to them", async () => {
    const meter = await aKnownMeter();
    const late = await aStory(meter, [0]);
    const slice = sliceOf(START);
    await db.exec(`DROP INDEX late_events_${tableOf(slice)}`);
    expect(idsOf(resultOf(await readPage(meter, LATE)).events)).toEqual(idsOf(late));
    const indexes = db.prepare("SELECT name FROM pragma_index_list(?) WHERE origin = 'c'").bind(tableOf(slice));
    expect(await indexes.first("name")).toBe(`late_events_${tableOf(slice)}`);
  });

  it("says from which receipt on test mode's late events are kept", async () => {
    const meter = await aKnownMeter(false);
    const [, kept] = await aStory(meter, [0, 30]);
    vi.setSystemTime(START + 38 * DAY_MS);
    await archive("TEST_EVENTS");
    const from = START + 12 * HOUR_MS;
    expect(errorOf(await readPage(meter, LATE))).toEqual({
      ...{ reason: "archived_range_deleted", instead: { of: "receipt", from } },
    });
    const page = resultOf(await readPage(meter, { ...LATE, received: { start: from, end: ALWAYS.end } }));
    expect(idsOf(page.events)).toEqual([kept?.id]);
  });

  /** Says that a file of the slice that has a time is `count` files. */
  const multiplyFile = async (received: number, count: number): Promise<void> => {
    const file = await db.prepare("SELECT * FROM archive_files WHERE slice = ?").bind(sliceOf(received)).first();
    const columns = Object.keys(file ?? {});
    const values = columns.map((column) => (column === "file" ? "number.value" : `archive_files.${column}`));
    const numbers = JSON.stringify(Array.from({ length: count - 1 }, (_, i) => 1_000 + i));
    await db
      .prepare(
        `INSERT INTO archive_files (${columns}) SELECT ${values}
        FROM archive_files, json_each(?1) AS number WHERE slice = ?2 AND file = ?3`,
      )
      .bind(numbers, sliceOf(received), file?.file)
      .run();
  };

  it.each([
    ["of a customer", { customer: "cus_1" }, "customer=cus_1", "timestamp"],
    ["of late events", LATE, "late[gte]=3600", "created"],
  ] as const)(
    "gives a shorter page %s when more than 200 files may have its next event, and refuses an empty one",
    async (_, whose, query, param) => {
      const meter = await aKnownMeter();
      const [first, second, third] = await aStory(meter, [0, 1, 2]);
      if (first === undefined || second === undefined || third === undefined) throw new Error("no events");
      await cancel(db, [second]);
      vi.setSystemTime(OLD);
      await archive();
      await multiplyFile(second.received, 201);
      const from = { order: "oldest_first", place: undefined } as const;
      const page = resultOf(await readPage(meter, { ...whose, cancelled: false, from }));
      expect({ ...page, events: idsOf(page.events) }).toEqual({ events: [first.id], isCut: true });

      const list = (more: string) =>
        answerOf(`/v1/billing/meter_events?meter=${meter.id}&cancelled=false&${query}${more}`, {
          key: LOCAL_KEYS.live,
        });
      const { body } = await list("");
      expect(body).toMatchObject({ data: [{ identifier: third.identifier }], has_more: true });
      const [{ id }] = (body as { data: [{ id: string }] }).data;
      // Of the last event of the file, and a time that leaves all of them out.
      const isReceipt = param === "created";
      const end = (isReceipt ? second.received : second.received - MINUTE_MS) + SECOND_MS;
      const before = isReceipt ? second.received : second.timestamp;
      const error = { code: "archived_range_unaligned", param };
      const refused = await list(`&starting_after=${id}`);
      expect(refused).toMatchObject({ status: 400, body: { error } });
      expect(JSON.stringify(refused.body)).toContain(`${param}[lt]=${end / SECOND_MS}`);
      expect((await list(`&${param}[lt]=${before / SECOND_MS}`)).body).toMatchObject({
        data: [{ identifier: first.identifier }],
        has_more: false,
      });
    },
  );
});
