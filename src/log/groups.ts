import type { AdmittedEvent } from "../domain/event.ts";

/** An event as the log keeps it and the queue carries it to the aggregator. Times in ms. */
export type LogEntry = Omit<AdmittedEvent, "timestamp"> & {
  readonly id: string;
  readonly identifier: string;
  readonly timestamp: number;
  /** When the log accepted it; within a shard it never goes back. */
  readonly received: number;
};

/**
 * An event that was cancelled, whole, so that it does not matter whether it or its cancellation
 * reaches D1 first.
 */
export type LogCancellation = LogEntry & {
  /** When it was cancelled (ms). */
  readonly cancelled: number;
};

/** An event of a stream that was refused, on its way to an error report. */
export type LogRejection = {
  readonly id: string;
  readonly livemode: boolean;
  /** The meter it was for; null when there is none of that name. */
  readonly meter: string | null;
  /** Why: one of the error report's codes. */
  readonly code: string;
  readonly message: string;
  readonly identifier: string;
  /** ms */
  readonly received: number;
};

/** What a group holds; each kind has its own statements in D1, which run in this order. */
export const GROUP_KINDS = ["events", "cancellations", "rejections"] as const;

export type GroupKind = (typeof GROUP_KINDS)[number];

/** Entries of one kind that one shard committed together. Cut once, never again; the id is never used for another. */
export type Group = {
  readonly shard: number;
  readonly id: number;
  readonly kind: GroupKind;
  /** The entries as JSON, joined by commas: brackets around any number of groups make one array. */
  readonly entries: string;
};

/** The most a message may hold (bytes). The queue takes 128,000 with its own metadata. */
export const MESSAGE_BYTES = 120_000;

/** Room for one group's header line in a message (bytes). */
export const HEADER_BYTES = 96;

/** Entries joined by commas, and how many they are. */
export type PackedEntries = { readonly entries: string; readonly count: number };

/** Cuts entries (each as JSON, shorter than a message) into groups that each fit one message. */
export const cutIntoGroups = (entries: readonly string[]): PackedEntries[] =>
  packByBytes(entries, MESSAGE_BYTES - HEADER_BYTES);

/** Joins texts by commas, in their order, into as few as fit `limit` bytes each; one that is longer stands alone. */
export function packByBytes(texts: readonly string[], limit: number): PackedEntries[] {
  // Nearly always they fit as they are, and one long text is measured faster than many short ones.
  const all = texts.join(",");
  if (texts.length > 0 && Buffer.byteLength(all) < limit) return [{ entries: all, count: texts.length }];
  const packed: PackedEntries[] = [];
  let current: string[] = [];
  let bytes = 0;
  for (const text of texts) {
    const size = Buffer.byteLength(text) + 1;
    if (bytes + size > limit && current.length > 0) {
      packed.push({ entries: current.join(","), count: current.length });
      current = [];
      bytes = 0;
    }
    current.push(text);
    bytes += size;
  }
  if (current.length > 0) packed.push({ entries: current.join(","), count: current.length });
  return packed;
}

/** A queue message: for each group a header line and a line of entries. JSON has no raw line breaks. */
export const encodeMessage = (groups: readonly Group[]): string =>
  groups.map(({ shard, id, kind, entries }) => `${JSON.stringify({ shard, id, kind })}\n${entries}`).join("\n");

/** Throws on anything that `encodeMessage` did not write. */
export function decodeMessage(text: string): Group[] {
  const lines = text.split("\n");
  const groups: Group[] = [];
  for (let i = 0; i < lines.length; i += 2) {
    const { shard, id, kind } = readHeader(lines[i] ?? "");
    const entries = lines[i + 1];
    if (!Number.isSafeInteger(shard) || !Number.isSafeInteger(id) || !isGroupKind(kind) || !entries) {
      throw new Error("a message that is not groups of a log");
    }
    groups.push({ shard: Number(shard), id: Number(id), kind, entries });
  }
  return groups;
}

function readHeader(line: string): Record<string, unknown> {
  try {
    return JSON.parse(line);
  } catch {
    // The parser's own words quote what it was given, and errors go to a log.
    throw new Error("a message that is not groups of a log");
  }
}

const isGroupKind = (kind: unknown): kind is GroupKind => GROUP_KINDS.some((known) => known === kind);
