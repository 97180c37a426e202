import { env } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { applyEntries } from "../../../src/aggregate/apply.ts";
import { keepSlices } from "../../../src/aggregate/keep-slices.ts";
import { tableOf } from "../../../src/aggregate/sql/events.ts";
import { liveSlices, openSlice } from "../../../src/aggregate/sql/slices.ts";
import { HOUR_MS, sliceOf } from "../../../src/domain/window.ts";
import type { LogEntry } from "../../../src/log/codec.ts";
import { aLogEntry, aMeter, NOON, resultOf } from "../../support/builders.ts";
import { cancellationLines, eventLines, toEntries } from "../../support/shares.ts";
import { readSummaries } from "../../support/summaries.ts";
import { readPage, storedIn } from "../support.ts";

const db = env.TEST_EVENTS;
const SLICE = sliceOf(NOON);

const columnsOf = async (table: string): Promise<string[]> =>
  (await db.prepare(`SELECT name FROM pragma_table_info('${table}')`).all<{ name: string }>()).results.map(
    ({ name }) => name,
  );

const store = (...events: readonly LogEntry[]) => applyEntries(db, toEntries("events", eventLines(events)), NOON);

/** Every test begins without slices. */
beforeEach(async () => {
  for (const { slice } of await liveSlices(db)) await db.exec(`DROP TABLE ${tableOf(slice)}`);
  await db.exec("DELETE FROM slices");
});

const indexOf = (slice: number): Promise<string | null> =>
  db
    .prepare("SELECT sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL AND tbl_name = ?")
    .bind(tableOf(slice))
    .first("sql");

describe("a slice", () => {
  it("is made like the template, with its indexes, as often as it is opened", async () => {
    for (const _ of [1, 2]) expect(await openSlice(db, SLICE)).toBe("open");
    expect(await columnsOf(tableOf(SLICE))).toEqual(await columnsOf("events"));
    expect(await indexOf(SLICE)).toContain(`ON ${tableOf(SLICE)} (id) WHERE delay >= 3600000`);
  });

  it("is made by the first event that belongs into it, and knows what it holds", async () => {
    await store(aLogEntry({ timestamp: NOON - 5 * HOUR_MS }), aLogEntry());
    const quarter = 900_000;
    const timestamps = {
      start: NOON - 5 * HOUR_MS - ((NOON - 5 * HOUR_MS) % quarter),
      end: NOON - (NOON % quarter) + quarter,
    };
    expect(await liveSlices(db)).toEqual([{ slice: SLICE, timestamps }]);
  });

  it("that is archived is not made again: what comes for it was stored, and changes nothing", async () => {
    const meter = aMeter();
    const event = aLogEntry({ meter: meter.id });
    await store(event);
    await db.batch([
      db.prepare(`DROP TABLE ${tableOf(SLICE)}`),
      db.prepare("UPDATE slices SET state = 'archived' WHERE slice = ?").bind(SLICE),
    ]);
    const other = aLogEntry({ meter: meter.id, received: NOON + 12 * HOUR_MS });
    await store(event, other);
    await applyEntries(db, toEntries("cancellations", cancellationLines([event])), NOON);
    expect((await storedIn(db, meter.id)).map(({ id }) => id)).toEqual([other.id]);
    const range = { start: 0, end: Date.UTC(2100, 0) };
    const query = {
      meter,
      customer: "cus_1",
      range,
      windowLength: range.end,
      order: "newest_first",
      limit: 1,
    } as const;
    expect(resultOf(await readSummaries(env, query))).toMatchObject([{ value: 50n }]);
  });

  it("is there twelve hours before it begins", async () => {
    await store(aLogEntry());
    await keepSlices(db, NOON);
    expect((await liveSlices(db)).map(({ slice }) => slice)).toEqual([SLICE, SLICE + 12]);
  });
});

describe("a migration of the template", () => {
  afterEach(async () => {
    if ((await columnsOf("events")).includes("region")) await db.exec("ALTER TABLE events DROP COLUMN region");
  });

  it("reaches live slices with their rows by the minute's maintenance", async () => {
    const meter = aMeter();
    const event = aLogEntry({ meter: meter.id });
    await store(event);
    await db.exec(`DROP INDEX late_events_${tableOf(SLICE)}`);
    await keepSlices(db, NOON);
    expect(await indexOf(SLICE)).toContain(`ON ${tableOf(SLICE)} (id) WHERE delay >= 3600000`);
    await db.exec("ALTER TABLE events ADD COLUMN region TEXT DEFAULT 'eu'");
    await keepSlices(db, NOON);
    expect(await columnsOf(tableOf(SLICE))).toContain("region");
    const row = db.prepare(`SELECT region, value FROM ${tableOf(SLICE)} WHERE id = ?`).bind(event.id);
    expect(await row.first()).toEqual({ region: "eu", value: 25 });
  });

  it("that came before its Worker is no hindrance to the Worker before it", async () => {
    const meter = aMeter();
    await db.exec("ALTER TABLE events ADD COLUMN region TEXT DEFAULT 'eu'");
    const event = aLogEntry({ meter: meter.id });
    await store(event);
    expect((await storedIn(db, meter.id)).map(({ id }) => id)).toEqual([event.id]);
  });

  it("is applied to a slice by the first write or read that needs it", async () => {
    const meter = aMeter();
    const events = [1, 2].map(() => aLogEntry({ meter: meter.id }));
    const [kept, cancelled] = events as [LogEntry, LogEntry];
    const makeOld = () => db.exec(`ALTER TABLE ${tableOf(SLICE)} DROP COLUMN cancelled_by`);
    await store(kept);
    await makeOld();
    await applyEntries(db, toEntries("cancellations", cancellationLines([cancelled])), NOON);
    expect(await columnsOf(tableOf(SLICE))).toContain("cancelled_by");
    await makeOld();
    const range = { start: 0, end: Date.UTC(2100, 0) };
    const from = { order: "oldest_first", place: undefined } as const;
    expect(resultOf(await readPage(meter, { range, from })).events.map(({ id }) => id)).toEqual(
      events.map(({ id }) => id),
    );
  });
});
