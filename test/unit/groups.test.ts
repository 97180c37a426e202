import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { LIMITS } from "../../src/domain/limits.ts";
import { LANES } from "../../src/domain/placement.ts";
import { QUARTER_HOUR_MS } from "../../src/domain/window.ts";
import { readEvents, writeCancellation, writeEvent } from "../../src/log/codec.ts";
import {
  bodiesOf,
  countOf,
  cutIntoGroups,
  cutLinesOf,
  GROUP_BYTES,
  type Line,
  linesOf,
  type PlacedEntry,
  shareOf,
} from "../../src/log/groups.ts";
import { encodeMessage, MESSAGE_BYTES } from "../../src/log/message.ts";
import { aLogEntry, NOON } from "../support/builders.ts";

const UUID = "01234567-89ab-cdef-0123-456789abcdef";

/** Where entries are placed in most tests. */
const PLACE = { database: 0, slice: 498_792, lane: 0, timestamp: NOON };

const placed = (text: string, changes: Partial<PlacedEntry> = {}): PlacedEntry => ({ ...PLACE, text, ...changes });

/** A line of entries in PLACE. */
const aLine = (entries: string, changes: Partial<Line> = {}): Line => {
  const quarter = Math.floor(NOON / QUARTER_HOUR_MS);
  return { database: 0, slice: 498_792, from: quarter, to: quarter, count: 1, entries, ...changes };
};

const read = (lines: readonly Line[]): unknown[] => lines.flatMap(({ entries }) => JSON.parse(`[${entries}]`));

/** Entries; some with characters of several bytes, so that bytes and characters differ. */
const entries = fc.array(
  fc.record({
    length: fc.oneof(fc.integer({ min: 0, max: 30_000 }), fc.integer({ min: 0, max: 100 })),
    unit: fc.constantFrom("x", "€", "🙂", "\n", '"'),
    database: fc.integer({ min: 0, max: 2 }),
    slice: fc.constantFrom(498_780, 498_792),
    lane: fc.nat({ max: LANES - 1 }),
    quarters: fc.integer({ min: -3_000, max: 0 }),
  }),
  { maxLength: 80 },
);

describe("an entry", () => {
  const event = aLogEntry({
    identifier: "i_1",
    payload: { note: 'a\nb "€"' },
    dimensions: '{"region":"eu"}',
    apiKey: 7,
  });

  test("keeps all that was reported, in the places that the databases' statements read", () => {
    expect(JSON.parse(writeCancellation({ ...event, cancelled: NOON + 1, cancelledBy: 9 }))).toEqual([
      event.meter,
      event.customer,
      '{"region":"eu"}',
      event.timestamp,
      event.id,
      "i_1",
      null,
      event.value,
      event.received,
      { note: 'a\nb "€"' },
      7,
      "additive",
      NOON + 1,
      9,
    ]);
  });

  test("is read as it was written, with its identifier letter by letter", () => {
    const names = [UUID, UUID.toUpperCase(), UUID.replaceAll("-", ""), `${UUID} `, `{${UUID}}`, "i_1", "", "0"];
    const events = names.map((identifier) => aLogEntry({ identifier }));
    expect(readEvents([event, ...events].map(writeEvent).join(","))).toEqual([event, ...events]);
  });

  test("carries the identifier as 16 bytes in hex when it is a canonical UUID, and no other", () => {
    const places = (identifier: string) => JSON.parse(writeEvent(aLogEntry({ identifier }))).slice(5, 7);
    expect(places(UUID)).toEqual([null, UUID.replaceAll("-", "")]);
    for (const other of [UUID.toUpperCase(), `${UUID}\n`]) expect(places(other)).toEqual([other, null]);
  });
});

describe("entries cut into groups", () => {
  test("are all there, in their order, and each group fits a message with all of its shares", () => {
    fc.assert(
      fc.property(entries, (shapes) => {
        const all = shapes.map(({ length, unit, database, slice, lane, quarters }, i) =>
          placed(JSON.stringify({ i, lane, text: unit.repeat(length / Buffer.byteLength(unit)) }), {
            ...{ database, slice, lane },
            timestamp: NOON + quarters * QUARTER_HOUR_MS,
          }),
        );
        const groups = cutIntoGroups(all);
        expect(groups.flat()).toEqual(
          all.toSorted((a, b) => a.database - b.database || a.slice - b.slice || a.lane - b.lane),
        );
        for (const ofGroup of groups) {
          const bodies = bodiesOf(ofGroup);
          const group = { id: Number.MAX_SAFE_INTEGER, kind: "cancellations", bodies } as const;
          const shares = [0, 1, 2].flatMap((database) => shareOf("live-999", group, database, false) ?? []);
          expect(read(shares.flatMap(linesOf))).toEqual(ofGroup.map((entry) => JSON.parse(entry.text)));
          expect(countOf(bodies)).toBe(ofGroup.length);
          expect(encodeMessage(shares).length).toBeLessThanOrEqual(MESSAGE_BYTES);
          const cuts = bodies.reduce((sum, { lines }) => sum + lines.length * (LANES - 1), 0);
          expect(shares.reduce((sum, share) => sum + share.size, 0)).toBeLessThanOrEqual(GROUP_BYTES + cuts);
        }
      }),
    );
  });

  test("have a line for each slice of each database, with its entries' number and quarter hours", () => {
    const other = { slice: 498_804, timestamp: NOON - QUARTER_HOUR_MS };
    const [group = [], ...more] = cutIntoGroups([
      placed("1", { database: 1 }),
      placed("2"),
      placed("3", { ...other, database: 1 }),
      placed("4", { timestamp: NOON - 3 * QUARTER_HOUR_MS }),
      placed("5", { database: 1 }),
    ]);
    const { from, to } = aLine("");
    expect(more).toEqual([]);
    expect(bodiesOf(group).flatMap(linesOf)).toEqual([
      aLine("2,4", { count: 2, from: from - 3 }),
      aLine("1,5", { count: 2, database: 1 }),
      aLine("3", { database: 1, slice: 498_804, from: from - 1, to: to - 1 }),
    ]);
  });

  test("have the lanes of lines with many entries apart, in their order", () => {
    const entriesOf = (count: number) => {
      const all = Array.from({ length: count }, (_, i) => placed(String(i), { lane: (i * 5) % 3 }));
      return cutIntoGroups(all).flatMap((group) => bodiesOf(group).flatMap(cutLinesOf));
    };
    expect(entriesOf(15)).toMatchObject([{ count: 15, lanes: ["0,3,6,9,12,2,5,8,11,14,1,4,7,10,13"] }]);
    const apart = ["0,3,6,9,12,15", "2,5,8,11,14", "1,4,7,10,13", "", "", "", "", ""];
    expect(entriesOf(16)).toMatchObject([{ count: 16, lanes: apart }]);
  });

  test("fill each group before they begin the next, to the byte", () => {
    const event = (bytes: number) => placed(JSON.stringify("x".repeat(bytes - 2)));
    // Each event is followed by one byte: a comma, or the line's end.
    const half = GROUP_BYTES / 2 - 1;
    expect(cutIntoGroups([event(half), event(half)])).toHaveLength(1);
    expect(cutIntoGroups([event(half), event(half + 1)])).toHaveLength(2);
    const three = [event(GROUP_BYTES - 1), event(half), event(half)];
    expect(cutIntoGroups(three)).toHaveLength(2);
    expect(cutIntoGroups([...three.slice(0, 2), event(half + 1)])).toHaveLength(3);
  });

  test("that were deflated otherwise than their lines say are refused", () => {
    const [body] = bodiesOf([placed("1"), placed("2", { slice: 498_804 })]);
    expect(() => body && linesOf({ ...body, lines: body.lines.slice(1) })).toThrow("other lines");
  });

  test("never need more than a message for one, even at every limit", () => {
    const full = aLogEntry({
      customer: "\u0001".repeat(LIMITS.payloadValueLength),
      identifier: "\u0001".repeat(LIMITS.identifierLength),
      value: 999_999_999_999_999,
      aggregation: "last_received_of_hour",
      payload: { x: "x".repeat(LIMITS.payloadBytes) },
    });
    expect(Buffer.byteLength(writeEvent(full))).toBeLessThan(GROUP_BYTES / 4);
  });
});
