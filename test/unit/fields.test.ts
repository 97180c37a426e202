// The fields' types lead to Cloudflare's.
/// <reference types="@cloudflare/workers-types" />
import { readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, test } from "vitest";
import * as z from "zod";
import { FRESH_MS } from "../../src/catalog/positive-cache.ts";
import { LIMITS, TIMESTAMP_AHEAD_MS, TIMESTAMP_PAST_MS, UNIQUENESS_MS } from "../../src/domain/limits.ts";
import { check, emptyParameter, eventName, payload, text, unixSeconds } from "../../src/http/fields.ts";
import { cursorOf, pageLimit } from "../../src/http/list.ts";
import { eventFields } from "../../src/http/v2/meter-events.ts";
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
    ["2026-11-24t10:00:00z", Date.UTC(2026, 10, 24, 10)],
    ["2016-12-31T23:59:60Z", Date.UTC(2016, 11, 31, 23, 59, 59, 999)],
    ["2016-12-31T23:59:60.5Z", Date.UTC(2016, 11, 31, 23, 59, 59, 999)],
    ["2017-01-01T00:59:60+01:00", Date.UTC(2016, 11, 31, 23, 59, 59, 999)],
    ["2024-06-01T12:00:00.1Z", Date.UTC(2024, 5, 1, 12, 0, 0, 100)],
    ["2024-06-01T12:00:00.000999999Z", Date.UTC(2024, 5, 1, 12)],
    [`2024-06-01T12:00:00.25${"0".repeat(10_000)}Z`, Date.UTC(2024, 5, 1, 12, 0, 0, 250)],
    ["2024-06-01T12:00:00-00:00", Date.UTC(2024, 5, 1, 12)],
    ["2024-06-01T12:00:00+23:59", Date.UTC(2024, 4, 31, 12, 1)],
    ["0001-01-01T00:00:00Z", Date.parse("0001-01-01T00:00:00Z")],
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
    "2024-06-01T12:00:61Z",
    "2024-06-01T12:00:00+24:00",
    "2024-06-01T12:00:00+02:60",
    "2024-06-01T12:00:00+0200",
    "2024-00-01T12:00:00Z",
    "2024-06-00T12:00:00Z",
    "2024-06-31T12:00:00Z",
    "1900-02-29T12:00:00Z",
    "+002024-06-01T12:00:00Z",
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
      expect(schema.parse("🙂".repeat(100))).toBe("🙂".repeat(100));
      expect(schema.safeParse("🙂".repeat(101)).success).toBe(false);
      expect(schema.safeParse("x".repeat(101)).success).toBe(false);
      expect(schema.safeParse("").success).toBe(false);
    }
  });
});

describe("an event name", () => {
  const faultOf = (given: string) => {
    const error = errorOf(check(z.strictObject({ event_name: eventName }), { event_name: given }));
    return error.reason === "invalid_field" ? error.message : error.reason;
  };

  test.each([
    [" ", "Invalid event_name: it cannot be blank."],
    ["tokens ", "Invalid event_name: it cannot begin or end with white space."],
    ["\u00a0tokens", "Invalid event_name: it cannot begin or end with white space."],
    ["tok\nens", "Invalid event_name: it cannot contain control characters."],
    ["tokens\u0085", "Invalid event_name: it cannot contain control characters."],
  ])("cannot be %j, and the error says why", (given, message) => {
    expect(faultOf(given)).toBe(message);
  });

  test("may have blanks in it", () => {
    expect(eventName.parse("search calls")).toBe("search calls");
  });
});

describe("a payload field", () => {
  const events = z.strictObject({ events: z.array(z.strictObject(eventFields)) });
  const good = { event_name: "tokens", payload: { value: "1" } };

  test("is read by the rules of payloads", () => {
    expect(payload.parse({ value: 25 })).toEqual({ payload: { value: "25" } });
    expect(payload.parse({ value: 0.5 })).toEqual({ payload: { value: "0.5" }, inexact: ["value"] });
  });

  test.each([
    [{ region: null }, "[region]", "it must be a string"],
    [{ region: ["eu"] }, "[region]", "it must be a string"],
    [{ region: "x".repeat(501) }, "[region]", "at most 500"],
    [{ region: "\ud800" }, "[region]", "cannot be stored"],
    [{ ["k".repeat(101)]: "x" }, `[${"k".repeat(100)}]`, "1 to 100"],
    [Object.fromEntries(Array.from({ length: 51 }, (_, i) => [`k${i}`, "x"])), "", "at most 50 keys"],
    [Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`k${i}`, "x".repeat(450)])), "", "8000 bytes"],
    ["text", "", "it must be a map of strings"],
    [null, "", "it must be a map of strings"],
  ])("that is refused (%#) has its place in the error, alone and in a stream", (bad, key, why) => {
    const alone = errorOf(check(z.strictObject(eventFields), { ...good, payload: bad }));
    expect(alone).toEqual({
      reason: "invalid_field",
      param: `payload${key}`,
      message: expect.stringMatching(new RegExp(`^Invalid payload.*: .*${why}`)),
    });
    const third = errorOf(check(events, { events: [good, good, { ...good, payload: bad }, good] }));
    const param = `events[2][payload]${key}`;
    expect(third).toEqual({ reason: "invalid_field", param, message: expect.stringContaining(`Invalid ${param}: `) });
  });

  test("that is missing is named with its event", () => {
    expect(errorOf(check(events, { events: [good, { event_name: "tokens" }] }))).toEqual({
      reason: "missing_parameter",
      param: "events[1][payload]",
    });
  });
});

describe("an empty v1 parameter", () => {
  test.each([
    [{ identifier: "" }, "identifier"],
    [{ event_name: "a", cancel: { identifier: "" } }, "cancel[identifier]"],
    [{ expand: ["a", ""] }, "expand[1]"],
    [{ timestamp: { gte: "" } }, "timestamp[gte]"],
    [{ payload: "" }, "payload"],
    [{ unknown: "" }, "unknown"],
  ])("is found wherever it stands: %j", (fields, name) => {
    expect(emptyParameter(fields)).toBe(name);
  });

  test("is not what a payload holds, which is the meter's to judge", () => {
    expect(emptyParameter({ event_name: "a", payload: { value: "" } })).toBeUndefined();
    expect(emptyParameter({})).toBeUndefined();
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
    const limit = pageLimit(10);
    expect(limit.parse(undefined)).toBe(10);
    expect([limit.parse("1"), limit.parse("100")]).toEqual([1, 100]);
    for (const bad of ["0", "101", "-1", "1.5", "1000", "", "ten"]) expect(limit.safeParse(bad).success).toBe(false);
  });

  test("begins after or ends before an object, not both", () => {
    expect(resultOf(cursorOf({}))).toBeUndefined();
    expect(resultOf(cursorOf({ starting_after: "a" }))).toEqual({ id: "a", param: "starting_after" });
    expect(resultOf(cursorOf({ ending_before: "b" }))).toEqual({ id: "b", param: "ending_before" });
    expect(errorOf(cursorOf({ starting_after: "a", ending_before: "b" })).reason).toBe("invalid_field");
  });
});
