import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { fromLimbs, LIMB, parseValue } from "../../src/domain/value.ts";

describe("a value", () => {
  test("is every integer from 1 to 15 nines, as its plain digits", () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 1n, max: 999_999_999_999_999n }), (value) => {
        expect(BigInt(parseValue(String(value)) ?? -1)).toBe(value);
      }),
    );
    expect(parseValue("1")).toBe(1);
    expect(parseValue("999999999999999")).toBe(999_999_999_999_999);
  });

  test("is nothing else", () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.string({ unit: fc.constantFrom(..."0123456789+-.e \n") })), (text) => {
        const digits = text !== "" && [...text].every((character) => "0123456789".includes(character));
        expect(parseValue(text) !== undefined).toBe(digits && text.length <= 15 && !text.startsWith("0"));
      }),
      { numRuns: 1_000 },
    );
    const words = "0 007 00 +5 -1 1.5 1.0 1e3 0x10 1_000 1,000 5n ٥ ５ Infinity NaN abc 1000000000000000".split(" ");
    for (const text of [...words, "", " 5", "5 ", "5\n", "\n5", "1".repeat(400)]) {
      expect(parseValue(text), text).toBeUndefined();
    }
  });
});

describe("a sum in two limbs", () => {
  test("is the exact integer, far past what a double or 64 bits hold", () => {
    const values = fc.array(fc.integer({ min: 1, max: 999_999_999_999_999 }), { maxLength: 50 });
    fc.assert(
      fc.property(values, fc.bigInt({ min: 1n, max: 9_000_000_000n }), (counted, times) => {
        // Each limb is summed on its own, as the database does, without carrying.
        let high = 0n;
        let low = 0n;
        for (const value of counted) {
          high += BigInt(Math.floor(value / LIMB)) * times;
          low += BigInt(value % LIMB) * times;
        }
        const exact = counted.reduce((sum, value) => sum + BigInt(value), 0n) * times;
        expect(fromLimbs(String(high), String(low))).toBe(exact);
      }),
    );
  });

  test("reads limbs that are themselves past 2^53, or below zero as cancellations make them", () => {
    const most = 2n ** 63n - 1n;
    expect(fromLimbs(String(most), String(most))).toBe(most * 1_000_000_000n + most);
    expect(fromLimbs("0", "0")).toBe(0n);
    expect(fromLimbs("1", "-1")).toBe(999_999_999n);
    expect(fromLimbs("-1", "0")).toBe(-1_000_000_000n);
  });

  test("keeps nine thousand million of the largest values below 2^63 in either limb", () => {
    const largest = Math.max(Math.floor(999_999_999_999_999 / LIMB), LIMB - 1);
    expect(BigInt(largest) * 9_000_000_000n < 2n ** 63n).toBe(true);
  });
});
