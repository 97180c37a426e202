import type { Entries } from "../../src/aggregate/entries.ts";
import { sliceOf } from "../../src/domain/window.ts";
import {
  type LogCancellation,
  type LogEntry,
  type LogRejection,
  writeCancellation,
  writeEvent,
  writeRejection,
} from "../../src/log/codec.ts";
import { bodiesOf, cutIntoGroups, type Line, linesOf as linesOfBody, type Share } from "../../src/log/groups.ts";
import { deflate } from "../../src/log/packed.ts";
import { NOON } from "./builders.ts";

/** Entries as a log writes them, each into the slice of its receipt; what is text stays as it is. */
const linesOf = <T extends { readonly received: number; readonly timestamp?: number }>(
  entries: readonly (T | string)[],
  write: (entry: T) => string,
): Line[] =>
  cutIntoGroups(
    entries.map((entry) =>
      typeof entry === "string"
        ? { database: 0, slice: sliceOf(NOON), lane: 0, timestamp: NOON, text: entry }
        : {
            database: 0,
            slice: sliceOf(entry.received),
            lane: 0,
            timestamp: entry.timestamp ?? entry.received,
            text: write(entry),
          },
    ),
  ).flatMap((group) => bodiesOf(group).flatMap(linesOfBody));

export const eventLines = (entries: readonly (LogEntry | string)[]): Line[] => linesOf(entries, writeEvent);

export const rejectionLines = (entries: readonly (LogRejection | string)[]): Line[] => linesOf(entries, writeRejection);

/** The cancellation of an event, a moment after NOON, by key 2, in the slice of its event. */
export const cancellationLines = (events: readonly LogEntry[]): Line[] =>
  linesOf<LogCancellation>(
    events.map((event) => ({ ...event, cancelled: NOON + 1, cancelledBy: 2 })),
    writeCancellation,
  );

/** Lines as the aggregator applies them. */
export const toEntries = (kind: Entries["kind"], lines: readonly Line[]): Entries[] =>
  lines.map((line) => ({ ...line, kind }));

let group = Date.UTC(2026, 10, 1) * 1_000;

/** A share of a new group of a log. */
export function aShare(shard: string, kind: Share["kind"], lines: readonly Line[]): Share {
  const text = lines.map(({ entries }) => entries).join("\n");
  return {
    shard,
    group: ++group,
    kind,
    database: 0,
    alone: false,
    lines: lines.map(({ slice, from, to, count }) => ({ slice, from, to, count })),
    size: Buffer.byteLength(text),
    packed: deflate(text),
  };
}
