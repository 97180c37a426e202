// What is brought back from the archive: days, tables of slices, slices whose check failed.
import { env } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { LOCAL_KEYS } from "../../../scripts/local-keys.ts";
import { tableOf } from "../../../src/aggregate/sql/events.ts";
import { filesOf } from "../../../src/archive/manifest.ts";
import { DAY_MS, MINUTE_MS, QUARTER_HOUR_MS, SECOND_MS, sliceOf } from "../../../src/domain/window.ts";
import type { LogEntry } from "../../../src/log/codec.ts";
import { erase, tracesOf } from "../archive/erase-support.ts";
import {
  anEntryOf,
  archivedDays,
  archivedStory,
  areNumbered,
  BEGIN,
  NEXT,
  OLD,
  OVER,
  restore,
  restoreAll,
  restoredBy,
  SLICE,
  story,
  timeTravel,
  usageIn,
} from "../archive/restore-support.ts";
import { archive, cancel, empty, hasTable, loseDatabase, statesOf, store } from "../archive/support.ts";
import { aStoredMeter } from "../audit/audit-support.ts";
import { HostileD1 } from "../hostile-d1.ts";
import { answerOf } from "../support.ts";

const db = env.EVENTS_0;

let lines: string[] = [];

beforeEach(async () => {
  await empty(db);
  await empty(env.EVENTS_1);
  lines = [];
  vi.useFakeTimers({ toFake: ["Date"], now: BEGIN });
  for (const level of ["error", "warn"] as const) {
    vi.spyOn(console, level).mockImplementation((line) => void lines.push(JSON.parse(line).message));
  }
});

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

/** A part of it: one slice with files of two days, in the archive. */
async function shortStory() {
  const { entries } = await story();
  const few = entries.slice(0, 4);
  await store(db, few);
  await cancel(db, few.slice(1, 2));
  const before = await usageIn(db);
  vi.setSystemTime(OLD);
  await archive();
  return { entries: few, before, days: await archivedDays() };
}

describe("a day that is restored", () => {
  /** What befalls the database once its slices are archived: by a time (ms), and how. */
  const LOSSES: Readonly<
    Record<
      string,
      { until?: number; lose: (story: { entries: LogEntry[]; cancelled: LogEntry[] }) => Promise<unknown> }
    >
  > = {
    nothing: { lose: async () => {} },
    "all of it": { lose: () => loseDatabase(db) },
    "all of it, and new events give other numbers to its series": {
      lose: async ({ entries }) => {
        await loseDatabase(db);
        const now = OLD;
        const [one] = entries;
        if (one === undefined) throw new Error("no entry");
        for (const customer of ["cus_new", "cus_2", "cus_0"]) {
          await store(db, [{ ...one, id: `${one.id}${customer}`, customer, received: now, timestamp: now }]);
        }
      },
    },
    "what came after a part of the first slice": {
      lose: async ({ entries }) => {
        await loseDatabase(db);
        await store(db, entries.slice(3, 9));
      },
    },
    "cancellations, and the second slice": {
      lose: async ({ entries }) => {
        await loseDatabase(db);
        await store(
          db,
          entries.filter(({ received }) => sliceOf(received) === SLICE),
        );
      },
    },
    "what the archive had noted, but no event": {
      until: OVER,
      lose: () =>
        db.batch([
          db.prepare("DELETE FROM archive_files"),
          db.prepare("UPDATE slices SET state = 'open', checked = NULL WHERE state <> 'open'"),
        ]),
    },
  };

  it.each(Object.entries(LOSSES))("counts every event once after a loss of %s", async (_, { until = OLD, lose }) => {
    const { before, ...told } = await archivedStory(until);
    await lose(told);
    await restoreAll();
    const after = await usageIn(db);
    expect(withoutNew(after)).toEqual(withoutNew(before));
    expect(await areNumbered(db)).toBe(true);

    // Again it finds all there; what a log sends again is there too.
    expect(await restoreAll()).toBe(0);
    await store(db, told.entries);
    await cancel(db, told.cancelled);
    expect(await usageIn(db)).toEqual(after);

    // The archive goes on.
    vi.setSystemTime(OLD);
    await archive();
    const states = (await statesOf(db)).filter(({ slice }) => slice <= NEXT);
    expect(states.map(({ state }) => state)).toEqual(["archived", "archived"]);
    expect(await usageIn(db)).toEqual(after);
    expect(lines).toEqual([]);
  });

  /** Without what a loss adds. */
  const withoutNew = (usage: Record<string, unknown[]>) =>
    Object.fromEntries(
      Object.entries(usage).map(([name, rows]) => [
        name,
        rows.filter((row) => {
          const { quarter_hour, window_start, received } = row as Record<string, number>;
          const time = received ?? window_start ?? (quarter_hour ?? 0) * QUARTER_HOUR_MS;
          return time < OLD - DAY_MS;
        }),
      ]),
    );

  it("leaves the other databases and days alone", async () => {
    const { entries } = await archivedStory(OLD);
    vi.setSystemTime(BEGIN);
    await store(
      env.EVENTS_1,
      entries.map((entry) => ({ ...entry, id: `${entry.id}x` })),
    );
    const other = await usageIn(env.EVENTS_1);
    vi.setSystemTime(OLD);
    await archive("EVENTS_1");
    const before = await usageIn(db);
    await loseDatabase(db);
    await loseDatabase(env.EVENTS_1);
    const day = new Date(BEGIN).toISOString().slice(0, 10);
    const steps = await restore({ day });
    expect(restoredBy(steps)).toBe(2 * entries.filter(({ timestamp }) => sameDay(timestamp, BEGIN)).length);
    const ofDay = (usage: Record<string, unknown[]>) =>
      usage.events?.filter((event) => sameDay((event as LogEntry).timestamp, BEGIN));
    expect((await usageIn(db)).events).toEqual(ofDay(before));
    await restoreAll();
    expect(await usageIn(db)).toEqual(before);
    expect(await usageIn(env.EVENTS_1)).toEqual(other);
  });

  const sameDay = (one: number, other: number): boolean => Math.floor(one / DAY_MS) === Math.floor(other / DAY_MS);

  // What differs between the two: a database that was made anew, and one that has a part of the slice.
  it.each([[0], [2]])("goes on after the response of any call is lost, where %i events are left", async (left) => {
    const { before, entries, days } = await shortStory();
    let calls = 1;
    for (let strike = 0; strike < calls; strike++) {
      await loseDatabase(db);
      await store(db, entries.slice(0, left));
      calls = await withOneFailure(strike, async () => {
        for (const day of days) await restore({ day }).catch(() => restore({ day }));
      });
      expect({ strike, ...(await usageIn(db)) }).toEqual({ strike, ...before });
    }
    expect(calls).toBeGreaterThan(20);
  });

  it("refuses meters that the control database does not know, and gives unknown API keys numbers", async () => {
    const { before, entries } = await archivedStory(OLD);
    const [{ meter } = { meter: "" }] = entries;
    const keys = await env.DB.prepare("SELECT * FROM api_keys WHERE number <= 2").all<Record<string, string>>();
    await loseDatabase(db);
    await env.DB.batch([
      env.DB.prepare("UPDATE meters SET id = 'mtr_away' WHERE id = ?").bind(meter),
      env.DB.prepare("UPDATE api_keys SET id = id || '_away' WHERE number <= 2"),
    ]);
    // Its series get other numbers, so that its files are written again.
    await store(db, [anEntryOf(await aStoredMeter({ livemode: true }), OLD)]);
    await expect(restoreAll()).rejects.toThrow(`no meter ${meter}`);
    await env.DB.prepare("UPDATE meters SET id = ? WHERE id = 'mtr_away'").bind(meter).run();
    await restoreAll();
    const { results } = await env.DB.prepare("SELECT id, number FROM api_keys WHERE name = 'restored'").all<{
      id: string;
      number: number;
    }>();
    expect(results.map(({ id }) => id).toSorted()).toEqual(keys.results.map(({ id }) => id).toSorted());
    const numbers = new Map(results.map(({ id, number }) => [number, id]));
    const reporters = (await usageIn(db)).events.flatMap(
      (event) => numbers.get((event as { apiKey: number }).apiKey) ?? [],
    );
    expect(reporters).toHaveLength(before.events.length);
    await env.DB.batch([
      env.DB.prepare("DELETE FROM api_keys WHERE name = 'restored'"),
      env.DB.prepare("UPDATE api_keys SET id = replace(id, '_away', '')"),
    ]);
  });

  it("is refused for what is no day, without a live key, and while another has the lease it waits", async () => {
    await expect(restore({ day: "2040-02-30" })).rejects.toThrow("UTC day");
    await expect(restore({ cursor: "x" })).rejects.toThrow("cursor");
    await expect(restore({ slice: "1", database: "EVENTS_9" })).rejects.toThrow("no such database");
    await db
      .prepare("INSERT INTO leases VALUES ('archive', 'another', ?)")
      .bind(Date.now() + SECOND_MS)
      .run();
    const form = { day: "2040-06-15" };
    const { body } = await answerOf("/v1/edgemeter/restore", { form, key: LOCAL_KEYS.live });
    expect(body).toMatchObject({ waits: true, file: null });
    vi.setSystemTime(BEGIN + MINUTE_MS);
    expect((await restore({ cursor: String(body.next) })).at(-1)).toMatchObject({ waits: false, next: null });
  });
});

/**
 * Does something while the response of one call of D1 or R2, after `skip` others, is lost. How many calls there were. A
 * call that is carried out and fails leaves what one that fails before the next leaves.
 */
async function withOneFailure(skip: number, work: () => Promise<void>): Promise<number> {
  let calls = 0;
  const strike = async <T>(call: () => Promise<T>): Promise<T> => {
    const isStruck = calls++ === skip;
    const response = await call();
    if (isStruck) throw new Error("Network connection lost.");
    return response;
  };
  new HostileD1([db, env.DB]).fate = strike;
  for (const method of ["get", "put", "delete", "list"] as const) {
    const original = (env.ARCHIVE[method] as (...args: unknown[]) => Promise<unknown>).bind(env.ARCHIVE);
    vi.spyOn(env.ARCHIVE, method).mockImplementation(((...args: unknown[]) =>
      strike(() => original(...args))) as never);
  }
  try {
    await work();
  } finally {
    vi.restoreAllMocks();
    vi.spyOn(console, "error").mockImplementation(() => {});
  }
  return calls;
}

describe("the table of an archived slice", () => {
  it("comes back as it was, is kept for a day, and goes again when the slice is due", async () => {
    const { entries, cancelled, before } = await archivedStory(OLD);
    await restore({ slice: String(SLICE), database: "EVENTS_0" });
    expect(await hasTable(db, SLICE)).toBe(true);
    const index = db.prepare("SELECT name FROM pragma_index_list(?) WHERE origin = 'c'").bind(tableOf(SLICE));
    expect(await index.first("name")).toBe(`late_events_${tableOf(SLICE)}`);
    expect(await usageIn(db)).toEqual(before);
    await store(db, entries);
    await cancel(db, cancelled);
    expect(await usageIn(db)).toEqual(before);
    await archive();
    expect((await statesOf(db)).slice(0, 2)).toEqual([
      { slice: SLICE, state: "checked" },
      { slice: NEXT, state: "archived" },
    ]);
    vi.setSystemTime(OLD + DAY_MS - 1);
    await archive();
    expect(await hasTable(db, SLICE)).toBe(true);
    vi.setSystemTime(OLD + DAY_MS);
    await archive();
    expect(await hasTable(db, SLICE)).toBe(false);
    expect(await usageIn(db)).toEqual(before);
    await expect(restore({ slice: String(SLICE + 24), database: "EVENTS_0" })).rejects.toThrow("is not archived");
  });

  /** A step of a restoration; the form of the next. */
  const step = async (form: Record<string, string>) => {
    const { status, body } = await answerOf("/v1/edgemeter/restore", { form, key: LOCAL_KEYS.live });
    expect(status).toBe(200);
    return { cursor: String(body.next) };
  };

  it("begins again when a customer is erased meanwhile, and has no trace of them", async () => {
    const { before } = await shortStory();
    const next = await step({ slice: String(SLICE), database: "EVENTS_0" });
    expect(await tracesOf(db, "cus_0", "large")).toEqual(["cus_0", "large"]);
    const alias = await erase("cus_0");
    expect(await tracesOf(db, "cus_0", "large")).toEqual(["cus_0"]);
    await restore(next);
    expect(await hasTable(db, SLICE)).toBe(true);
    expect(await tracesOf(db, "cus_0", "large")).toEqual(["cus_0"]);
    const { events } = await usageIn(db);
    const idAndOwner = (event: unknown) => [(event as LogEntry).id, (event as LogEntry).customer];
    expect(events.map(idAndOwner)).toEqual(
      before.events.map(idAndOwner).map(([id, customer]) => [id, customer === "cus_0" ? alias : customer]),
    );
    await archive();
    expect(lines).toEqual([]);
  });

  it("loses no event when two bring it back at once", async () => {
    const { before } = await shortStory();
    const form = { slice: String(SLICE), database: "EVENTS_0" };
    const last = await step(await step(form));
    const other = await step(form);
    await expect(restore(last)).rejects.toThrow("begin again");
    expect((await statesOf(db)).find(({ slice }) => slice === SLICE)?.state).toBe("archived");
    expect(await usageIn(db)).toEqual(before);
    await restore(other);
    expect(await hasTable(db, SLICE)).toBe(true);
    expect(await usageIn(db)).toEqual(before);
  });

  it("does not count what is sent again before it is whole, also after the response of any call is lost", async () => {
    const { entries, before } = await shortStory();
    const bringBack = () => restore({ slice: String(SLICE), database: "EVENTS_0" });
    let calls = 1;
    for (let strike = 0; strike < calls; strike++) {
      calls = await withOneFailure(strike, async () => {
        await bringBack().catch(async () => {
          await store(db, entries);
          // Its last step may have been carried out.
          await bringBack().catch((error) => expect(String(error)).toContain("is not archived"));
        });
      });
      expect(await hasTable(db, SLICE)).toBe(true);
      expect({ strike, ...(await usageIn(db)) }).toEqual({ strike, ...before });
      await db.batch([
        db.prepare(`DROP TABLE ${tableOf(SLICE)}`),
        db.prepare("UPDATE slices SET state = 'archived' WHERE slice = ?").bind(SLICE),
      ]);
    }
    expect(calls).toBeGreaterThan(15);
  });
});

describe("a slice whose check has failed", () => {
  it("is exported again once an operator asks for it", async () => {
    const { before } = await archivedStory(OVER);
    const [file] = await filesOf(db, SLICE);
    await env.ARCHIVE.put(file?.key ?? "", "damaged");
    await db.batch([
      db.prepare("UPDATE slices SET state = 'exported' WHERE slice = ?").bind(SLICE),
      db.prepare("UPDATE archive_files SET checked = NULL WHERE slice = ?").bind(SLICE),
    ]);
    await archive();
    expect(lines).toEqual(["a file of the archive differs from its events"]);
    await archive();
    expect(await failed()).toEqual([SLICE]);
    await restore({ export_again: String(SLICE), database: "EVENTS_0" });
    expect(await failed()).toEqual([]);
    await archive();
    expect((await statesOf(db)).map(({ state }) => state)).toEqual(["checked", "checked"]);
    vi.setSystemTime(OLD);
    await archive();
    expect(await hasTable(db, SLICE)).toBe(false);
    expect(await usageIn(db)).toEqual(before);
    await expect(restore({ export_again: String(SLICE), database: "EVENTS_0" })).rejects.toThrow("has not failed");
  });

  it("keeps files with events that its table lacks, until these are restored", async () => {
    const { before, entries } = await archivedStory(OVER);
    await loseDatabase(db);
    await store(db, entries.slice(0, 5));
    const objects = (await env.ARCHIVE.list()).objects.length;
    await archive();
    expect(lines).toEqual(["the archive has events that their slice lacks"]);
    expect(await failed()).toEqual([SLICE]);
    expect((await env.ARCHIVE.list()).objects).toHaveLength(objects);
    await expect(restore({ export_again: String(SLICE), database: "EVENTS_0" })).rejects.toThrow(
      "npm run restore -- --day",
    );
    expect((await env.ARCHIVE.list()).objects).toHaveLength(objects);
    await restoreAll();
    await archive();
    expect(await failed()).toEqual([]);
    expect(await usageIn(db)).toEqual(before);
  });

  const failed = async () =>
    (await db.prepare("SELECT slice FROM slices WHERE failed IS NOT NULL").all<{ slice: number }>()).results.map(
      ({ slice }) => slice,
    );
});

describe("what is exported again after the database was restored to an earlier time", () => {
  it("replaces the objects of before, of which the manifest names none", async () => {
    const { entries } = await archivedStory(OVER);
    // A late event is alone in its file; without it there is one file less.
    const late = entries.filter(
      ({ timestamp, received }) => sliceOf(received) === SLICE && received - timestamp > DAY_MS,
    );
    const objects = (await env.ARCHIVE.list()).objects.length;
    const table = tableOf(SLICE);
    await db.batch([
      db.prepare("DELETE FROM archive_files"),
      db.prepare("UPDATE slices SET state = 'sealed', checked = NULL"),
      // The same events in a file of another number.
      db.prepare(`UPDATE ${table} SET payload = NULL`),
    ]);
    const [object] = (await env.ARCHIVE.list({ prefix: "events/day=2040-05" })).objects;
    const stray = await env.ARCHIVE.get(object?.key ?? "");
    await env.ARCHIVE.put(
      (object?.key ?? "").replace(/\d{5}\.parquet/, "00099.parquet"),
      (await stray?.arrayBuffer()) ?? "",
    );
    await archive();
    expect(late.length).toBeGreaterThan(0);
    const keys = (await env.ARCHIVE.list()).objects.map(({ key }) => key);
    const named = [...(await filesOf(db, SLICE)), ...(await filesOf(db, NEXT))].map(({ key }) => key);
    expect(keys).toEqual(named.toSorted());
    expect(keys).toHaveLength(objects);
    expect((await statesOf(db)).map(({ state }) => state)).toEqual(["checked", "checked"]);
  });
});

describe("a database that was restored to a time before an erasure", () => {
  it("finds the files that the erasure wrote in the place of others", async () => {
    await archivedStory(OLD);
    const goBack = await timeTravel(db);
    const before = await usageIn(db);
    await erase("cus_1");
    await goBack();
    await expect(usageIn(db)).rejects.toThrow("there is no object");
    expect(await restoreAll()).toBeGreaterThan(0);
    const { sums, survivors, events } = await usageIn(db);
    expect({ sums, survivors }).toEqual({ sums: before.sums, survivors: before.survivors });
    expect(events.map(idOf)).toEqual(before.events.map(idOf));
    await erase("cus_1");
    expect(JSON.stringify(await usageIn(db))).not.toContain('"cus_1"');
    expect((await usageIn(db)).events.map(idOf)).toEqual(before.events.map(idOf));
  });

  it("knows its own events in them, and exports them again", async () => {
    const { entries, cancelled } = await story();
    await store(db, entries);
    await cancel(db, cancelled);
    const goBack = await timeTravel(db);
    const before = await usageIn(db);
    vi.setSystemTime(OVER);
    await archive();
    await erase("cus_1");
    await goBack();
    await restoreAll();
    await archive();
    expect((await statesOf(db)).map(({ state }) => state)).toEqual(["checked", "checked"]);
    expect(lines).toEqual([]);
    expect(await usageIn(db)).toEqual(before);
  });

  it("brings nothing back to a customer who is erased, and no erasure deletes what is not brought back", async () => {
    const { before, entries } = await archivedStory(OLD);
    await loseDatabase(db);
    const alias = await erase("cus_1");
    await restoreAll();
    expect(JSON.stringify(await usageIn(db))).not.toContain('"cus_1"');
    const { sums, survivors } = await usageIn(db);
    const named = (rows: unknown[]) => JSON.stringify(rows).replaceAll('"cus_1"', `"${alias}"`);
    expect(sorted(sums)).toEqual(sorted(JSON.parse(named(before.sums))));
    expect(sorted(survivors)).toEqual(sorted(JSON.parse(named(before.survivors))));

    await loseDatabase(db);
    await store(db, entries.slice(0, 5));
    await expect(erase("cus_2")).rejects.toThrow("restore them first");
  });

  it("gets back what an erasure waits for, which then goes on", async () => {
    const { before, entries } = await archivedStory(OLD);
    await loseDatabase(db);
    await store(db, entries.slice(0, 5));
    await expect(erase("cus_2")).rejects.toThrow("restore them first");
    await restoreAll();
    await erase("cus_2");
    const usage = await usageIn(db);
    expect(usage.events.map(idOf)).toEqual(before.events.map(idOf));
    expect(await tracesOf(db, "cus_2")).toEqual(["cus_2"]);
    await archive();
    expect(lines).toEqual([]);
  });

  const idOf = (event: unknown) => (event as { id: string }).id;
  const sorted = (rows: unknown[]) => rows.map((row) => JSON.stringify(row)).toSorted();
});
