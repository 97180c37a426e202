import type { Meter } from "../../src/domain/meter.ts";
import { DAY_MS, floorTo, HOUR_MS, type TimeRange } from "../../src/domain/window.ts";
import type { LogEntry } from "../../src/log/codec.ts";

/** What a summary should say, by adding events up one after the other, the way the rules read. */
export function fold(
  meter: Meter,
  events: readonly LogEntry[],
  range: TimeRange,
  windowLength: number,
): { start: number; value: bigint }[] {
  const bounds = Array.from(
    { length: Math.ceil((range.end - range.start) / windowLength) + 1 },
    (_, i) => range.start + i * windowLength,
  );
  return foldWindows(meter, events, [...bounds.slice(0, -1), range.end])
    .map(({ start, value }) => ({ start, value }))
    .toReversed();
}

/** Likewise by windows whose bounds are any times (ms), in their order, oldest first. */
export function foldWindows(
  meter: Meter,
  events: readonly LogEntry[],
  bounds: readonly number[],
): { start: number; end: number; value: bigint }[] {
  const kept = survivors(meter, events);
  return bounds.slice(0, -1).flatMap((start, i) => {
    const end = bounds[i + 1] ?? start;
    const inWindow = kept.filter(({ timestamp }) => timestamp >= start && timestamp < end);
    return inWindow.length === 0 ? [] : [{ start, end, value: aggregatedValue(meter, inWindow) }];
  });
}

/** With an event time window, the last received event of each window stands for it. */
function survivors(meter: Meter, events: readonly LogEntry[]): LogEntry[] {
  if (meter.eventTimeWindow === null) return [...events];
  const length = meter.eventTimeWindow === "day" ? DAY_MS : HOUR_MS;
  const kept = new Map<number, LogEntry>();
  for (const event of events.toSorted(byReceipt)) kept.set(floorTo(event.timestamp, length), event);
  return [...kept.values()];
}

function aggregatedValue(meter: Meter, events: readonly LogEntry[]): bigint {
  if (meter.formula === "count") return BigInt(events.length);
  if (meter.formula === "sum") return events.reduce((sum, { value }) => sum + BigInt(value), 0n);
  const values = events.map(({ value }) => value);
  if (meter.formula === "max") return BigInt(Math.max(...values));
  if (meter.formula === "min") return BigInt(Math.min(...values));
  const last = events.toSorted((a, b) => a.timestamp - b.timestamp || byReceipt(a, b)).at(-1);
  return BigInt(last?.value ?? 0);
}

/** Ids sort in receipt order. */
const byReceipt = (a: LogEntry, b: LogEntry): number => (a.id < b.id ? -1 : 1);
