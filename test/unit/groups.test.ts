import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { LIMITS } from "../../src/domain/limits.ts";
import { QUARTER_HOUR_MS } from "../../src/domain/window.ts";
import { readEvents, writeCancellation, writeEvent } from "../../src/log/codec.ts";
import {
  cutIntoGroups,
  decodeMessage,
  encodeMessage,
  GROUP_KINDS,
  type Line,
  MESSAGE_BYTES,
  type PlacedEntry,
  type Share,
  shareOf,
  sizeOf,
} from "../../src/log/groups.ts";
import { aLogEntry, NOON } from "../support/builders.ts";

const text = fc.string({ unit: "binary" });
const UUID = "01234567-89ab-cdef-0123-456789abcdef";

/** Where entries are placed in most tests. */
const PLACE = { database: 0, slice: 498_792, timestamp: NOON };

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
    length: fc.integer({ min: 0, max: 30_000 }),
    unit: fc.constantFrom("x", "€", "🙂", "\n", '"'),
    database: fc.integer({ min: 0, max: 2 }),
    slice: fc.constantFrom(498_780, 498_792),
    quarters: fc.integer({ min: -3_000, max: 0 }),
  }),
  { maxLength: 40 },
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
  test("are all there, in their order, and each group fits a message with its headers", () => {
    fc.assert(
      fc.property(entries, (shapes) => {
        const all = shapes.map(({ length, unit, database, slice, quarters }, i) =>
          placed(JSON.stringify({ i, database, slice, text: unit.repeat(length / Buffer.byteLength(unit)) }), {
            ...{ database, slice },
            timestamp: NOON + quarters * QUARTER_HOUR_MS,
          }),
        );
        const groups = cutIntoGroups(all);
        const inOrder = all.toSorted((a, b) => a.database - b.database || a.slice - b.slice);
        expect(groups.flatMap(read)).toEqual(inOrder.map((entry) => JSON.parse(entry.text)));
        for (const lines of groups) {
          const group = { id: Number.MAX_SAFE_INTEGER, kind: "cancellations", lines } as const;
          const shares = [0, 1, 2].flatMap((database) => shareOf("live-999", group, database, false) ?? []);
          expect(shares.flatMap((share) => share.lines)).toEqual(lines);
          expect(Buffer.byteLength(encodeMessage(shares))).toBeLessThanOrEqual(MESSAGE_BYTES);
          expect(shares.reduce((sum, share) => sum + sizeOf(share), 0)).toBeLessThanOrEqual(MESSAGE_BYTES);
        }
      }),
    );
  });

  test("have a line for each slice of each database, with its entries' number and quarter hours", () => {
    const other = { slice: 498_804, timestamp: NOON - QUARTER_HOUR_MS };
    const cut = cutIntoGroups([
      placed("1", { database: 1 }),
      placed("2"),
      placed("3", { ...other, database: 1 }),
      placed("4", { timestamp: NOON - 3 * QUARTER_HOUR_MS }),
      placed("5", { database: 1 }),
    ]);
    const { from, to } = aLine("");
    expect(cut).toEqual([
      [
        aLine("2,4", { count: 2, from: from - 3 }),
        aLine("1,5", { count: 2, database: 1 }),
        aLine("3", { database: 1, slice: 498_804, from: from - 1, to: to - 1 }),
      ],
    ]);
  });

  test("fill each group before they begin the next, to the byte", () => {
    const room = MESSAGE_BYTES - sizeOf({ lines: [aLine("")] });
    const event = (bytes: number) => placed(JSON.stringify("x".repeat(bytes - 2)));
    // Each event is followed by one byte: a comma, or the line's end.
    const first = event(room / 2 - 1);
    expect(cutIntoGroups([first, event(room / 2 - 1)])).toHaveLength(1);
    expect(cutIntoGroups([first, event(room / 2)])).toHaveLength(2);
    const three = [event(room - 1), event(room / 2 - 1), event(room / 2 - 1)];
    expect(cutIntoGroups(three)).toHaveLength(2);
    expect(cutIntoGroups([...three.slice(0, 2), event(room / 2)])).toHaveLength(3);
  });

  test("never need more than a message for one, even at every limit", () => {
    const full = aLogEntry({
      customer: "\u0001".repeat(LIMITS.payloadValueLength),
      identifier: "\u0001".repeat(LIMITS.identifierLength),
      value: 999_999_999_999_999,
      aggregation: "last_received_of_hour",
      payload: { x: "x".repeat(LIMITS.payloadBytes) },
    });
    expect(Buffer.byteLength(writeEvent(full))).toBeLessThan(MESSAGE_BYTES / 4);
  });
});

describe("a message", () => {
  const line = fc.record({
    slice: fc.nat(),
    from: fc.nat(),
    to: fc.nat(),
    count: fc.nat(),
    entries: fc
      .array(fc.dictionary(text, text), { minLength: 1, maxLength: 5 })
      .map((list) => list.map((event) => JSON.stringify(event)).join(",")),
  });
  const share = fc
    .record({
      shard: fc.constantFrom("live-0", "test-12"),
      group: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
      kind: fc.constantFrom(...GROUP_KINDS),
      database: fc.nat({ max: 9_999 }),
      alone: fc.boolean(),
      lines: fc.array(line, { minLength: 1, maxLength: 3 }),
    })
    .map(
      ({ lines, ...header }): Share => ({
        ...header,
        lines: lines.map((each) => ({ database: header.database, ...each })),
      }),
    );

  test("gives back the shares that it was made of, whatever their text", () => {
    fc.assert(
      fc.property(fc.array(share, { minLength: 1, maxLength: 20 }), (shares) => {
        const bytes = new TextEncoder().encode(encodeMessage(shares));
        expect(decodeMessage(new TextDecoder().decode(bytes))).toEqual(shares);
      }),
    );
  });

  const header = {
    version: 1,
    shard: "live-1",
    group: 1,
    kind: "events",
    database: 0,
    alone: false,
    lines: [[498_792, 1, 1, 1]],
  };

  test("is read when it has these fields", () => {
    expect(decodeMessage(`${JSON.stringify(header)}\n{}`)).toHaveLength(1);
  });

  test.each([
    ["another version", { version: 2 }],
    ["a shard's number", { shard: 1 }],
    ["a group that is no whole number", { group: 1.5 }],
    ["an unknown kind", { kind: "other" }],
    ["no lines", { lines: undefined }],
    ["a line without its count", { lines: [[498_792, 1, 1]] }],
    ["a line whose entries are missing", { lines: [...header.lines, ...header.lines] }],
  ])("with %s fails loudly", (_, changes) => {
    expect(() => decodeMessage(`${JSON.stringify({ ...header, ...changes })}\n{}`)).toThrow("not shares");
  });

  test.each(["", "\n", "null\n{}", "{}\n{}", "not json", `${JSON.stringify(header)}\n{}\n{}`])(
    "that is not one fails loudly: %j",
    (message) => {
      expect(() => decodeMessage(message)).toThrow("not shares");
    },
  );
});
