import { HOUR_MS, MINUTE_MS, SECOND_MS } from "../domain/window.ts";

const RFC_3339 =
  /^(\d{4})-(\d\d)-(\d\d)T(?:([01]\d|2[0-3]):([0-5]\d):([0-5]\d|60))(?:\.(\d+))?(?:Z|([+-])([01]\d|2[0-3]):([0-5]\d))$/i;

/**
 * Reads a timestamp as RFC 3339 has it (section 5.6), in ms; nothing when it is none. Digits past the
 * millisecond are cut off. A leap second counts as the last millisecond before it: UTC in ms has no place for it.
 */
export function parseTimestamp(text: string): number | undefined {
  const parts = RFC_3339.exec(text);
  if (parts === null) return undefined;
  const [, year, month, day, hour, minute, second, fraction = "", sign = "+", offsetHour = 0, offsetMinute = 0] = parts;
  const date = startOfDay(Number(year), Number(month), Number(day));
  if (date === undefined) return undefined;
  const offset = Number(offsetHour) * HOUR_MS + Number(offsetMinute) * MINUTE_MS;
  return (
    date +
    Number(hour) * HOUR_MS +
    Number(minute) * MINUTE_MS +
    (second === "60" ? MINUTE_MS - 1 : Number(second) * SECOND_MS + Number(fraction.slice(0, 3).padEnd(3, "0"))) -
    (sign === "+" ? offset : -offset)
  );
}

/** When a day of the calendar begins in UTC (ms); nothing for one like 30 February. */
function startOfDay(year: number, month: number, day: number): number | undefined {
  const date = new Date(0);
  // Date.UTC would take the years 0 to 99 for those of the last century.
  date.setUTCFullYear(year, month - 1, day);
  return date.getUTCMonth() === month - 1 && date.getUTCDate() === day ? date.getTime() : undefined;
}
