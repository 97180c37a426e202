import { env } from "cloudflare:workers";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, inject, it, vi } from "vitest";
import { LOCAL_KEYS } from "../../../scripts/local-keys.ts";
import { onTimeOf } from "../../../src/archive/segments.ts";
import { namesOfKeys } from "../../../src/catalog/api-keys.ts";
import { newEventId } from "../../../src/domain/identifiers.ts";
import { DAY_MS, HOUR_MS, receiptOf, SECOND_MS, sliceOf } from "../../../src/domain/window.ts";
import type { LogEntry } from "../../../src/log/codec.ts";
import { aLogEntry, NOON, unique } from "../../support/builders.ts";
import { archive, cancel, empty, statesOf, store } from "../archive/support.ts";
import { answerOf, createdMeter, FUTURE } from "../support.ts";

const BEGIN = receiptOf(sliceOf(FUTURE)).start;
const DATABASES = [env.EVENTS_0, env.EVENTS_2];

/** A day in which all that the tests store is over, and old. */
const LATER = BEGIN + 60 * DAY_MS;

/** What is exported: not all that is stored. */
const RANGE = { from: (BEGIN - 3 * DAY_MS) / SECOND_MS, to: (BEGIN + 30 * HOUR_MS) / SECOND_MS };

beforeEach(async () => {
  for (const db of [...DATABASES, env.TEST_EVENTS]) await empty(db);
  vi.useFakeTimers({ toFake: ["Date"], now: BEGIN });
});

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

type Event = { id: string; cancelled: number | null };
type Page = { data: Event[]; next: string | null };

const ask = (meter: string, fields: Record<string, string | number> = {}, key: string = LOCAL_KEYS.live) => {
  const query = Object.entries({ meter, ...RANGE, ...fields }).map(([name, value]) => [name, String(value)]);
  return answerOf(`/v1/edgemeter/events?${new URLSearchParams(query)}`, { key });
};

/** All pages; `between` is awaited before each but the first. */
async function pagesOf(meter: string, limit: number, between: () => Promise<unknown> = async () => {}) {
  const pages: Event[][] = [];
  for (let cursor: string | null | undefined; cursor !== null; ) {
    if (pages.length > 0) await between();
    const { status, body } = await ask(meter, { limit, ...(cursor !== undefined && { cursor }) });
    expect({ status, body }).toMatchObject({ status: 200 });
    const { data, next } = body as Page;
    expect(data.length).toBeLessThanOrEqual(limit);
    pages.push(data);
    expect(pages.length).toBeLessThan(500);
    cursor = next;
  }
  return pages.flat();
}

const anEntry = (changes: Partial<LogEntry>): LogEntry => {
  const received = changes.received ?? BEGIN;
  return aLogEntry({
    ...{ id: newEventId(received), timestamp: received, received, identifier: unique("identifier") },
    ...changes,
  });
};

/** Events of a meter in three slices: on time and late, of two customers, cancelled or not. */
const drawEntries = (meter: string, count: number, seed: number): LogEntry[] =>
  fc.sample(
    fc
      .record({
        meter: fc.constant(meter),
        customer: fc.constantFrom("cus_1", "cus_2", "cus_3"),
        received: fc.integer({ min: BEGIN, max: BEGIN + 36 * HOUR_MS - 1 }),
        lateness: fc.oneof(fc.integer({ min: 0, max: HOUR_MS }), fc.integer({ min: 0, max: 4 * DAY_MS })),
        value: fc.integer({ min: 1, max: 1_000 }),
      })
      .map(({ lateness, ...entry }) => anEntry({ ...entry, timestamp: entry.received - lateness })),
    { seed, numRuns: count },
  );

const isInRange = ({ timestamp }: LogEntry): boolean =>
  timestamp >= RANGE.from * SECOND_MS && timestamp < RANGE.to * SECOND_MS;

const sorted = (events: readonly { id: string }[]): string[] => events.map(({ id }) => id).sort();

describe("an export", () => {
  it.each([1, 7, 3_000])(
    "has every event once, in pages of %i, whatever is archived and stored meanwhile",
    async (limit) => {
      const meter = await createdMeter({}, LOCAL_KEYS.live);
      const other = await createdMeter({}, LOCAL_KEYS.live);
      const wanted: LogEntry[] = [];
      const cancelled: LogEntry[] = [];
      for (const [i, db] of DATABASES.entries()) {
        const own = drawEntries(meter.id, 25, inject("seed") + i);
        await store(db, [...own, ...drawEntries(other.id, 15, inject("seed") + i)]);
        await cancel(db, own.slice(0, 5));
        wanted.push(...own.filter(isInRange));
        cancelled.push(...own.slice(0, 5).filter(isInRange));
      }
      const edges = [RANGE.from * SECOND_MS, RANGE.to * SECOND_MS].flatMap((edge) => [edge - 1, edge]);
      const atEdges = edges.map((timestamp) => anEntry({ meter: meter.id, received: BEGIN + 48 * HOUR_MS, timestamp }));
      await store(env.EVENTS_2, atEdges);
      wanted.push(...atEdges.slice(1, 3));
      const first = await pagesOf(meter.id, limit);
      expect(sorted(first)).toEqual(sorted(wanted));
      expect(sorted(first.filter((event) => event.cancelled !== null))).toEqual(sorted(cancelled));

      vi.setSystemTime(LATER);
      const known = new Set(first.map(({ id }) => id));
      const states = new Set<string>();
      let stored = 0;
      const again = await pagesOf(meter.id, limit, async () => {
        if (stored++ < 3) {
          await store(env.EVENTS_2, [anEntry({ meter: meter.id, received: LATER, timestamp: BEGIN })]);
        }
        for (const name of ["EVENTS_0", "EVENTS_2"]) await archive(name, { steps: 2, until: Number.POSITIVE_INFINITY });
        for (const { state } of await statesOf(env.EVENTS_2)) states.add(state);
      });
      expect(again.filter(({ id }) => known.has(id))).toEqual(first);
      if (limit === 1) expect(states).toEqual(new Set(["open", "sealed", "exported", "checked", "archived"]));

      for (const name of ["EVENTS_0", "EVENTS_2"]) await archive(name);
      const archived = await pagesOf(meter.id, limit);
      expect(archived.filter(({ id }) => known.has(id))).toEqual(first);
    },
  );

  it("ends a page at about a megabyte", async () => {
    const meter = await createdMeter({}, LOCAL_KEYS.live);
    const payload = { note: "n".repeat(490), other: "o".repeat(490) };
    const entries = Array.from({ length: 800 }, () => anEntry({ meter: meter.id, payload }));
    await store(env.EVENTS_0, entries);
    const { body } = await ask(meter.id);
    const { length } = JSON.stringify(body);
    expect(length).toBeGreaterThan(600_000);
    expect(length).toBeLessThan(1_100_000);
    expect(sorted(await pagesOf(meter.id, 3_000))).toEqual(sorted(entries));
  });

  it("has everything that is known of an event, from the archive too", async () => {
    const meter = await createdMeter({}, LOCAL_KEYS.live);
    const entry = anEntry({
      ...{ meter: meter.id, value: 999_999_999_999_999, dimensions: '{"region":"eu"}', payload: { model: "é" } },
    });
    await store(env.EVENTS_0, [entry]);
    await cancel(env.EVENTS_0, [entry]);
    const rows = await pagesOf(meter.id, 1);
    const { ids } = await namesOfKeys(env.DB);
    expect(rows).toEqual([
      {
        ...{ id: entry.id, customer: "cus_1", timestamp: BEGIN, identifier: entry.identifier, value: entry.value },
        ...{ received: BEGIN, dimensions: { region: "eu" }, payload: { model: "é" }, api_key: ids.get(1) ?? "1" },
        ...{ cancelled: NOON + 1, cancelled_by: ids.get(2) ?? "2" },
      },
    ]);
    vi.setSystemTime(LATER);
    await archive("EVENTS_0");
    expect(await statesOf(env.EVENTS_0)).toMatchObject([{ state: "archived" }]);
    expect(await pagesOf(meter.id, 1)).toEqual(rows);
  });
});

describe("an export is refused", () => {
  const deleted = (from: number) => ({
    status: 400,
    body: {
      error: { code: "archived_range_deleted", param: "from", message: expect.stringContaining(`from=${from}.`) },
    },
  });

  it("when test mode's events are deleted, and not from a later time on", async () => {
    const meter = await createdMeter();
    const [first, second] = [0, 12].map((hours) => anEntry({ meter: meter.id, received: BEGIN + hours * HOUR_MS }));
    await store(env.TEST_EVENTS, [first, second] as LogEntry[]);
    vi.setSystemTime(BEGIN + 12 * HOUR_MS + 35 * DAY_MS);
    await archive("TEST_EVENTS");
    const from = BEGIN / SECOND_MS + 900;
    expect(await ask(meter.id, {}, LOCAL_KEYS.test)).toMatchObject(deleted(from));
    const { status, body } = await ask(meter.id, { from }, LOCAL_KEYS.test);
    expect({ status, body }).toMatchObject({ status: 200, body: { data: [{ id: second?.id }], next: null } });
  });

  it("when a file is deleted, and is not finished when a file is another", async () => {
    vi.spyOn(console, "error").mockImplementation(() => {});
    const meter = await createdMeter({}, LOCAL_KEYS.live);
    await store(env.EVENTS_0, [anEntry({ meter: meter.id })]);
    await store(env.EVENTS_0, [anEntry({ meter: meter.id, received: BEGIN + 12 * HOUR_MS, value: 1 })]);
    vi.setSystemTime(LATER);
    await archive("EVENTS_0");
    const [key = "", another = ""] = (await env.ARCHIVE.list()).objects.map((object) => object.key);
    await env.ARCHIVE.put(key, (await (await env.ARCHIVE.get(another))?.arrayBuffer()) ?? "");
    expect(await ask(meter.id)).toMatchObject({ status: 503 });
    await env.ARCHIVE.delete(key);
    expect(await ask(meter.id)).toMatchObject(deleted(onTimeOf(sliceOf(BEGIN)).end / SECOND_MS));
  });

  it.each([
    ["another mode's meter", { meter: "mtr_test_1" }, "meter"],
    ["an empty range", { to: RANGE.from }, "to"],
    ["no time", { from: "yesterday" }, "from"],
    ["no cursor of an export", { cursor: "bm9uZQ" }, "cursor"],
    ["too many at once", { limit: 3_001 }, "limit"],
  ])("for %s", async (_, fields, param) => {
    const meter = await createdMeter({}, LOCAL_KEYS.live);
    expect(await ask(meter.id, fields)).toMatchObject({ status: 400, body: { error: { param } } });
  });
});
