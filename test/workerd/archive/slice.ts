// A slice that is to be archived, and how it is known whether that went well.
import { env } from "cloudflare:workers";
import { expect, vi } from "vitest";
import { LOCAL_KEYS } from "../../../scripts/local-keys.ts";
import { tableOf } from "../../../src/aggregate/sql/events.ts";
import type { SliceState } from "../../../src/aggregate/sql/slices.ts";
import { openSlice } from "../../../src/aggregate/sql/slices.ts";
import { DAY_MS, HOUR_MS, MINUTE_MS, receiptOf, sliceOf } from "../../../src/domain/window.ts";
import type { LogEntry } from "../../../src/log/codec.ts";
import { aLogEntry, unique } from "../../support/builders.ts";
import { createdMeter, FUTURE, type StoredRow, storedIn } from "../support.ts";
import { archive, archivedRows, asStored, cancel, empty, hasTable, objectKeys, statesOf, store } from "./support.ts";

export const NAME = "EVENTS_0";
const db = env.EVENTS_0;

/** All events are received at the beginning of a slice. */
export const BEGIN = receiptOf(sliceOf(FUTURE)).start + MINUTE_MS;
export const SLICE = sliceOf(BEGIN);
/** When it is over, and when it is old. */
export const OVER = receiptOf(SLICE).end + 25 * HOUR_MS + 1;
export const OLD = receiptOf(SLICE).end + 35 * DAY_MS;

/** Longer than a lease (ms). */
export const LEASE_MS = 3 * MINUTE_MS;

/** Runs after which all must be done. */
export const RUNS = 60;

export type Meters = { readonly sum: string; readonly last: string };

/** A meter that adds up, and one that keeps survivors. */
export async function someMeters(): Promise<Meters> {
  const sum = await createdMeter({}, LOCAL_KEYS.live);
  const last = await createdMeter({ "default_aggregation[formula]": "last" }, LOCAL_KEYS.live);
  return { sum: sum.id, last: last.id };
}

/** An event of a meter that adds up, received at BEGIN. */
export const anEntry = (meter: string, changes: Partial<LogEntry> = {}): LogEntry =>
  aLogEntry({ meter, timestamp: BEGIN, received: BEGIN, identifier: unique("identifier"), ...changes });

/** Events on time and late, of two meters; the fourth is cancelled. */
const someEvents = ({ sum, last }: Meters): LogEntry[] => [
  anEntry(sum, { value: 1 }),
  anEntry(last, { value: 2, aggregation: "latest_of_quarter_hour" }),
  anEntry(sum, { value: 4, timestamp: BEGIN - 20 * DAY_MS }),
  anEntry(sum, { value: 8 }),
  anEntry(last, { value: 16, aggregation: "latest_of_quarter_hour", payload: { note: "x" } }),
];

export const stateNow = async (): Promise<string | undefined> => (await statesOf(db))[0]?.state;

/** What a story takes from an earlier one that came to the same state. */
type Saved = { readonly story: SliceStory; readonly objects: ReadonlyMap<string, ArrayBuffer> };

const saved = new Map<SliceState, Saved>();

const TABLES = ["slices", "archive_files", "series", "sums", "survivors", tableOf(SLICE)];

/** A slice of EVENTS_0 that has come to a state, with an object in R2 that is not of it. */
export class SliceStory {
  /** The events that it had; the fourth is cancelled. */
  readonly events: readonly LogEntry[];
  #stored: readonly StoredRow[] = [];
  #counted: unknown;

  private constructor(events: readonly LogEntry[]) {
    this.events = events;
  }

  static async begin(meters: Meters, state: SliceState): Promise<SliceStory> {
    await empty(db);
    vi.useFakeTimers({ toFake: ["Date"], now: BEGIN });
    // Failures are part of the story.
    vi.spyOn(console, "error").mockImplementation(() => {});
    const { story, objects } = saved.get(state) ?? (await SliceStory.#save(meters, state));
    await empty(db);
    await openSlice(db, SLICE);
    await db.batch([
      db.prepare("DELETE FROM slices"),
      ...TABLES.map((table) => db.prepare(`INSERT INTO ${table} SELECT * FROM ${state}_${table}`)),
    ]);
    for (const [key, bytes] of objects) await env.ARCHIVE.put(key, bytes);
    vi.setSystemTime(state === "checked" ? OLD : OVER);
    return story;
  }

  static async #save(meters: Meters, state: SliceState): Promise<Saved> {
    const story = new SliceStory(someEvents(meters));
    await store(db, story.events);
    await cancel(db, story.events.slice(3, 4));
    story.#stored = await storedIn(db, meters.sum, meters.last);
    story.#counted = await story.#whatCounts();
    await env.ARCHIVE.put(`events/day=2040-06-15/db=00/slice=${SLICE}/late=1/00009.parquet`, "not of this slice");
    vi.setSystemTime(OVER);
    for (let steps = 0; state !== "open" && (await stateNow()) !== state; steps++) {
      expect(steps).toBeLessThan(RUNS);
      await archive(NAME, { steps, until: Number.POSITIVE_INFINITY });
    }
    await db.batch(TABLES.map((table) => db.prepare(`CREATE TABLE ${state}_${table} AS SELECT * FROM ${table}`)));
    const objects = new Map<string, ArrayBuffer>();
    for (const key of await objectKeys()) {
      objects.set(key, (await (await env.ARCHIVE.get(key))?.arrayBuffer()) ?? new ArrayBuffer(0));
    }
    const made = { story, objects };
    saved.set(state, made);
    return made;
  }

  /** The slice is archived: its files have what it had, R2 has nothing else, and what counts is what it was. */
  async check(): Promise<void> {
    expect(await stateNow()).toBe("archived");
    expect(await hasTable(db, SLICE)).toBe(false);
    const rows = (await archivedRows(db, SLICE)).map(asStored);
    expect(rows.sort((a, b) => (a.id < b.id ? -1 : 1))).toEqual(this.#stored);
    const { results } = await db.prepare("SELECT key FROM archive_files ORDER BY key").all<{ key: string }>();
    expect(await objectKeys()).toEqual(results.map(({ key }) => key));
    expect(await this.#whatCounts()).toEqual(this.#counted);
    expect(await db.prepare("SELECT base_value FROM survivors").first("base_value")).toBe(16);
  }

  /** Sums, and what stands for its window. */
  async #whatCounts(): Promise<unknown> {
    const [sums, survivors] = await db.batch([
      db.prepare("SELECT * FROM sums"),
      db.prepare("SELECT series, window_start, rank, timestamp, id, value, vacated FROM survivors"),
    ]);
    return [sums?.results, survivors?.results];
  }
}
