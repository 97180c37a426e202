import { expect, test } from "vitest";
import { parseTimestamp } from "../../scripts/import/timestamps.ts";

const TIME = Date.UTC(2023, 10, 16, 18, 17, 3, 979);
const SECOND = Date.UTC(2023, 10, 16, 18, 17, 3);

test.each([
  ["RFC 3339 in UTC", "2023-11-16T18:17:03.979Z", TIME],
  ["lower case letters", "2023-11-16t18:17:03.979z", TIME],
  ["a space and no offset, taken as UTC", "2023-11-16 18:17:03.979", TIME],
  ["seven digits of a fraction, cut to ms", "2023-11-16 18:17:03.9799600", TIME],
  ["one digit of a fraction", "2023-11-16 18:17:03.9", SECOND + 900],
  ["thirty digits of a fraction", `2023-11-16T18:17:03.979${"9".repeat(27)}Z`, TIME],
  ["an offset east of Greenwich", "2023-11-16T20:17:03+02:00", SECOND],
  ["an offset west of Greenwich, over midnight", "2023-11-15T23:47:03-18:30", SECOND],
  ["an offset without its colon", "2023-11-16 20:17:03 +0200", SECOND],
  ["no seconds", "2023-11-16T18:17Z", SECOND - 3_000],
  ["a date alone", "2023-11-16", Date.UTC(2023, 10, 16)],
  ["a leap day", "2024-02-29T00:00:00Z", Date.UTC(2024, 1, 29)],
  ["unix seconds", "1700158623", SECOND],
  ["unix seconds with a fraction", "1700158623.979960", TIME],
  ["unix milliseconds", "1700158623979", TIME],
  ["seconds since the start of a trace", "5", 5_000],
  ["spaces around it", "  2023-11-16T18:17:03Z ", SECOND],
])("%s can be read", (_, text, time) => {
  expect(parseTimestamp(text)).toBe(time);
});

test.each([
  "",
  "yesterday",
  "2023-11-16T",
  "2023-13-01T00:00:00Z",
  "2023-02-29T00:00:00Z",
  "2023-11-31",
  "2023-11-16T24:00:00Z",
  "2023-11-16T18:60:00Z",
  "2023-11-16T18:17:60Z",
  "2023-11-16T18:17:03+24:00",
  "2023-11-16T18:17:03.Z",
  "16/11/2023 18:17",
  "-5",
  "1e9",
  "1700158623979960",
  "999999999999999",
])("%j cannot be read", (text) => {
  expect(parseTimestamp(text)).toBeUndefined();
});
