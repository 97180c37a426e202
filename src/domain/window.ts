import type { MeteringError } from "./errors.ts";
import { err, ok, type Result } from "./result.ts";

export const SECOND_MS = 1_000;
export const MINUTE_MS = 60 * SECOND_MS;
export const QUARTER_HOUR_MS = 15 * MINUTE_MS;
export const HOUR_MS = 60 * MINUTE_MS;
export const DAY_MS = 24 * HOUR_MS;

/** What a summary's range is cut into: not at all, UTC hours, or UTC days. */
export type Grouping = "none" | "hour" | "day";

/** Half open: an event at `start` belongs to it, one at `end` does not. Both in ms. */
export type TimeRange = { readonly start: number; readonly end: number };

/** Windows of one length, side by side: from `start` to `end` is a multiple of `length` (ms). */
export type Run = TimeRange & { readonly length: number };

/** The window of some runs that holds a time (ms). */
export function windowAt(runs: readonly Run[], time: number): TimeRange | undefined {
  const run = runs.find(({ start, end }) => time >= start && time < end);
  if (run === undefined) return undefined;
  const start = run.start + floorTo(time - run.start, run.length);
  return { start, end: start + run.length };
}

/** The windows of a run, in their order. */
export const windowsIn = ({ start, end, length }: Run): TimeRange[] =>
  Array.from({ length: (end - start) / length }, (_, i) => ({
    start: start + i * length,
    end: start + (i + 1) * length,
  }));

/** The windows of some runs that are from one bound of theirs to another (ms, half open). */
export const runsWithin = (runs: readonly Run[], { start, end }: TimeRange): Run[] =>
  runs.map((run) => ({ ...run, start: Math.max(run.start, start), end: Math.min(run.end, end) })).filter(isNotEmpty);

/** The length of one window of a grouped summary (ms). */
export const windowLength = (grouping: "hour" | "day"): number => (grouping === "day" ? DAY_MS : HOUR_MS);

/** The start of the window of `length` ms that holds `time`. */
export const floorTo = (time: number, length: number): number => time - (((time % length) + length) % length);

/** The first window start at or after `time`. */
export const ceilTo = (time: number, length: number): number => -floorTo(-time, length);

/**
 * The range of a summary request (docs/wire-contract.md, section 5): any seconds, or aligned with its
 * grouping, and not empty. Takes unix seconds, gives ms.
 */
export function summaryRange(
  startSeconds: number,
  endSeconds: number,
  grouping: Grouping,
): Result<TimeRange, MeteringError> {
  if (grouping !== "none") {
    const alignment = windowLength(grouping) / SECOND_MS;
    for (const [param, seconds] of [
      ["start_time", startSeconds],
      ["end_time", endSeconds],
    ] as const) {
      const expectedSeconds = floorTo(seconds, alignment);
      if (seconds !== expectedSeconds)
        return err({ reason: "misaligned_time", param, seconds, expectedSeconds, grouping });
    }
  }
  if (startSeconds >= endSeconds) {
    return err({ reason: "invalid_field", message: "start_time must be before end_time.", param: "end_time" });
  }
  return ok({ start: startSeconds * SECOND_MS, end: endSeconds * SECOND_MS });
}

/**
 * Cuts a range where quarter hours begin: the whole ones, which rows of sums answer, and what is left over
 * at either end, which only the events themselves can answer. Edges may be empty.
 */
export function splitAtQuarterHours({ start, end }: TimeRange): {
  readonly whole: TimeRange;
  readonly edges: readonly TimeRange[];
} {
  const first = ceilTo(start, QUARTER_HOUR_MS);
  const last = floorTo(end, QUARTER_HOUR_MS);
  if (first >= last) return { whole: { start: end, end }, edges: [{ start, end }].filter(isNotEmpty) };
  return {
    whole: { start: first, end: last },
    edges: [
      { start, end: first },
      { start: last, end },
    ].filter(isNotEmpty),
  };
}

const isNotEmpty = ({ start, end }: TimeRange): boolean => start < end;

/** How long a slice of an events database takes new events (ms). */
const SLICE_MS = 12 * HOUR_MS;

/** The slice that takes an event received at `time` (ms), named by its first hour since 1970. */
export const sliceOf = (time: number): number => floorTo(time, SLICE_MS) / HOUR_MS;

/** When a slice takes events (ms, half open). */
export const receiptOf = (slice: number): TimeRange => ({ start: slice * HOUR_MS, end: slice * HOUR_MS + SLICE_MS });
