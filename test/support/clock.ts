// Windows of a zone's clock the slow way: by looking at it every quarter of an hour.
import type { Calendar } from "../../src/domain/calendar.ts";
import { DAY_MS, HOUR_MS, QUARTER_HOUR_MS, type TimeRange } from "../../src/domain/window.ts";

/** What a zone's clock shows, as if it were UTC (ms). */
function shownIn(zone: string): (time: number) => number {
  const format = new Intl.DateTimeFormat("en-US", {
    ...{ timeZone: zone, hourCycle: "h23", year: "numeric", month: "numeric", day: "numeric" },
    ...{ hour: "numeric", minute: "numeric", second: "numeric" },
  } as const);
  return (time) => {
    const parts = Object.fromEntries(format.formatToParts(time).map(({ type, value }) => [type, Number(value)]));
    const { year = 0, month = 0, day = 0, hour, minute, second } = parts;
    return Date.UTC(year, month - 1, day, hour, minute, second);
  };
}

/** The window that a time of a clock is in, as a number that rises. */
function windowOf(shown: number, { span, anchor }: Calendar, shownAtAnchor: number): number {
  const date = new Date(shown);
  if (span === "hour") return Math.floor(shown / HOUR_MS);
  if (span === "day") return Math.floor(shown / DAY_MS);
  if (span === "week") return Math.floor((shown / DAY_MS - 4) / 7);
  const month = date.getUTCFullYear() * 12 + date.getUTCMonth();
  if (anchor === undefined) return month;
  const [wanted, last] = [new Date(shownAtAnchor).getUTCDate(), new Date(Date.UTC(0, month + 1, 0)).getUTCDate()];
  const [sinceMidnight, from] = [shown % DAY_MS, shownAtAnchor % DAY_MS];
  const isAfter =
    date.getUTCDate() > Math.min(wanted, last) ||
    (date.getUTCDate() === Math.min(wanted, last) && sinceMidnight >= from);
  return isAfter ? month : month - 1;
}

/** Bounds by looking at the clock every quarter of an hour: a window begins when its number first shows. */
export function looked({ start, end }: TimeRange, calendar: Calendar): number[] {
  const shown = shownIn(calendar.zone);
  const atAnchor = calendar.anchor === undefined ? 0 : shown(calendar.anchor);
  const found = [start];
  let greatest = Number.NEGATIVE_INFINITY;
  let before = shown(start - QUARTER_HOUR_MS);
  for (let time = start - 3 * DAY_MS; time < end; time += QUARTER_HOUR_MS) {
    const now = shown(time);
    const change = now - before - QUARTER_HOUR_MS;
    before = now;
    const number = windowOf(now, calendar, atAnchor);
    const begins = calendar.span === "hour" ? now % HOUR_MS === 0 || change % HOUR_MS !== 0 : number > greatest;
    greatest = Math.max(greatest, number);
    if (begins && time > start) found.push(time);
  }
  return [...found, end];
}
