// What goes wrong with a slice that is archived, and what the archive makes of it: nothing is dropped whose events are
// not known to be in files, and what was stored once is not stored again.

import { env } from "cloudflare:workers";
import { createHash } from "node:crypto";
import { afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { tableOf } from "../../../src/aggregate/sql/events.ts";
import type { SliceState } from "../../../src/aggregate/sql/slices.ts";
import { openSlice } from "../../../src/aggregate/sql/slices.ts";
import { encodeFile } from "../../../src/archive/file.ts";
import { takeLease } from "../../../src/archive/lease.ts";
import { describeRows, filesOf, insertFile } from "../../../src/archive/manifest.ts";
import type { Row } from "../../../src/archive/rows.ts";
import { namesOfKeys } from "../../../src/catalog/api-keys.ts";
import { DAY_MS, HOUR_MS, MINUTE_MS, receiptOf, sliceOf } from "../../../src/domain/window.ts";
import { maintain } from "../../../src/scheduled.ts";
import { replaceCall } from "../crash-points/faults.ts";
import { aPlainClient, Story } from "../crash-points/story.ts";
import { D1, HostileD1 } from "../hostile-d1.ts";
import { forgetLogs, type StoredRow, storedIn } from "../support.ts";
import { ArchiveCalls } from "./calls.ts";
import {
  anEntry,
  BEGIN,
  LEASE_MS,
  type Meters,
  NAME,
  OLD,
  OVER,
  SLICE,
  SliceStory,
  someMeters,
  stateNow,
} from "./slice.ts";
import {
  archive,
  archivedRows,
  asStored,
  cancel,
  empty,
  hasTable,
  objectKeys,
  rowsOfObject,
  statesOf,
  store,
} from "./support.ts";

const db = env.EVENTS_0;
const other = env.EVENTS_1;

let meters: Meters;

beforeAll(async () => {
  meters = await someMeters();
});

beforeEach(async () => {
  await empty(other);
  await empty(db);
  vi.useFakeTimers({ toFake: ["Date"], now: BEGIN });
});

afterEach(async () => {
  await forgetLogs();
  vi.restoreAllMocks();
  vi.useRealTimers();
});

const failedAt = (): Promise<number | null> => db.prepare("SELECT failed FROM slices").first<number>("failed");

const byId = (a: StoredRow, b: StoredRow): number => (a.id < b.id ? -1 : 1);

/** The rows of the files of some slices, in receipt order. */
async function inFiles(from: D1Database, ...slices: readonly number[]): Promise<StoredRow[]> {
  const rows = await Promise.all(slices.map((slice) => archivedRows(from, slice)));
  return rows.flat().map(asStored).sort(byId);
}

async function keyOfFile(file: number): Promise<string> {
  const key = (await filesOf(db, SLICE))[file]?.key;
  if (key === undefined) throw new Error(`there is no file ${file}`);
  return key;
}

async function bytesOfFile(file: number): Promise<Uint8Array> {
  const object = await env.ARCHIVE.get(await keyOfFile(file));
  return new Uint8Array((await object?.arrayBuffer()) ?? []);
}

const putFile = async (file: number, bytes: Uint8Array): Promise<unknown> =>
  env.ARCHIVE.put(await keyOfFile(file), bytes);

const execute = (sql: string) => (): Promise<unknown> => db.prepare(sql).run();

const stores = (changes: Parameters<typeof anEntry>[1]) => (): Promise<unknown> =>
  store(db, [anEntry(meters.sum, changes)]);

const ON_TIME = stores({ value: 32 });
const OF_A_NEW_DAY = stores({ value: 32, timestamp: BEGIN - 5 * DAY_MS });
const CANCELLATION = execute(`UPDATE ${tableOf(SLICE)} SET cancelled = 1, cancelled_by = 1 WHERE value = 1`);
const OTHER_VALUE = execute(`UPDATE ${tableOf(SLICE)} SET value = 3 WHERE value = 1`);

describe("a slice is left alone, with its table, and it is logged,", () => {
  const CASES: readonly [name: string, state: SliceState, damage: () => Promise<unknown>, says: string][] = [
    [
      "when a byte of a file is another",
      "exported",
      async () =>
        putFile(
          0,
          (await bytesOfFile(0)).map((byte, i) => (i === 100 ? byte ^ 1 : byte)),
        ),
      "its bytes are others",
    ],
    [
      "when a file is cut off",
      "exported",
      async () => putFile(0, (await bytesOfFile(0)).slice(0, -1)),
      "its bytes are others",
    ],
    ["when a file is another one", "exported", async () => putFile(0, await bytesOfFile(1)), "its bytes are others"],
    ["when a file is lost", "exported", async () => env.ARCHIVE.delete(await keyOfFile(1)), "it is not there"],
    [
      "when the manifest lacks a file",
      "exported",
      execute("DELETE FROM archive_files WHERE file = 1"),
      "it has no file for a day",
    ],
    ["when an event is stored after the export", "exported", ON_TIME, "is not in it as it is stored"],
    ["when an event of a day without a file is", "exported", OF_A_NEW_DAY, "it has no file for a day"],
    ["when an event is cancelled after the export", "exported", CANCELLATION, "is not in it as it is stored"],
    [
      "when an event is lost after the export",
      "exported",
      execute(`DELETE FROM ${tableOf(SLICE)} WHERE value = 16`),
      "not stored",
    ],
    ["when an event is stored after the check", "checked", ON_TIME, "they add up to something else"],
    ["when an event of a day without a file is, after the check", "checked", OF_A_NEW_DAY, "it has no file for a day"],
    ["when an event is cancelled after the check", "checked", CANCELLATION, "they add up to something else"],
    ["when an event changes after the check", "checked", OTHER_VALUE, "they add up to something else"],
  ];

  it.each(CASES)("%s", async (_, state, damage, says) => {
    await SliceStory.begin(meters, state);
    const errors = vi.spyOn(console, "error").mockImplementation(() => {});
    await damage();
    const left = await storedIn(db, meters.sum, meters.last);
    vi.setSystemTime(OLD);
    for (const _ of [1, 2]) expect(await archive()).toBe(false);
    expect(await stateNow()).toBe(state);
    expect(await failedAt()).toBe(OLD);
    expect(await storedIn(db, meters.sum, meters.last)).toEqual(left);
    expect(errors.mock.calls).toEqual([[expect.stringContaining(says)]]);
  });

  it("when an event is stored into it that had none", async () => {
    vi.spyOn(console, "error").mockImplementation(() => {});
    await openSlice(db, SLICE);
    vi.setSystemTime(OVER);
    await archive();
    expect(await stateNow()).toBe("checked");
    await ON_TIME();
    vi.setSystemTime(OLD);
    await archive();
    expect(await hasTable(db, SLICE)).toBe(true);
    expect(await failedAt()).toBe(OLD);
  });

  // Whatever the export's fault: the manifest says what the file says.
  it("when any column of a row is another in the file", async () => {
    await SliceStory.begin(meters, "exported");
    const [file] = await filesOf(db, SLICE);
    if (file === undefined) throw new Error("there is no file");
    const rows = await rowsOfObject(file.key);
    const replaced = async (changed: readonly Row[]): Promise<void> => {
      const bytes = await encodeFile(changed, await namesOfKeys(env.DB));
      await env.ARCHIVE.put(file.key, bytes);
      const sha256 = createHash("sha256").update(bytes).digest("hex");
      await db.batch([
        db.prepare("DELETE FROM archive_files WHERE file = 0"),
        db.prepare("UPDATE slices SET state = 'sealed'"),
        insertFile(db, { ...file, ...describeRows(changed), bytes: bytes.length, sha256 }),
        db.prepare("UPDATE slices SET state = 'exported', failed = NULL"),
      ]);
      await archive();
    };
    for (const column of Object.keys(rows[0] ?? {}) as (keyof Row)[]) {
      const changed = rows.map((row, i) => (i === 0 ? { ...row, [column]: otherThan(column, row[column]) } : row));
      await replaced(changed);
      expect([column, await failedAt()]).toEqual([column, OVER]);
    }
    for (const changed of [rows.slice(1), rows.slice(0, -1), rows.toReversed(), [...rows, ...rows.slice(-1)]]) {
      await replaced(changed);
      expect(await failedAt()).toBe(OVER);
    }
    await replaced(rows);
    expect(await failedAt()).toBe(null);
    expect(await stateNow()).toBe("checked");
  });
});

function otherThan(column: keyof Row, value: string | number | null): string | number {
  if (value === null) return column === "payload" || column === "dimensions" ? "{}" : 1;
  return typeof value === "string" ? `${value}x` : value + 1;
}

describe("a slice is not sealed", () => {
  it("while a shard of its mode does not respond, whatever database it is in; the other mode goes on", async () => {
    for (const each of [db, other, env.TEST_EVENTS]) await openSlice(each, SLICE);
    const getByName = env.EVENT_LOG.getByName.bind(env.EVENT_LOG);
    const silent = vi.spyOn(env.EVENT_LOG, "getByName").mockImplementation((shard, options) => {
      const log = getByName(shard, options);
      if (shard !== "live-3") return log;
      const status = () => Promise.reject(new Error("the shard does not respond"));
      return { status } as unknown as typeof log;
    });
    vi.setSystemTime(OVER);
    const all = [NAME, "EVENTS_1", "TEST_EVENTS"];
    for (const name of all) await archive(name);
    const states = async () =>
      (await Promise.all([db, other, env.TEST_EVENTS].map(statesOf))).flat().map(({ state }) => state);
    expect(await states()).toEqual(["open", "open", "checked"]);
    silent.mockRestore();
    for (const name of all) await archive(name);
    expect(await states()).toEqual(["checked", "checked", "checked"]);
    await empty(env.TEST_EVENTS);
  });

  it("while it is not known which shards there were", async () => {
    await openSlice(db, SLICE);
    const control = new HostileD1([env.DB]);
    control.fate = D1.isAway;
    vi.setSystemTime(OVER);
    await expect(archive()).rejects.toThrow();
    expect(await stateNow()).toBe("open");
    control.fate = D1.works;
    await archive();
    expect(await stateNow()).toBe("checked");
  });

  it("while a cancellation waits that was accepted at the last moment; then its file has it", async () => {
    const story = await Story.begin();
    const client = aPlainClient();
    const { end } = receiptOf(SLICE);
    vi.setSystemTime(end - 1);
    expect(await story.report(client)).toMatchObject({ status: 200 });
    await story.ring();
    await story.deliver();
    vi.setSystemTime(end + DAY_MS - 2);
    expect(await story.cancel(client)).toMatchObject({ status: 200 });
    vi.setSystemTime(OVER);
    await archive();
    expect(await stateNow()).toBe("open");
    await story.rest();
    await archive();
    expect(await statesOf(db)).toContainEqual({ slice: SLICE, state: "checked" });
    expect(await archivedRows(db, SLICE)).toMatchObject([
      { identifier: client.identifier, cancelled: end + DAY_MS - 2 },
    ]);
  });

  it("by an archiver without the lease, until that has run out", async () => {
    await SliceStory.begin(meters, "sealed");
    expect(await takeLease(db, "another", Date.now())).toBe(true);
    expect(await archive()).toBe(false);
    expect(await filesOf(db, SLICE)).toEqual([]);
    vi.setSystemTime(Date.now() + LEASE_MS);
    await archive();
    expect(await stateNow()).toBe("checked");
  });
});

describe("a database that is away", () => {
  it("keeps no other from being archived", async () => {
    const errors = vi.spyOn(console, "error").mockImplementation(() => {});
    for (const each of [db, other]) await openSlice(each, SLICE);
    const away = new HostileD1([db]);
    away.fate = D1.isAway;
    vi.setSystemTime(OVER);
    await maintain(env, OVER);
    away.fate = D1.works;
    expect((await statesOf(other))[0]).toEqual({ slice: SLICE, state: "checked" });
    expect((await statesOf(db))[0]).toEqual({ slice: SLICE, state: "open" });
    expect(errors.mock.calls.flat().join()).toContain('"a database was not archived"');
  });
});

describe("a minute", () => {
  it("archives one database after the other", async () => {
    for (const each of [db, other]) await store(each, [anEntry(meters.sum)]);
    const put = env.ARCHIVE.put.bind(env.ARCHIVE);
    const leases: number[] = [];
    const counting = async (...args: Parameters<typeof put>): Promise<unknown> => {
      const counts = [db, other].map((each) => each.prepare("SELECT COUNT(*) AS n FROM leases").first<number>("n"));
      leases.push((await Promise.all(counts)).reduce<number>((sum, count) => sum + Number(count), 0));
      return put(...args);
    };
    vi.spyOn(env.ARCHIVE, "put").mockImplementation(counting as typeof put);
    vi.setSystemTime(OVER);
    await maintain(env, OVER);
    expect(leases).toEqual([1, 1]);
  });
});

describe("what comes again when its slice is dropped changes nothing,", () => {
  const COMING: Record<string, ({ events }: SliceStory) => Promise<unknown>> = {
    "an event": ({ events }) => store(db, events),
    "a cancellation": ({ events }) => cancel(db, events.slice(3, 4)),
  };

  const TIMES: Record<string, (comes: () => Promise<unknown>) => Promise<unknown>> = {
    "just before the drop": (comes) =>
      new ArchiveCalls().meeting(
        async (call, { name }) => {
          if (name === "the drop") await comes();
          return call();
        },
        () => archive(),
      ),
    "whose transaction begins after the drop": (comes) => {
      replaceCall(db, "batch", async (commit) => {
        await archive();
        return commit();
      });
      return comes();
    },
    "after the drop": async (comes) => {
      await archive();
      await comes();
    },
  };

  for (const [what, come] of Object.entries(COMING)) {
    it.each(Object.entries(TIMES))(`${what} %s`, async (_, meet) => {
      const story = await SliceStory.begin(meters, "checked");
      await meet(() => come(story));
      await story.check();
    });
  }

  it("and its table is not made again by what looked before the drop", async () => {
    const story = await SliceStory.begin(meters, "checked");
    replaceCall(db, "batch", async (commit) => {
      await archive();
      return commit();
    });
    expect(await openSlice(db, SLICE)).toBe("archived");
    await story.check();
  });
});

describe("the files of", () => {
  it("two databases stand apart", async () => {
    for (const [value, each] of [db, other].entries()) {
      await store(each, [
        anEntry(meters.sum, { value }),
        anEntry(meters.sum, { value, timestamp: BEGIN - 3 * DAY_MS }),
      ]);
    }
    const stored = await Promise.all([db, other].map((each) => storedIn(each, meters.sum)));
    vi.setSystemTime(OLD);
    for (const name of [NAME, "EVENTS_1"]) expect(await archive(name)).toBe(false);
    for (const [place, each] of [db, other].entries()) {
      expect(await hasTable(each, SLICE)).toBe(false);
      expect(await inFiles(each, SLICE)).toEqual(stored[place]);
      expect((await filesOf(each, SLICE)).map(({ key }) => key.includes(`/db=0${place}/`))).toEqual([true, true]);
    }
    expect(await objectKeys()).toHaveLength(4);
  });

  it("imports of all ages, day after day, have the days of their events", async () => {
    const DAYS = 3;
    const AGES = [0, HOUR_MS, 13 * HOUR_MS, 35 * DAY_MS - 1];
    const stored: StoredRow[] = [];
    const slices = Array.from({ length: DAYS }, (_, i) => SLICE + 24 * i);
    for (const slice of slices) {
      const received = receiptOf(slice).start + 30 * MINUTE_MS;
      vi.setSystemTime(received);
      await store(
        db,
        AGES.flatMap((age) =>
          [1, 2].map((n) =>
            anEntry(meters.sum, { customer: `cus_${n}`, value: n, received, timestamp: received - age }),
          ),
        ),
      );
      stored.push(...(await storedIn(db, meters.sum)).filter((row) => row.received === received));
      await archive();
    }
    vi.setSystemTime(OLD + DAYS * DAY_MS);
    expect(await archive()).toBe(false);
    expect((await statesOf(db)).map(({ state }) => state)).toEqual(slices.map(() => "archived"));
    expect(await inFiles(db, ...slices)).toEqual(stored.sort(byId));
    for (const key of await objectKeys()) {
      const [, day, late] = /day=([^/]+)\/.*late=(\d)/.exec(key) ?? [];
      for (const { timestamp, received } of await rowsOfObject(key)) {
        expect(new Date(timestamp).toISOString().slice(0, 10)).toBe(day);
        // Events of an hour before their slice are on time, unless that was yesterday.
        const begin = receiptOf(sliceOf(received)).start;
        const isLate = timestamp < Math.max(begin - HOUR_MS, begin - (begin % DAY_MS));
        expect(late).toBe(isLate ? "1" : "0");
      }
    }
  });

  it("large events are cut by their bytes, also within a series", async () => {
    await store(db, [anEntry(meters.sum)]);
    await db
      .prepare(
        `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2300)
        INSERT INTO ${tableOf(SLICE)} (series, timestamp, id, identifier, value, delay, payload, api_key)
        SELECT series.id, ${BEGIN + 1}, printf('%05d', i), i || '', i, 0, jsonb_object('note', printf('%.*c', 7900, 'x')), 1
        FROM n, series`,
      )
      .run();
    vi.setSystemTime(OVER);
    expect(await archive()).toBe(false);
    expect(await stateNow()).toBe("checked");
    const files = await filesOf(db, SLICE);
    expect(files.map(({ rows }) => rows > 1_900)).toEqual([true, false]);
    expect(files.reduce((sum, { rows }) => sum + rows, 0)).toBe(2_301);
    expect(files.map(({ sum }) => sum).reduce((sum, each) => sum + each)).toBe(25n + (2_300n * 2_301n) / 2n);
    expect([files[0]?.first.series, files[1]?.last.series]).toEqual([files[1]?.first.series, files[0]?.last.series]);
  });

  it("a slice without events are none", async () => {
    await openSlice(db, SLICE);
    vi.setSystemTime(OLD);
    expect(await archive()).toBe(false);
    expect(await stateNow()).toBe("archived");
    expect(await hasTable(db, SLICE)).toBe(false);
    expect(await objectKeys()).toEqual([]);
  });

  it("an older copy of the database leave those that there are alone, which have events that it lacks", async () => {
    await SliceStory.begin(meters, "checked");
    const keys = await objectKeys();
    expect(keys).toHaveLength(2);
    const rows = await inFiles(db, SLICE);
    const bytes = await Promise.all([bytesOfFile(0), bytesOfFile(1)]);
    // As Time Travel leaves it, to before an event came and before the slice was over.
    await db.batch([
      db.prepare(`DELETE FROM ${tableOf(SLICE)} WHERE value = 8`),
      db.prepare("DELETE FROM archive_files"),
      db.prepare("UPDATE slices SET state = 'open', checked = NULL"),
    ]);
    expect(await archive()).toBe(false);
    expect([await stateNow(), await failedAt()]).toEqual(["sealed", OLD]);
    expect(await objectKeys()).toEqual(keys);
    const kept = keys.map(async (key) => new Uint8Array((await (await env.ARCHIVE.get(key))?.arrayBuffer()) ?? []));
    expect(new Set((await Promise.all(kept)).map(String))).toEqual(new Set(bytes.map(String)));
    expect(rows).toHaveLength(5);
  });
});
