import type { Row } from "./rows.ts";

const DATE = /(?<date>\d{4}-\d\d-\d\d)/.source;
const CLOCK = /(?<minute>\d\d:\d\d)(?::(?<second>\d\d)(?:[.,](?<fraction>\d+))?)?/.source;
const OFFSET = /(?:[Zz]|(?<sign>[+-])(?<hours>[01]\d|2[0-3])(?::?(?<minutes>[0-5]\d))?)/.source;

/** ISO 8601 as it is met: a date, then perhaps a time of day, then perhaps an offset. */
const ISO = new RegExp(`^${DATE}(?:[Tt ]${CLOCK}(?: ?${OFFSET})?)?$`);

/** Unix time, in seconds or milliseconds. */
const UNIX = /^(?<whole>\d{1,15})(?:\.(?<fraction>\d+))?$/;

/** From this number on, unix time is in milliseconds: as seconds it were the year 5138, as ms it is 1973. */
const FIRST_IN_MS = 100_000_000_000;

/** The last millisecond that RFC 3339 can write. */
const LATEST = Date.UTC(9999, 11, 31, 23, 59, 59, 999);

const MINUTE_MS = 60_000;

/**
 * When a row of a file happened (ms), or nothing when its text cannot be read. It may be ISO 8601
 * with a `T` or a space, UTC without an offset, or unix time in seconds or milliseconds. Fractions
 * of any length are cut to milliseconds.
 *
 * @example parseTimestamp("2023-11-16 18:17:03.9799600") === Date.UTC(2023, 10, 16, 18, 17, 3, 979)
 */
export function parseTimestamp(text: string): number | undefined {
  const trimmed = text.trim();
  const time = parseUnix(trimmed) ?? parseIso(trimmed);
  return time === undefined || time > LATEST ? undefined : time;
}

/** The first three digits of a fraction of a second, so milliseconds. */
const milliseconds = (fraction = ""): string => fraction.slice(0, 3).padEnd(3, "0");

function parseUnix(text: string): number | undefined {
  const { whole, fraction } = UNIX.exec(text)?.groups ?? {};
  if (whole === undefined) return undefined;
  return Number(whole) >= FIRST_IN_MS ? Number(whole) : Number(whole + milliseconds(fraction));
}

function parseIso(text: string): number | undefined {
  const {
    date,
    minute = "00:00",
    second = "00",
    fraction,
    sign,
    hours = "0",
    minutes = "0",
  } = ISO.exec(text)?.groups ?? {};
  if (date === undefined) return undefined;
  const clock = `${date}T${minute}:${second}.${milliseconds(fraction)}Z`;
  const time = Date.parse(clock);
  // Date.parse takes the 30th of February for the 2nd of March.
  if (Number.isNaN(time) || new Date(time).toISOString() !== clock) return undefined;
  const offset = (Number(hours) * 60 + Number(minutes)) * MINUTE_MS;
  return sign === "-" ? time + offset : time - offset;
}

/** The newest readable timestamp (ms) in a column, or nothing when there is none. */
export async function newestTimestamp(rows: AsyncIterable<Row>, column: number): Promise<number | undefined> {
  let newest: number | undefined;
  for await (const { fields } of rows) {
    const timestamp = parseTimestamp(fields[column] ?? "");
    if (timestamp !== undefined && (newest === undefined || timestamp > newest)) newest = timestamp;
  }
  return newest;
}

/** What to add to every timestamp (ms) so that the newest lies just before `now` (ms). */
export const shiftToNow = (newest: number | undefined, now: number): number =>
  newest === undefined ? 0 : now - 1 - newest;
