import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { LIMITS } from "../../src/domain/limits.ts";
import {
  cutIntoGroups,
  decodeMessage,
  encodeMessage,
  type Group,
  HEADER_BYTES,
  MESSAGE_BYTES,
} from "../../src/log/groups.ts";
import { aLogEntry } from "../support/builders.ts";

const text = fc.string({ unit: "binary" });

/** Events as JSON; some with characters of several bytes, so that bytes and characters differ. */
const events = fc.array(
  fc.record({ length: fc.integer({ min: 0, max: 30_000 }), unit: fc.constantFrom("x", "€", "🙂", "\n", '"') }),
  { maxLength: 40 },
);

describe("events cut into groups", () => {
  test("are all there, in their order, and each group fits a message with its header", () => {
    fc.assert(
      fc.property(events, (shapes) => {
        const cut = shapes.map(({ length, unit }, i) =>
          JSON.stringify({ i, text: unit.repeat(length / Buffer.byteLength(unit)) }),
        );
        const groups = cutIntoGroups(cut).map(({ entries }) => entries);
        expect(groups.flatMap((group) => JSON.parse(`[${group}]`))).toEqual(cut.map((event) => JSON.parse(event)));
        for (const group of groups) {
          const message = encodeMessage([
            { shard: 999, id: Number.MAX_SAFE_INTEGER, kind: "cancellations", entries: group },
          ]);
          expect(Buffer.byteLength(message)).toBeLessThanOrEqual(MESSAGE_BYTES);
          expect(group).not.toBe("");
        }
      }),
    );
  });

  test("fill each group before they begin the next, to the byte", () => {
    const room = MESSAGE_BYTES - HEADER_BYTES;
    const event = (bytes: number) => JSON.stringify("x".repeat(bytes - 2));
    // Each event is followed by one byte: a comma, or the line's end.
    const first = event(room / 2 - 1);
    expect(cutIntoGroups([first, event(room / 2 - 1)])).toHaveLength(1);
    expect(cutIntoGroups([first, event(room / 2)])).toHaveLength(2);
    const three = [event(room - 1), event(room / 2 - 1), event(room / 2 - 1)];
    expect(cutIntoGroups(three)).toHaveLength(2);
    expect(cutIntoGroups([...three.slice(0, 2), event(room / 2)])).toHaveLength(3);
  });

  test("are counted in bytes, not in characters", () => {
    const wide = JSON.stringify("€".repeat(25_000));
    expect(cutIntoGroups([wide, wide])).toEqual([
      { entries: wide, count: 1 },
      { entries: wide, count: 1 },
    ]);
  });

  test("that are none make no group", () => {
    expect(cutIntoGroups([])).toEqual([]);
  });

  test("never need more than a message for one, even at every limit", () => {
    const full = aLogEntry({
      customer: "\u0001".repeat(LIMITS.payloadValueLength),
      identifier: "\u0001".repeat(LIMITS.identifierLength),
      value: 999_999_999_999_999,
      aggregation: "last_received_of_hour",
      dimensions: { x: "x".repeat(LIMITS.payloadBytes) },
    });
    expect(Buffer.byteLength(JSON.stringify(full))).toBeLessThan(MESSAGE_BYTES / 4);
  });
});

describe("a message", () => {
  const group = fc.record({
    shard: fc.integer({ min: 0, max: 999 }),
    id: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
    kind: fc.constantFrom("events" as const, "cancellations" as const),
    entries: fc
      .array(fc.dictionary(text, text), { minLength: 1, maxLength: 5 })
      .map((list) => list.map((event) => JSON.stringify(event)).join(",")),
  });

  test("gives back the groups that it was made of, whatever their text", () => {
    fc.assert(
      fc.property(fc.array(group, { minLength: 1, maxLength: 20 }), (groups) => {
        const bytes = new TextEncoder().encode(encodeMessage(groups));
        expect(decodeMessage(new TextDecoder().decode(bytes))).toEqual(groups);
      }),
    );
  });

  test("carries line breaks, separators and other scripts within events", () => {
    const entries = JSON.stringify({ text: "a\nb\r\n\u2028\u2029 客户 🙂 \\n ,]" });
    expect(decodeMessage(encodeMessage([{ shard: 3, id: 7, kind: "events", entries }]))).toEqual([
      { shard: 3, id: 7, kind: "events", entries },
    ]);
  });

  test("takes no more bytes than its groups' events and a header for each", () => {
    const longest = (entries: string): Group => ({
      shard: 999,
      id: Number.MAX_SAFE_INTEGER,
      kind: "cancellations",
      entries,
    });
    fc.assert(
      fc.property(fc.array(text.map(JSON.stringify), { minLength: 1 }), (all) => {
        const planned = all.reduce((bytes, events) => bytes + Buffer.byteLength(events) + HEADER_BYTES, 0);
        expect(Buffer.byteLength(encodeMessage(all.map(longest)))).toBeLessThanOrEqual(planned);
      }),
    );
  });

  test.each([
    "",
    "\n",
    "null\n{}",
    "{}\n{}",
    "not json",
    '{"shard":1,"id":1}',
    '{"shard":1,"id":1}\n',
    '{"shard":1}\n{}',
    '{"id":1}\n{}',
    '{"shard":"1","id":1}\n{}',
    '{"shard":1,"id":"1"}\n{}',
    '{"shard":1.5,"id":1}\n{}',
    '{"shard":1,"id":1e300}\n{}',
    '{"shard":1,"id":1}\n{}\n',
    '{"shard":1,"id":1}\n{}\n{"shard":1,"id":2}',
  ])("that is not one of these fails loudly: %j", (message) => {
    expect(() => decodeMessage(message)).toThrow();
  });
});
