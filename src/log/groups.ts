// What the log appends, the queue carries and the aggregator stores: entries in groups.
import { LANES } from "../domain/placement.ts";
import { QUARTER_HOUR_MS } from "../domain/window.ts";
import { deflate, inflate } from "./packed.ts";

/** What a group holds; each kind has its own statements in D1, which run in this order. */
export const GROUP_KINDS = ["events", "cancellations", "rejections"] as const;

export type GroupKind = (typeof GROUP_KINDS)[number];

/** A kind by its place among them, as it is stored. Throws for a place that none has. */
export function kindAt(place: number): GroupKind {
  const kind = GROUP_KINDS[place];
  if (kind === undefined) throw new Error("an unknown kind of group");
  return kind;
}

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

/** A line with its entries by lane: a text for each lane, as in `Line`, which is empty where the lane has none. */
type CutLine = Omit<Line, "entries"> & { readonly lanes: readonly string[] };

/** A group's entries for one database, as the log keeps them and the queue carries them. */
export type Body = {
  readonly database: number;
  /** Of each line everything but its entries. */
  readonly lines: readonly Omit<Line, "database" | "entries">[];
  /** Bytes of all entries as text. */
  readonly size: number;
  /** The entries, deflated: a line of text for each line. */
  readonly packed: Uint8Array;
};

/**
 * Entries of one kind that one shard committed together, ordered by database. Cut once, never again; the id is never
 * used for another.
 */
export type Group = { readonly id: number; readonly kind: GroupKind; readonly bodies: readonly Body[] };

/** A group's entries for one database: what is sent, applied and confirmed as one. */
export type Share = Body & {
  readonly shard: string;
  /** The group's id. */
  readonly group: number;
  readonly kind: GroupKind;
  /** Sent in vain before: it is applied by itself, so that it holds up no others. */
  readonly alone: boolean;
};

/** The most that the entries of a group may take as text (bytes), but for empty lanes: deflated or not, they fit one message. */
export const GROUP_BYTES = 110_000;

/** Lines of fewer entries are not cut into lanes: it would save no time, and each cut costs some two bytes. */
const LEAST_TO_CUT = 16;

/** What stands between lanes, and nowhere in JSON that `JSON.stringify` wrote. */
const CUT = "\t";

/** An entry on its way into a group. */
export type PlacedEntry = Place & {
  /** See `laneOf`. */
  readonly lane: number;
  /** ms */
  readonly timestamp: number;
  /** As JSON, shorter than a group. */
  readonly text: string;
};

/** Cuts entries into groups, each ordered by database, slice and lane. */
export function cutIntoGroups<E extends PlacedEntry>(entries: readonly E[]): E[][] {
  const groups: E[][] = [];
  let bytes = GROUP_BYTES;
  const ordered = entries.toSorted((a, b) => a.database - b.database || a.slice - b.slice || a.lane - b.lane);
  for (const entry of ordered) {
    const size = Buffer.byteLength(entry.text) + 1;
    if (bytes + size > GROUP_BYTES) {
      groups.push([]);
      bytes = 0;
    }
    groups.at(-1)?.push(entry);
    bytes += size;
  }
  return groups;
}

/** The bodies of a group: for each of its databases a line for each slice. */
export const bodiesOf = (entries: readonly PlacedEntry[]): Body[] =>
  [...Map.groupBy(entries, ({ database }) => database)].map(([database, ofDatabase]) => {
    const bySlice = [...Map.groupBy(ofDatabase, ({ slice }) => slice)];
    const text = bySlice.map(([, ofLine]) => textOf(ofLine)).join("\n");
    return {
      database,
      lines: bySlice.map(([slice, ofLine]) => lineOf(slice, ofLine)),
      size: Buffer.byteLength(text),
      packed: deflate(text),
    };
  });

function lineOf(slice: number, entries: readonly PlacedEntry[]): Body["lines"][number] {
  const quarters = entries.map(({ timestamp }) => Math.floor(timestamp / QUARTER_HOUR_MS));
  const [from, to] = [Math.min(...quarters), Math.max(...quarters)];
  return { slice, from, to, count: entries.length };
}

/** A line's entries as text, by lane when there are many. */
function textOf(entries: readonly PlacedEntry[]): string {
  const joined = (some: readonly PlacedEntry[]): string => some.map(({ text }) => text).join(",");
  if (entries.length < LEAST_TO_CUT) return joined(entries);
  const byLane = Map.groupBy(entries, ({ lane }) => lane);
  return Array.from({ length: LANES }, (_, lane) => joined(byLane.get(lane) ?? [])).join(CUT);
}

/** The lines of a body with their entries. Throws for a body that `bodiesOf` did not make. */
export const linesOf = (body: Body): Line[] =>
  cutLinesOf(body).map(({ lanes, ...line }) => ({ ...line, entries: lanes.filter((text) => text !== "").join(",") }));

/** Likewise, by lane; the entries of a line that was not cut are all in its first. */
export function cutLinesOf({ database, lines, packed }: Body): CutLine[] {
  const texts = inflate(packed).split("\n");
  if (texts.length !== lines.length) throw new Error("a body with other lines than it says");
  return lines.map((line, index) => ({ database, ...line, lanes: texts[index]?.split(CUT) ?? [] }));
}

/** How many entries a group or one of its bodies has. */
export const countOf = (bodies: readonly Pick<Body, "lines">[]): number =>
  bodies.reduce((sum, { lines }) => sum + lines.reduce((inBody, { count }) => inBody + count, 0), 0);

/** The share of one of a group's databases; nothing when it has none there. */
export function shareOf(
  shard: string,
  { id: group, kind, bodies }: Group,
  database: number,
  alone: boolean,
): Share | undefined {
  const body = bodies.find((each) => each.database === database);
  return body && { shard, group, kind, alone, ...body };
}
