import { env } from "cloudflare:workers";
import { vi } from "vitest";
import type { ZodType } from "zod";
import type { Client } from "../../../scripts/http.ts";
import { LOCAL_KEYS } from "../../../scripts/local-keys.ts";
import { filesOf } from "../../../src/archive/manifest.ts";
import { aggregationOf, type Meter } from "../../../src/domain/meter.ts";
import { DAY_MS, HOUR_MS, MINUTE_MS, receiptOf, SECOND_MS, sliceOf } from "../../../src/domain/window.ts";
import type { LogEntry } from "../../../src/log/codec.ts";
import { aLogEntry, unique } from "../../support/builders.ts";
import { aStoredMeter } from "../audit/audit-support.ts";
import { answerOf, FUTURE, storedIn } from "../support.ts";
import { archive, archivedRows, cancel, loseDatabase, store } from "./support.ts";

export const SLICE = sliceOf(FUTURE);
export const NEXT = SLICE + 12;
export const BEGIN = receiptOf(SLICE).start + MINUTE_MS;

/** When both slices are over, and when they are old. */
export const OVER = receiptOf(NEXT).end + 25 * HOUR_MS + 1;
export const OLD = receiptOf(NEXT).end + 35 * DAY_MS;

/** What a call of the restoration says. */
export type Step = { database: string; file: string | null; restored: number; waits: boolean; next: string | null };

/** All steps of a call that an operator makes: `npm run restore` does the same. Throws with what the server says. */
export async function restore(form: Record<string, string>): Promise<Step[]> {
  const steps: Step[] = [];
  for (let next: Record<string, string> | undefined = form; next !== undefined; ) {
    const { status, body } = await answerOf("/v1/edgemeter/restore", { form: next, key: LOCAL_KEYS.live });
    if (status !== 200) throw new Error(JSON.stringify(body.error));
    const step = body as Step;
    // Whose lease it is may have died with it.
    if (step.waits) vi.setSystemTime(Date.now() + MINUTE_MS);
    steps.push(step);
    next = step.next === null ? undefined : { cursor: step.next };
  }
  return steps;
}

export const restoredBy = (steps: readonly Step[]): number => steps.reduce((sum, { restored }) => sum + restored, 0);

/** The UTC days of which the archive has files. */
export async function archivedDays(): Promise<string[]> {
  const { objects } = await env.ARCHIVE.list();
  return [...new Set(objects.map(({ key }) => /day=([\d-]+)/.exec(key)?.[1] ?? ""))];
}

/** Restores every day that the archive has; how many events the databases lacked. */
export async function restoreAll(): Promise<number> {
  let restored = 0;
  for (const day of await archivedDays()) restored += restoredBy(await restore({ day }));
  return restored;
}

/** An event of a meter for a customer, received at a time (ms). */
export const anEntryOf = (meter: Meter, received: number, changes: Partial<LogEntry> = {}): LogEntry =>
  aLogEntry({
    ...{ meter: meter.id, aggregation: aggregationOf(meter), identifier: unique("identifier") },
    ...{ timestamp: received, received, ...changes },
  });

/** What a database says of usage, whatever numbers its series have: sums, survivors, and the events of files and slices. */
export async function usageIn(db: D1Database): Promise<Record<"sums" | "survivors" | "events", unknown[]>> {
  const named = "SELECT meter, customer, dimensions";
  const [sums, survivors] = await db.batch([
    db.prepare(`${named}, quarter_hour, count, sum_high * 1000000000 + sum_low AS sum
      FROM sums JOIN series ON id = series WHERE count <> 0 ORDER BY 1, 2, 3, 4`),
    db.prepare(`${named}, window_start, rank, timestamp, survivors.id, value
      FROM survivors JOIN series ON series.id = series WHERE survivors.id <> '' ORDER BY 1, 2, 3, 4`),
  ]);
  const { results } = await db.prepare("SELECT slice FROM slices WHERE state = 'archived'").all<{ slice: number }>();
  const archived = (await Promise.all(results.map(({ slice }) => archivedRows(db, slice)))).flat();
  const { results: meters } = await db.prepare("SELECT DISTINCT meter FROM series").all<{ meter: string }>();
  const live = await storedIn(db, ...meters.map(({ meter }) => meter));
  const events = [
    ...live.map(({ api_key, cancelled_by, payload, ...event }) => ({
      ...{ ...event, apiKey: api_key, cancelledBy: cancelled_by, payload: payload ?? null },
    })),
    ...archived.map(({ series: _, dimensions, ...event }) => ({ ...event, dimensions: dimensions ?? "" })),
  ];
  return {
    sums: sums?.results ?? [],
    survivors: survivors?.results ?? [],
    events: events.toSorted((a, b) => (a.id < b.id ? -1 : 1)),
  };
}

/** Whether every row of the files of an archived slice has the number of its series in this database. */
export async function areNumbered(db: D1Database): Promise<boolean> {
  const { results } = await db.prepare("SELECT * FROM series").all<{
    id: number;
    meter: string;
    customer: string;
    dimensions: string;
  }>();
  const names = new Map(
    results.map(({ id, meter, customer, dimensions }) => [id, `${meter} ${customer} ${dimensions}`]),
  );
  const { results: slices } = await db
    .prepare("SELECT slice FROM slices WHERE state = 'archived'")
    .all<{ slice: number }>();
  for (const { slice } of slices) {
    for (const row of await archivedRows(db, slice)) {
      if (names.get(row.series) !== `${row.meter} ${row.customer} ${row.dimensions ?? ""}`) return false;
      const file = (await filesOf(db, slice)).find(
        ({ first, last }) => first.series <= row.series && row.series <= last.series,
      );
      if (file === undefined) return false;
    }
  }
  return true;
}

/** Two slices of usage: on time and late, of three customers, meters that add up and that keep one event, cancellations. */
export async function story(): Promise<{ entries: LogEntry[]; cancelled: LogEntry[] }> {
  const meters: Meter[] = [];
  for (const changes of [{}, { formula: "last" }, { formula: "min" }, { eventTimeWindow: "day" }] as const) {
    meters.push(await aStoredMeter({ livemode: true, ...changes }));
  }
  const entries = [SLICE, NEXT].flatMap((slice, half) =>
    meters.flatMap((meter, kind) =>
      Array.from({ length: 12 }, (_, i) => {
        const received = receiptOf(slice).start + MINUTE_MS + i * SECOND_MS;
        const late = i % 4 === 3 ? (i % 8 === 3 ? 3 * HOUR_MS : 20 * DAY_MS) : 0;
        return anEntryOf(meter, received, {
          customer: `cus_${i % 3}`,
          value: 1 + i + 100 * kind + 1_000 * half,
          timestamp: received - late,
          dimensions: i % 2 === 0 ? "" : '{"region":"eu"}',
          payload: i % 5 === 0 ? { model: "large" } : undefined,
        });
      }),
    ),
  );
  const cancelled = entries.filter((_, i) => i % 7 === 0);
  return { entries, cancelled };
}

/** Stores the story, and has the archive take it `until` (ms). */
export async function archivedStory(until: number, db: D1Database = env.EVENTS_0) {
  const { entries, cancelled } = await story();
  await store(db, entries);
  await cancel(db, cancelled);
  const before = await usageIn(db);
  vi.setSystemTime(until);
  await archive();
  return { entries, cancelled, before };
}

/** What the operator's commands call the Worker by. */
export const CLIENT = {
  async call<T>({ path, form = {} }: { path: string; form?: Readonly<Record<string, string>> }, schema: ZodType<T>) {
    const { status, body } = await answerOf(path, { form, key: LOCAL_KEYS.live });
    if (status !== 200) throw new Error(JSON.stringify(body.error));
    return schema.parse(body);
  },
} as Client;

const asBytes = (value: unknown): unknown => (Array.isArray(value) ? new Uint8Array(value) : value);

/** What a database is now, to be brought back to as Time Travel does: all of its tables. */
export async function timeTravel(db: D1Database): Promise<() => Promise<void>> {
  const { results } = await db
    .prepare(
      `SELECT name, sql FROM sqlite_schema WHERE type = 'table'
         AND name NOT GLOB '_cf*' AND name NOT GLOB 'd1*' AND name NOT GLOB 'sqlite*'`,
    )
    .all<{ name: string; sql: string }>();
  const tables = await Promise.all(
    // What a trigger keeps comes after what it is kept of.
    results
      .toSorted((a, b) => Number(a.name === "archive_totals") - Number(b.name === "archive_totals"))
      .map(async ({ name, sql }) => ({ name, sql, rows: await db.prepare(`SELECT * FROM ${name}`).raw<unknown[]>() })),
  );
  return async () => {
    await loseDatabase(db);
    for (const { name, sql, rows } of tables) {
      await db.batch([
        db.prepare(sql.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS")),
        db.prepare(`DELETE FROM ${name}`),
        ...rows.map((row) =>
          db.prepare(`INSERT INTO ${name} VALUES (${row.map(() => "?")})`).bind(...row.map(asBytes)),
        ),
      ]);
    }
  };
}
