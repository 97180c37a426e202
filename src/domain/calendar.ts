// Windows of a time zone's clock: hours, days, weeks, months, and months from an anchor. What a zone's clock shows is
// Intl's to say. Since 1980 every zone has been a multiple of a quarter hour away from UTC, and no event is older.
import { err, ok, type Result } from "./result.ts";
import { ceilTo, DAY_MS, floorTo, HOUR_MS, MINUTE_MS, type Run, SECOND_MS, type TimeRange } from "./window.ts";

export const SPANS = ["hour", "day", "week", "month"] as const;

export type Span = (typeof SPANS)[number];

/** The windows that a range is cut into. */
export type Calendar = {
  readonly span: Span;
  /** An IANA name. */
  readonly zone: string;
  /** For months: they begin on its day and at its time, by the zone's clock (ms). */
  readonly anchor?: number | undefined;
};

/** A zone's clock shows `offset` more than UTC from `start` to `end` (all ms). */
type Stretch = TimeRange & { readonly offset: number };

/** From 1980 on, for at most ten years (ms). */
const EARLIEST = Date.UTC(1980, 0);
const LONGEST_MS = 3_660 * DAY_MS;

/** Clocks change no more often than this, there and back (ms); the closest that any zone came is a week less an hour. */
const STEP_MS = 6 * DAY_MS;

/** The first Monday since 1970 (ms). */
const MONDAY_MS = 4 * DAY_MS;

const formats = new Map<string, Intl.DateTimeFormat>();

function formatOf(zone: string): Intl.DateTimeFormat {
  const known = formats.get(zone);
  if (known !== undefined) return known;
  const made = new Intl.DateTimeFormat("en-US", { timeZone: zone, timeZoneName: "longOffset" });
  if (formats.size > 100) formats.clear();
  formats.set(zone, made);
  return made;
}

/** Whether text names a time zone. Intl takes offsets too, which need not be whole quarter hours. */
export function isZone(zone: string): boolean {
  if (!/^[A-Za-z]/.test(zone)) return false;
  try {
    return formatOf(zone) !== undefined;
  } catch {
    return false;
  }
}

/** How much a zone's clock shows more than UTC at a time (both ms). */
function offsetAt(zone: string, time: number): number {
  const name = formatOf(zone).format(time);
  const [, sign, hours, minutes, seconds = "0"] = /GMT([+-])(\d\d):(\d\d)(?::(\d\d))?$/.exec(name) ?? [];
  if (hours === undefined) return 0;
  const offset = Number(hours) * HOUR_MS + Number(minutes) * MINUTE_MS + Number(seconds) * SECOND_MS;
  return sign === "-" ? -offset : offset;
}

/** The stretches of a range within which a zone's clock does not change. */
function stretchesOf(zone: string, { start, end }: TimeRange): Stretch[] {
  const stretches: Stretch[] = [];
  let from = start;
  let offset = offsetAt(zone, start);
  for (let time = start; time < end; time += STEP_MS) {
    const next = Math.min(time + STEP_MS, end);
    const after = offsetAt(zone, next);
    if (after === offset) continue;
    const change = changeBetween(zone, time, next, offset);
    stretches.push({ start: from, end: change, offset });
    from = change;
    offset = after;
  }
  return [...stretches, { start: from, end, offset }];
}

/** When a zone's clock changes, to the second: `before` is its offset at `from`, and another one at `to`. */
function changeBetween(zone: string, from: number, to: number, before: number): number {
  let [low, high] = [Math.floor(from / SECOND_MS), Math.ceil(to / SECOND_MS)];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (offsetAt(zone, middle * SECOND_MS) === before) low = middle;
    else high = middle;
  }
  return high * SECOND_MS;
}

/**
 * Cuts a range (ms) into windows. A window begins when the zone's clock first shows its beginning, or, where clocks jump
 * over that, when it first shows a later time: so days have 23 to 25 hours, and one that a zone skipped does not exist.
 * An hour begins at each full hour of the clock and where clocks change by less than an hour, so that none is longer
 * than 60 minutes. Weeks begin on Monday. With an anchor, months begin on its day of the month and at its time of day;
 * in a month without that day, on its last. The first and the last window are cut where the range is. Yields
 * what is wrong with a range that is too early or too long.
 */
export function windowsOf(range: TimeRange, calendar: Calendar): Result<Run[], string> {
  if (range.start < EARLIEST || range.end - range.start > LONGEST_MS) {
    return err(`Windows can be had from 1980 on, and of ranges of up to ${LONGEST_MS / DAY_MS} days.`);
  }
  // What a clock showed before it was set back counts too.
  const stretches = stretchesOf(calendar.zone, { start: range.start - 2 * DAY_MS, end: range.end });
  const begins = calendar.span === "hour" ? hoursOf(stretches) : beginsOf(stretches, calendar);
  return ok(toRuns([range.start, ...begins.filter((time) => time > range.start && time < range.end), range.end]));
}

/** When hours begin. */
function hoursOf(stretches: readonly Stretch[]): number[] {
  return stretches.flatMap(({ start, end, offset }, i) => {
    const change = offset - (stretches[i - 1]?.offset ?? offset);
    const begins = change % HOUR_MS === 0 ? [] : [start];
    for (let time = ceilTo(start + offset, HOUR_MS) - offset; time < end; time += HOUR_MS) begins.push(time);
    return [...new Set(begins)];
  });
}

/** When days, weeks or months begin. */
function beginsOf(stretches: readonly Stretch[], calendar: Calendar): number[] {
  const begins: number[] = [];
  let i = 0;
  for (const shown of shownBy(stretches, calendar)) {
    // Times that the clock shows come in order, so no stretch before can be the first to reach one.
    while ((stretches[i]?.end ?? 0) + (stretches[i]?.offset ?? 0) <= shown && i < stretches.length) i++;
    const stretch = stretches[i];
    if (stretch === undefined) break;
    const begin = Math.max(stretch.start, shown - stretch.offset);
    if (begin !== begins.at(-1)) begins.push(begin);
  }
  return begins;
}

/** What a clock shows when windows begin, as if it were UTC (ms): all from its first stretch to its last. */
function* shownBy(stretches: readonly Stretch[], { span, zone, anchor }: Calendar): Generator<number> {
  const first = (stretches[0]?.start ?? 0) + (stretches[0]?.offset ?? 0);
  const last = Math.max(...stretches.map(({ end, offset }) => end + offset));
  if (span === "month") {
    yield* monthsFrom(anchor === undefined ? 0 : anchor + offsetAt(zone, anchor), first, last);
    return;
  }
  const length = span === "week" ? 7 * DAY_MS : DAY_MS;
  const origin = span === "week" ? MONDAY_MS : 0;
  for (let shown = origin + floorTo(first - origin, length); shown <= last; shown += length) yield shown;
}

/** The day and time of an anchor in each month that has a part from `first` to `last` (all ms). */
function* monthsFrom(anchor: number, first: number, last: number): Generator<number> {
  const day = new Date(anchor).getUTCDate();
  const time = anchor - floorTo(anchor, DAY_MS);
  const from = new Date(first);
  for (let month = from.getUTCMonth(); ; month++) {
    const year = from.getUTCFullYear();
    const days = new Date(Date.UTC(year, month + 1, 0)).getUTCDate();
    const shown = Date.UTC(year, month, Math.min(day, days)) + time;
    if (shown > last) return;
    yield shown;
  }
}

/** Windows by their bounds (ms), those of equal length that are side by side as one run. */
function toRuns(bounds: readonly number[]): Run[] {
  const runs: { start: number; end: number; length: number }[] = [];
  let start: number | undefined;
  for (const end of bounds) {
    if (start !== undefined) {
      const last = runs.at(-1);
      if (last?.length === end - start) last.end = end;
      else runs.push({ start, end, length: end - start });
    }
    start = end;
  }
  return runs;
}
