import { evictDurableObject, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { decodeMessage } from "../../src/metering/groups.ts";
import { HOUR_MS } from "../../src/metering/windows.ts";
import { aLoggedEvent, unique } from "../support/builders.ts";
import { aNewEvent, aShard, FUTURE } from "./support.ts";

/** The slice of FUTURE, by its first hour since 1970. */
const SLICE = Math.floor(FUTURE / (12 * HOUR_MS)) * 12;

/** What each layout's code made a slice with, and wrote into it. */
const LAYOUT_1 = {
  tables: `
    CREATE TABLE identifiers_${SLICE} (
      key TEXT PRIMARY KEY, event_id TEXT NOT NULL, received INTEGER NOT NULL, timestamp INTEGER NOT NULL,
      key_digest TEXT NOT NULL, report_digest TEXT NOT NULL, cancelled TEXT
    ) WITHOUT ROWID;
    CREATE TABLE groups_${SLICE} (
      id INTEGER PRIMARY KEY, kind TEXT NOT NULL, confirmed_through INTEGER NOT NULL, entries TEXT NOT NULL
    );
    CREATE TABLE confirmed_${SLICE} (id INTEGER PRIMARY KEY);`,
  remember: `INSERT INTO identifiers_${SLICE} (key, event_id, received, timestamp, key_digest, report_digest) VALUES (?, ?, ?, ?, ?, ?)`,
  append: `INSERT INTO groups_${SLICE} (id, kind, confirmed_through, entries) VALUES (?, ?, ?, ?)`,
  confirm: `INSERT OR IGNORE INTO confirmed_${SLICE} (id) VALUES (?)`,
};

let sent: string[] = [];

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["Date"], now: FUTURE });
  sent = [];
  vi.spyOn(env.EVENT_QUEUE, "sendBatch").mockImplementation(async (batch) => {
    sent.push(...[...batch].map(({ body }) => String(body)));
    return {} as QueueSendBatchResponse;
  });
});

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

/** A log that layout 1's code left: a confirmed group, and one of two events that D1 never had. */
async function anOldLog() {
  const { shard, log } = aShard();
  const events = [1, 2, 3].map((i) => aLoggedEvent({ received: FUTURE + i, identifier: unique("old") }));
  await runInDurableObject(log, (_, { storage }) => {
    const { sql } = storage;
    sql.exec("DROP TABLE layout");
    sql.exec(LAYOUT_1.tables);
    for (const { identifier, id, received, timestamp } of events) {
      sql.exec(LAYOUT_1.remember, `test:${identifier}`, id, received, timestamp, "", "digest");
    }
    const [first, second, third] = events.map((event) => JSON.stringify(event));
    sql.exec(LAYOUT_1.append, (FUTURE + 1) * 1_000, "events", 0, first);
    sql.exec(LAYOUT_1.append, (FUTURE + 3) * 1_000, "events", 0, `${second},${third}`);
    sql.exec(LAYOUT_1.confirm, (FUTURE + 1) * 1_000);
  });
  await evictDurableObject(log);
  return { shard, log, events };
}

describe("a log whose tables are of the layout before", () => {
  it("is brought forward when new code starts it, with everything in it", async () => {
    const { log, shard, events } = await anOldLog();
    expect(await log.status()).toMatchObject({ entries: 2, oldest: FUTURE + 3, lastConfirmed: undefined });
    for (const [i, { identifier, id }] of events.entries()) {
      expect(await log.retrieve(`test:${identifier}`)).toMatchObject({ event: { id }, aggregated: i === 0 });
    }
    const [first] = events;
    const again = aNewEvent({ shard, key: `test:${first?.identifier}`, identifier: first?.identifier ?? "" });
    expect(await log.append([again])).toEqual([{ outcome: "duplicate", sameReport: false }]);
  });

  it("goes on in the same slice: what was unconfirmed is sent, and what is new is appended and confirmed", async () => {
    const { log, shard, events } = await anOldLog();
    vi.setSystemTime(FUTURE + 60_000);
    expect(await log.append([aNewEvent({ shard })])).toMatchObject([{ outcome: "accepted" }]);
    await log.nudge();
    const groups = sent.flatMap(decodeMessage).filter((group) => group.shard === shard);
    expect(groups.map(({ entries }) => JSON.parse(`[${entries}]`).length)).toEqual([2, 1]);
    expect(groups[0]?.entries).toContain(events[1]?.identifier);
    await log.confirm(groups.map(({ id }) => id));
    expect(await log.status()).toMatchObject({ entries: 0, lastConfirmed: FUTURE + 60_000 });
  });

  it("is brought forward once, and stays as it is after any restart", async () => {
    const { log } = await anOldLog();
    const tables = () =>
      runInDurableObject(log, (_, { storage }) =>
        storage.sql.exec("SELECT sql FROM sqlite_master ORDER BY name").toArray(),
      );
    const before = await tables();
    await evictDurableObject(log);
    expect(await tables()).toEqual(before);
    expect(JSON.stringify(before)).toContain("entry_count");
  });
});

it("a new log's tables take what the code before writes, so that a rollback loses nothing", async () => {
  const { log, shard } = aShard();
  await log.append([aNewEvent({ shard })]);
  await runInDurableObject(log, (_, { storage }) => {
    const { sql } = storage;
    sql.exec(LAYOUT_1.remember, "test:rollback", "id", FUTURE + 5, FUTURE + 5, "", "digest");
    const entry = JSON.stringify(aLoggedEvent({ id: "id", received: FUTURE + 5, identifier: "rollback" }));
    sql.exec(LAYOUT_1.append, (FUTURE + 5) * 1_000, "events", 0, entry);
    sql.exec(LAYOUT_1.confirm, (FUTURE + 5) * 1_000);
  });
  await evictDurableObject(log);
  expect(await log.retrieve("test:rollback")).toMatchObject({ event: { id: "id" }, aggregated: true });
  expect(await log.status()).toMatchObject({ entries: 1 });
});
