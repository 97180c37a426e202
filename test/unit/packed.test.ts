import { randomBytes, randomUUID } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { digest, fingerprint, identifierOfKey, newIdentifier, uniqueKey } from "../../src/domain/identifiers.ts";
import type { Share } from "../../src/log/groups.ts";
import { decodeMessage, encodeMessage, MESSAGE_HEADER_BYTES, sizeOf } from "../../src/log/message.ts";
import { deflate, inflate, packDigest, packKey, unpackDigest, unpackKey } from "../../src/log/packed.ts";

/** What SQLite gives back for a packed value. */
const stored = ([hex, text]: ReturnType<typeof packKey>): ArrayBuffer | string =>
  text ?? new Uint8Array(Buffer.from(hex ?? "", "hex")).buffer;

const bytesOf = (value: ArrayBuffer | string): number =>
  typeof value === "string" ? Buffer.byteLength(value) : value.byteLength;

const identifier = fc.oneof(
  fc.string({ unit: "grapheme", minLength: 1, maxLength: 40 }),
  fc.uuid(),
  fc.uuid().map((uuid) => uuid.toUpperCase()),
  fc.string({ minLength: 16, maxLength: 16 }).map((text) => `em_${text}`),
  fc.constantFrom("em_", "em_abc", "live:x", "rejected:live:a", "\n", "a\nb", randomUUID(), newIdentifier()),
);

describe("a unique key", () => {
  it("comes back as it was, and no two are stored alike", () => {
    const key = fc.oneof(
      identifier.map((name) => uniqueKey(true, name)),
      identifier.map((name) => `rejected:${uniqueKey(true, name)}:0123456789abcdef:no_meter`),
      identifier.map((name) => `cancelled:${uniqueKey(true, name)}:0123456789abcdef`),
    );
    fc.assert(
      fc.property(key, key, (a, b) => {
        expect(unpackKey(stored(packKey(a)), true)).toBe(a);
        expect(JSON.stringify(packKey(a)) === JSON.stringify(packKey(b))).toBe(a === b);
      }),
    );
  });

  it.each([
    ["a canonical UUID", randomUUID(), 16],
    ["what an Idempotency-Key stands for", identifierOfKey(true, "key"), 12],
    ["any other identifier", "order-1001", 10],
  ])("of %s takes few bytes", (_, name, bytes) => {
    expect(bytesOf(stored(packKey(uniqueKey(true, name))))).toBe(bytes);
  });
});

describe("a digest", () => {
  it("comes back as it was, in its bytes", () => {
    const digests = [fingerprint("a"), digest("a"), "anything else", "0123456789ABCDEF", ""];
    for (const text of digests) expect(unpackDigest(stored(packDigest(text)))).toBe(text);
    expect(digests.slice(0, 2).map((text) => bytesOf(stored(packDigest(text))))).toEqual([8, 12]);
  });
});

describe("deflated text", () => {
  it("comes back as it was, and never takes much more", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", maxLength: 2_000 }), (text) => {
        expect(inflate(deflate(text))).toBe(text);
        expect(deflate(text).length).toBeLessThanOrEqual(Buffer.byteLength(text) + 16);
      }),
    );
  });
});

describe("a message", () => {
  const share = (): Share => ({
    shard: "live-999",
    group: Date.UTC(2200, 0) * 1_000 + 999,
    kind: "cancellations",
    database: 4_999,
    alone: true,
    size: 110_000,
    packed: new Uint8Array(randomBytes(50)),
    lines: [1, 2].map((n) => ({ slice: 2_000_000 + n, from: 8_000_000, to: 8_000_001, count: 9_999 })),
  });

  it("carries shares as they were, in no more bytes than were planned for", () => {
    const shares = [share(), share()];
    for (const form of [(bytes: Uint8Array) => bytes, (bytes: Uint8Array) => new Uint8Array(bytes).buffer]) {
      expect(decodeMessage(form(encodeMessage(shares)))).toEqual(shares);
    }
    const planned = shares.reduce((sum, each) => sum + sizeOf(each), MESSAGE_HEADER_BYTES);
    expect(encodeMessage(shares).length).toBeLessThanOrEqual(planned);
  });

  const message = encodeMessage([share()]);
  it.each([
    ["text", "nonsense"],
    ["nothing", new Uint8Array()],
    ["less than a header", message.slice(0, 3)],
    ["a header that is cut", message.slice(0, 20)],
    ["a body that is cut", message.slice(0, -1)],
    ["more than it says", Buffer.concat([message, Buffer.from("x")])],
    ["another version", encodeMessage([share()]).map((byte, i) => (i === 5 ? byte + 1 : byte))],
  ])("of %s is not read", (_, bytes) => {
    expect(() => decodeMessage(bytes)).toThrow("not shares");
  });
});
