// How full databases and logs are, hour by hour: what tells how long they last.
import { DAY_MS, HOUR_MS } from "../domain/window.ts";

/** What a database or a shard of a log had in an hour. */
export type Size = {
  readonly name: string;
  /** Since 1970. */
  readonly hour: number;
  readonly bytes: number;
  /** Entries that a shard has ever taken; 0 for a database. */
  readonly entries: number;
};

/** How long sizes are kept (hours). */
const KEPT_HOURS = 48;

const READ = "SELECT name, hour, bytes, entries FROM sizes ORDER BY name, hour";

const IS_NOTED = "SELECT 1 FROM sizes WHERE hour = ?1 LIMIT 1";

const NOTE = `
  INSERT INTO sizes (name, hour, bytes, entries)
  SELECT value ->> 'name', value ->> 'hour', value ->> 'bytes', value ->> 'entries' FROM json_each(?1)
  WHERE true
  ON CONFLICT DO NOTHING`;

const FORGET = "DELETE FROM sizes WHERE hour < ?1";

/** The hour (since 1970) of a time (ms). */
export const hourOf = (time: number): number => Math.floor(time / HOUR_MS);

/** Whether the sizes of an hour are noted. */
export const areNoted = async (db: D1Database, hour: number): Promise<boolean> =>
  (await db.prepare(IS_NOTED).bind(hour).first()) !== null;

/** Notes the sizes of an hour, and forgets those of two days ago. */
export async function noteSizes(db: D1Database, hour: number, sizes: readonly Size[]): Promise<void> {
  await db.batch([db.prepare(NOTE).bind(JSON.stringify(sizes)), db.prepare(FORGET).bind(hour - KEPT_HOURS)]);
}

/** The sizes of the last two days, oldest first, by name. */
export async function readSizes(db: D1Database): Promise<ReadonlyMap<string, readonly Size[]>> {
  return Map.groupBy((await db.prepare(READ).all<Size>()).results, ({ name }) => name);
}

/** What grew by how much in a day, at the pace since the oldest size of the last `hours`; nothing while that is unknown. */
export function perDay(
  sizes: readonly Size[] | undefined,
  of: "bytes" | "entries",
  current: { readonly value: number; readonly now: number },
  hours: number,
): number | undefined {
  const hour = hourOf(current.now);
  const first = sizes?.find((size) => size.hour >= hour - hours && size.hour < hour);
  if (first === undefined) return undefined;
  return ((current.value - first[of]) / (current.now - first.hour * HOUR_MS)) * DAY_MS;
}

type DaysLeft = (
  sizes: readonly Size[] | undefined,
  bytes: number,
  highWater: number,
  now: number,
) => number | undefined;

/** The days until something is full at its pace of the last `hours`; nothing while it does not grow, or its pace is unknown. */
const daysLeft =
  (hours: number): DaysLeft =>
  (sizes, bytes, highWater, now) => {
    const pace = perDay(sizes, "bytes", { value: bytes, now }, hours);
    return pace === undefined || pace <= 0 ? undefined : Math.max(0, highWater - bytes) / pace;
  };

export const databaseDaysLeft = daysLeft(24);

/** A log grows with its traffic, and shrinks when a partition is dropped: its last hours tell more than its last day. */
export const logDaysLeft = daysLeft(2);
