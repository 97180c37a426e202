// What the log appends, the queue carries and the aggregator stores: entries in groups.
import { QUARTER_HOUR_MS } from "../domain/window.ts";

/** What a group holds; each kind has its own statements in D1, which run in this order. */
export const GROUP_KINDS = ["events", "cancellations", "rejections"] as const;

export type GroupKind = (typeof GROUP_KINDS)[number];

/** Where an entry belongs: in a slice of an events database. */
export type Place = { readonly database: number; readonly slice: number };

/** Entries of one kind for one slice of one database. */
export type Line = Place & {
  /** The quarter hours (since 1970) of the first and the last timestamp. */
  readonly from: number;
  readonly to: number;
  /** How many entries. */
  readonly count: number;
  /** The entries as JSON, joined by commas: brackets around any number of lines make one array. */
  readonly entries: string;
};

/**
 * Entries of one kind that one shard committed together, a line for each slice of each database, ordered by
 * database. Cut once, never again; the id is never used for another.
 */
export type Group = { readonly id: number; readonly kind: GroupKind; readonly lines: readonly Line[] };

/** A group's entries for one database: what is sent, applied and confirmed as one. */
export type Share = {
  readonly shard: string;
  /** The group's id. */
  readonly group: number;
  readonly kind: GroupKind;
  readonly database: number;
  /** Sent in vain before: it is applied by itself, so that it holds up no others. */
  readonly alone: boolean;
  readonly lines: readonly Line[];
};

/** The most a message may hold (bytes). The queue takes 128,000 with its own metadata. */
export const MESSAGE_BYTES = 120_000;

/** Room for the header of a share in a message, and for each of its lines (bytes). */
const HEADER_BYTES = 96;
const LINE_BYTES = 64;

/** An entry on its way into a group. */
export type PlacedEntry = Place & {
  /** ms */
  readonly timestamp: number;
  /** As JSON, shorter than a message. */
  readonly text: string;
};

/** Cuts entries into groups that each fit one message, also when it carries all of their shares. */
export function cutIntoGroups(entries: readonly PlacedEntry[]): Line[][] {
  const groups: Line[][] = [];
  let current: PlacedEntry[] = [];
  let bytes = 0;
  const inOrder = entries.toSorted((a, b) => a.database - b.database || a.slice - b.slice);
  for (const entry of inOrder) {
    const last = current.at(-1);
    const isSameLine = last?.database === entry.database && last.slice === entry.slice;
    const size = Buffer.byteLength(entry.text) + 1;
    const begun = HEADER_BYTES + LINE_BYTES + size;
    if (current.length > 0 && bytes + (isSameLine ? size : begun) > MESSAGE_BYTES) {
      groups.push(toLines(current));
      current = [];
      bytes = 0;
    }
    bytes += isSameLine && current.length > 0 ? size : begun;
    current.push(entry);
  }
  if (current.length > 0) groups.push(toLines(current));
  return groups;
}

function toLines(entries: readonly PlacedEntry[]): Line[] {
  return [...Map.groupBy(entries, ({ database, slice }) => `${database}:${slice}`).values()].flatMap((ofLine) => {
    const [first] = ofLine;
    if (first === undefined) return [];
    const { database, slice } = first;
    const quarters = ofLine.map(({ timestamp }) => Math.floor(timestamp / QUARTER_HOUR_MS));
    const [from, to] = [Math.min(...quarters), Math.max(...quarters)];
    return [{ database, slice, from, to, count: ofLine.length, entries: ofLine.map(({ text }) => text).join(",") }];
  });
}

/** Bytes that a share takes in a message, at most. */
export const sizeOf = ({ lines }: Pick<Share, "lines">): number =>
  lines.reduce((sum, { entries }) => sum + Buffer.byteLength(entries) + LINE_BYTES, HEADER_BYTES);

/** The share of one of a group's databases; nothing when it has none there. */
export function shareOf(
  shard: string,
  { id, kind, lines }: Group,
  database: number,
  alone: boolean,
): Share | undefined {
  const own = lines.filter((line) => line.database === database);
  return own.length === 0 ? undefined : { shard, group: id, kind, database, alone, lines: own };
}

/** The layout of a message, and of the entries in it. */
const VERSION = 1;

type Header = Omit<Share, "lines"> & { readonly version: number; readonly lines: readonly number[][] };

/** A queue message: for each share a header line, and a line for each of its lines. JSON has no raw line breaks. */
export const encodeMessage = (shares: readonly Share[]): string =>
  shares
    .flatMap(({ lines, ...share }) => {
      const header: Header = {
        version: VERSION,
        ...share,
        lines: lines.map(({ slice, from, to, count }) => [slice, from, to, count]),
      };
      return [JSON.stringify(header), ...lines.map(({ entries }) => entries)];
    })
    .join("\n");

/** Throws on anything that `encodeMessage` did not write. */
export function decodeMessage(text: string): Share[] {
  const texts = text.split("\n");
  const shares: Share[] = [];
  for (let i = 0; i < texts.length; ) {
    const header = readHeader(texts[i++] ?? "");
    const { shard, group, kind, database, alone } = header;
    const lines = header.lines.map(([slice, from, to, count]) => {
      const entries = texts[i++];
      const numbers = [slice, from, to, count];
      if (!entries || !numbers.every(Number.isSafeInteger)) throw new Error(UNREADABLE);
      return { database, slice, from, to, count, entries } as Line;
    });
    shares.push({ shard, group, kind, database, alone, lines });
  }
  return shares;
}

const UNREADABLE = "a message that is not shares of a log's groups";

function readHeader(line: string): Header {
  const header = parse(line);
  const isHeader =
    header?.version === VERSION &&
    typeof header.shard === "string" &&
    Number.isSafeInteger(header.group) &&
    Number.isSafeInteger(header.database) &&
    typeof header.alone === "boolean" &&
    GROUP_KINDS.some((known) => known === header.kind) &&
    Array.isArray(header.lines) &&
    header.lines.every(Array.isArray);
  if (!isHeader) throw new Error(UNREADABLE);
  return header as Header;
}

function parse(line: string): Partial<Header> | undefined {
  try {
    return JSON.parse(line);
  } catch {
    // The parser's own words quote what it was given, and errors go to a log.
    return undefined;
  }
}
