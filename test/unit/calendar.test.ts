// Windows of a zone's clock, against a clock that is looked at every quarter of an hour.
import fc from "fast-check";
import { describe, expect, inject, test } from "vitest";
import { type Calendar, isZone, SPANS, windowsOf } from "../../src/domain/calendar.ts";
import { HOUR_MS, QUARTER_HOUR_MS, type Run, runsWithin, type TimeRange, windowAt } from "../../src/domain/window.ts";
import { errorOf, resultOf } from "../support/builders.ts";
import { looked } from "../support/clock.ts";

const boundsOf = (runs: readonly Run[]): number[] => [
  ...runs.flatMap(({ start, end, length }) =>
    Array.from({ length: (end - start) / length }, (_, i) => start + i * length),
  ),
  runs.at(-1)?.end ?? 0,
];

const bounds = (range: TimeRange, calendar: Calendar): number[] => boundsOf(resultOf(windowsOf(range, calendar)));

const ZONES = [
  ...["UTC", "America/Santiago", "Australia/Lord_Howe", "Pacific/Chatham", "Asia/Kathmandu", "America/Phoenix"],
  ...["Europe/Berlin", "America/New_York", "America/Havana", "Africa/Casablanca", "Asia/Beirut", "Pacific/Apia"],
];

describe("windows of a zone", () => {
  test.each(ZONES)("of %s begin when its clock says so", (zone) => {
    const property = fc.property(
      fc.constantFrom(...SPANS),
      fc.integer({ min: Date.UTC(2008, 0) / QUARTER_HOUR_MS, max: Date.UTC(2030, 0) / QUARTER_HOUR_MS }),
      fc.integer({ min: 1, max: 70 * 96 }),
      fc.option(fc.integer({ min: Date.UTC(2008, 0) / QUARTER_HOUR_MS, max: Date.UTC(2030, 0) / QUARTER_HOUR_MS })),
      (span, first, quarters, anchor) => {
        const range = { start: first * QUARTER_HOUR_MS, end: (first + quarters) * QUARTER_HOUR_MS };
        const calendar = {
          span,
          zone,
          ...(span === "month" && anchor !== null && { anchor: anchor * QUARTER_HOUR_MS }),
        };
        expect(bounds(range, calendar)).toEqual(looked(range, calendar));
      },
    );
    fc.assert(property, { seed: inject("seed"), numRuns: 12 });
  });

  const hours = (from: string, to: string, calendar: Calendar) => {
    const all = bounds({ start: Date.parse(from), end: Date.parse(to) }, calendar);
    return all.slice(1).map((end, i) => (end - (all[i] ?? 0)) / HOUR_MS);
  };

  test.each([
    ["America/Santiago", "2026-09-05T04:00Z", "2026-09-07T03:00Z", [24, 23]],
    ["America/Santiago", "2026-04-04T03:00Z", "2026-04-06T04:00Z", [25, 24]],
    ["Australia/Lord_Howe", "2026-10-02T13:30Z", "2026-10-04T13:00Z", [24, 23.5]],
    ["Australia/Lord_Howe", "2026-04-03T13:00Z", "2026-04-05T13:30Z", [24, 24.5]],
    ["Pacific/Chatham", "2026-04-03T10:15Z", "2026-04-05T11:15Z", [24, 25]],
    ["Asia/Kathmandu", "2026-03-28T18:15Z", "2026-03-30T18:15Z", [24, 24]],
    ["America/Phoenix", "2026-03-08T07:00Z", "2026-03-10T07:00Z", [24, 24]],
    ["America/Havana", "2026-10-31T04:00Z", "2026-11-02T05:00Z", [24, 25]],
    // Set forward, and back within a week.
    ["America/Noronha", "2000-10-10T01:30Z", "2000-10-16T02:00Z", [23.5, 24, 24, 24, 25, 24]],
    // A day that the zone skipped.
    ["Pacific/Apia", "2011-12-29T10:00Z", "2011-12-31T10:00Z", [24, 24]],
  ] as const)("days of %s from %s to %s have %j hours", (zone, from, to, expected) => {
    expect(hours(from, to, { span: "day", zone })).toEqual(expected);
  });

  test("an hour is never longer than 60 minutes", () => {
    const zone = "Australia/Lord_Howe";
    expect(hours("2026-04-04T14:00Z", "2026-04-04T16:30Z", { span: "hour", zone })).toEqual([1, 0.5, 1]);
    expect(hours("2026-10-03T14:30Z", "2026-10-03T17:00Z", { span: "hour", zone })).toEqual([1, 0.5, 1]);
  });

  test.each([
    [31, ["2027-01-31", "2027-02-28", "2027-03-31", "2027-04-30", "2027-05-31"]],
    [30, ["2027-01-30", "2027-02-28", "2027-03-30", "2027-04-30", "2027-05-30"]],
    [29, ["2027-01-29", "2027-02-28", "2027-03-29", "2027-04-29", "2027-05-29"]],
  ])("months from the %ith begin on a month's last day where it has no such day", (day, expected) => {
    const anchor = Date.UTC(2026, 9, day, 10, 23, 17);
    const range = { start: Date.UTC(2027, 0, 15), end: Date.UTC(2027, 5, 15) };
    const begins = bounds(range, { span: "month", zone: "UTC", anchor }).slice(1, -1);
    expect(begins.map((time) => new Date(time).toISOString())).toEqual(expected.map((date) => `${date}T10:23:17.000Z`));
    const leap = bounds(
      { start: Date.UTC(2028, 1, 1), end: Date.UTC(2028, 2, 1) },
      { span: "month", zone: "UTC", anchor },
    );
    expect(new Date(leap[1] ?? 0).getUTCDate()).toBe(29);
  });

  test("are cut where the range is, also within a minute", () => {
    const range = { start: Date.UTC(2026, 2, 1, 10, 7, 5), end: Date.UTC(2026, 2, 1, 11, 0, 1) };
    expect(bounds(range, { span: "hour", zone: "UTC" })).toEqual([range.start, Date.UTC(2026, 2, 1, 11), range.end]);
    expect(bounds(range, { span: "month", zone: "UTC" })).toEqual([range.start, range.end]);
  });

  test("are not to be had of very long or early ranges", () => {
    const [start, end] = [Date.UTC(2020, 0), Date.UTC(2031, 0)];
    for (const range of [
      { start, end },
      // Pacific/Kiritimati was no quarter hours away from UTC.
      { start: Date.UTC(1979, 8), end: Date.UTC(1979, 9) },
    ]) {
      expect(errorOf(windowsOf(range, { span: "day", zone: "UTC" }))).toContain("of up to 3660 days");
    }
  });
});

test("a zone is a name", () => {
  for (const zone of ["UTC", "Europe/Berlin", "America/Argentina/Ushuaia", "Etc/GMT+5"])
    expect(isZone(zone)).toBe(true);
  for (const zone of ["", "+05:30", "-05:07", "Mars/Olympus", "Europe/", "\0"]) expect(isZone(zone)).toBe(false);
});

test("runs know the window of a time, and the windows of a part", () => {
  const runs = [
    { start: 0, end: 30, length: 10 },
    { start: 30, end: 55, length: 25 },
  ];
  expect([0, 29, 30, 54, 55, -1].map((time) => windowAt(runs, time)?.start)).toEqual([
    0,
    20,
    30,
    30,
    undefined,
    undefined,
  ]);
  expect(windowAt(runs, 40)).toEqual({ start: 30, end: 55 });
  expect(runsWithin(runs, { start: 10, end: 30 })).toEqual([{ start: 10, end: 30, length: 10 }]);
  expect(runsWithin(runs, { start: 20, end: 55 })).toEqual([{ start: 20, end: 30, length: 10 }, runs[1]]);
});
