// How a slice's events are cut into segments: those on time, and the others by the UTC day of their timestamps.
import { TIMESTAMP_AHEAD_MS } from "../domain/limits.ts";
import { DAY_MS, floorTo, HOUR_MS, receiptOf, type TimeRange } from "../domain/window.ts";

/**
 * A part of a slice's events whose timestamps are of one UTC day, so that a file's `day=` says exactly what is in it.
 * Events on time make one segment, so that what arrives late does not widen the files that most reads need.
 */
export type Segment = {
  readonly isLate: boolean;
  /** Since 1970, in UTC. */
  readonly day: number;
};

/** Whose timestamps a segment has: those of `within` without those of `except` (ms). */
export type Timestamps = { readonly within: TimeRange; readonly except: TimeRange };

/** How long after its timestamp an event that was received early in a slice is on time still (ms). */
const ON_TIME_MS = HOUR_MS;

const NONE: TimeRange = { start: 0, end: 0 };

/** The UTC day of a time (ms), since 1970. */
export const dayOf = (time: number): number => Math.floor(time / DAY_MS);

/** The timestamps (ms) that a slice's events on time have, all of one UTC day. */
export function onTimeOf(slice: number): TimeRange {
  const { start, end } = receiptOf(slice);
  const midnight = floorTo(start, DAY_MS);
  return { start: Math.max(midnight, start - ON_TIME_MS), end: Math.min(midnight + DAY_MS, end + TIMESTAMP_AHEAD_MS) };
}

/** The first segment of a slice; the late ones follow it, in the order of their days. */
export const firstSegment = (slice: number): Segment => ({ isLate: false, day: dayOf(onTimeOf(slice).start) });

/** The order of a slice's segments: less than 0 when the one comes first, 0 when it is the other. */
export const compareSegments = (one: Segment, other: Segment): number =>
  Number(one.isLate) - Number(other.isLate) || one.day - other.day;

export function timestampsOf(slice: number, { isLate, day }: Segment): Timestamps {
  const onTime = onTimeOf(slice);
  if (!isLate) return { within: onTime, except: NONE };
  return { within: { start: day * DAY_MS, end: (day + 1) * DAY_MS }, except: onTime };
}
