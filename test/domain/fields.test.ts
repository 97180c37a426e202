// The fields' types lead to Cloudflare's.
/// <reference types="@cloudflare/workers-types" />
import { readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, test } from "vitest";
import { cursorOf, eventName, pageLimit, payload, text, unixSeconds } from "../../src/api/fields.ts";
import { eventFields } from "../../src/api/v2/meter-events.ts";
import { LIMITS, TIMESTAMP_AHEAD_MS, TIMESTAMP_PAST_MS, UNIQUENESS_MS } from "../../src/metering/limits.ts";
import { FRESH_MS } from "../../src/storage/positive-cache.ts";
import { errorOf, resultOf } from "../support/builders.ts";

describe("a v2 timestamp", () => {
  const { timestamp } = eventFields;

  test.each([
    ["2024-06-01T12:00:00Z", Date.UTC(2024, 5, 1, 12)],
    ["2024-06-01T12:00:00.000Z", Date.UTC(2024, 5, 1, 12)],
    ["2024-06-01T12:00:00.123Z", Date.UTC(2024, 5, 1, 12, 0, 0, 123)],
    ["2024-06-01T12:00:00.123456789Z", Date.UTC(2024, 5, 1, 12, 0, 0, 123)],
    ["2024-06-01T12:00:00+02:00", Date.UTC(2024, 5, 1, 10)],
    ["2024-06-01T12:00:00-05:30", Date.UTC(2024, 5, 1, 17, 30)],
    ["2024-02-29T23:59:59Z", Date.UTC(2024, 1, 29, 23, 59, 59)],
  ])("is %s", (written, ms) => {
    expect(timestamp.parse(written)).toBe(ms);
  });

  test("may be absent", () => {
    expect(timestamp.parse(undefined)).toBeUndefined();
  });

  test.each([
    "1711584000",
    1_711_584_000,
    "2024-06-01",
    "2024-06-01T12:00Z",
    "2024-06-01T12:00+02:00",
    "2024-06-01T12:00:00",
    "2024-06-01 12:00:00Z",
    "2024-02-30T12:00:00Z",
    "2023-02-29T12:00:00Z",
    "2024-13-01T12:00:00Z",
    "2024-06-01T24:00:00Z",
    "2024-06-01T12:60:00Z",
    "2024-06-01T12:00:00+25:00",
    "2024-06-01T12:00:00.Z",
    "20240601T120000Z",
    "Sat, 01 Jun 2024 12:00:00 GMT",
    "now",
    "",
    null,
    "2024-06-01T12:00:00Z ",
  ])("is RFC 3339 only, which %j is not", (written) => {
    expect(timestamp.safeParse(written).success).toBe(false);
  });
});

describe("a v1 timestamp", () => {
  test.each([
    ["1711584000", 1_711_584_000],
    ["0", 0],
    ["-1", -1],
    ["999999999999", 999_999_999_999],
  ])("is whole seconds: %s", (written, seconds) => {
    expect(unixSeconds.parse(written)).toBe(seconds);
  });

  test.each(["", " 1", "1.5", "1e9", "1711584000000", "2024-06-01T12:00:00Z", "0x10", "+1", ["1"]])(
    "is nothing else: %j",
    (written) => {
      expect(unixSeconds.safeParse(written).success).toBe(false);
    },
  );
});

describe("text", () => {
  test("has 1 to so many characters, all of which can be stored", () => {
    const schema = text(3);
    for (const good of ["a", "abc", "客户"]) expect(schema.parse(good)).toBe(good);
    for (const bad of ["", "abcd", "a\0", "\ud83d", 5, null, ["a"]]) expect(schema.safeParse(bad).success).toBe(false);
  });

  test("names the limit that it is past", () => {
    expect(text(3).safeParse("abcd").error?.issues[0]?.message).toContain("3");
  });

  test("of an identifier and an event name may have 100 characters", () => {
    for (const schema of [eventFields.identifier, eventName]) {
      expect(schema.parse("x".repeat(100))).toHaveLength(100);
      expect(schema.safeParse("x".repeat(101)).success).toBe(false);
      expect(schema.safeParse("").success).toBe(false);
    }
  });
});

describe("a payload field", () => {
  test("is read by the rules of payloads", () => {
    expect(payload.parse({ value: 25 })).toEqual({ value: "25" });
    const refused = payload.safeParse({ value: { nested: "1" } });
    expect(refused.error?.issues[0]).toMatchObject({
      params: { error: { reason: "invalid_field", message: expect.stringContaining("flat map") } },
    });
  });
});

describe("the limits", () => {
  test("are those that the README lists", () => {
    const readme = readFileSync(path.join(import.meta.dirname, "../../README.md"), "utf8");
    const [, limits = ""] = readme.split("## Limits");
    const named = {
      ...LIMITS,
      value: 15,
      ahead: 5,
      back: 35,
      window: UNIQUENESS_MS / 3_600_000,
      cache: FRESH_MS / 1_000,
    };
    for (const [name, limit] of Object.entries(named)) {
      expect(limits, name).toMatch(new RegExp(`(?<![\\d,])${limit.toLocaleString("en")}(?![\\d,])`));
    }
  });

  test("of time are a day for an identifier, and 35 days back to 5 minutes ahead for a timestamp", () => {
    expect(UNIQUENESS_MS).toBe(86_400_000);
    expect(TIMESTAMP_PAST_MS).toBe(3_024_000_000);
    expect(TIMESTAMP_AHEAD_MS).toBe(300_000);
  });
});

describe("a page", () => {
  test("has 1 to 100 objects, 10 unless told", () => {
    expect(pageLimit.parse(undefined)).toBe(10);
    expect([pageLimit.parse("1"), pageLimit.parse("100")]).toEqual([1, 100]);
    for (const bad of ["0", "101", "-1", "1.5", "1000", "", "ten"])
      expect(pageLimit.safeParse(bad).success).toBe(false);
  });

  test("begins after or ends before an object, not both", () => {
    expect(resultOf(cursorOf({}))).toBeUndefined();
    expect(resultOf(cursorOf({ starting_after: "a" }))).toEqual({ id: "a", param: "starting_after" });
    expect(resultOf(cursorOf({ ending_before: "b" }))).toEqual({ id: "b", param: "ending_before" });
    expect(errorOf(cursorOf({ starting_after: "a", ending_before: "b" })).reason).toBe("invalid_field");
  });
});
