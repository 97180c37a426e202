// What a meter's own rules say beside the API's answers, which are the conformance suite's.
import { describe, expect, test } from "vitest";
import { aggregationOf, createMeter, deactivate, reactivate, rename } from "../../src/domain/meter.ts";
import { aMeter, errorOf, NOON } from "../support/builders.ts";

describe("a new meter", () => {
  test("cannot have customer and value in one payload key, unless it ignores the value", () => {
    const input = { displayName: "T", eventName: "t", eventTimeWindow: null, customerKey: "x", valueKey: "x" } as const;
    expect(errorOf(createMeter({ ...input, formula: "sum" }, false, NOON)).reason).toBe("invalid_field");
    expect(createMeter({ ...input, formula: "count" }, false, NOON).ok).toBe(true);
  });

  const input = { displayName: "T", eventName: "t", eventTimeWindow: null } as const;

  test.each([
    ["sum", ["region", "stripe_customer_id"], 1],
    ["sum", ["value"], 0],
    ["count", ["value", "region", "value"], 2],
    ...["0", "", " a", "a ", 'a"', "a\\", "a[", "a]", "a\n", "__proto__"].map(
      (key) => ["last", ["a", key], 1] as const,
    ),
  ] as const)("of %s cannot have the dimensions %j, and the error names which", (formula, dimensionKeys, place) => {
    const error = errorOf(createMeter({ ...input, formula, dimensionKeys }, false, NOON));
    expect(error).toMatchObject({ reason: "invalid_field", param: `dimension_payload_keys[${place}]` });
  });

  test("has its dimensions in the order in which they were declared, and none unless some were", () => {
    const dimensionKeys = ["région", "_0", "value", "a.b-c d"];
    expect(createMeter({ ...input, formula: "count", dimensionKeys }, false, NOON)).toMatchObject({
      value: { dimensionKeys },
    });
    expect(createMeter({ ...input, formula: "sum" }, false, NOON)).toMatchObject({ value: { dimensionKeys: [] } });
  });

  test("has an id of its own, which shows its mode and sorts after those of earlier meters", () => {
    expect(aMeter({ livemode: true }).id).toMatch(/^mtr_(?!test_)/);
    expect(aMeter().id).toMatch(/^mtr_test_/);
    expect(aMeter().id).not.toBe(aMeter().id);
    expect(aMeter().id < aMeter({ now: NOON + 1 }).id).toBe(true);
  });
});

describe("a meter's status", () => {
  const meter = aMeter();
  const inactive = deactivate(meter, NOON + 1_000);

  test("is inactive from its deactivation on, and active again as if it had never been away", () => {
    expect(inactive).toEqual({ ...meter, status: "inactive", updated: NOON + 1_000, deactivatedAt: NOON + 1_000 });
    expect(reactivate(inactive, NOON + 2_000)).toEqual({ ...meter, updated: NOON + 2_000 });
  });

  test("is not changed by a call that was made before, nor are its times", () => {
    expect(deactivate(inactive, NOON + 9_000)).toEqual(inactive);
    expect(reactivate(meter, NOON + 9_000)).toEqual(meter);
  });
});

test("a renamed meter differs in its display name and the time of its update only", () => {
  for (const meter of [aMeter(), deactivate(aMeter(), NOON + 1)]) {
    const before = structuredClone(meter);
    expect(rename(meter, "Other", NOON + 5)).toEqual({ ...meter, displayName: "Other", updated: NOON + 5 });
    expect(meter).toEqual(before);
  }
});

test.each([
  [
    null,
    ["additive", "additive", "latest_of_quarter_hour", "greatest_of_quarter_hour", "least_of_quarter_hour"] as const,
  ],
  ["hour", Array(5).fill("last_received_of_hour")],
  ["day", Array(5).fill("last_received_of_day")],
] as const)("with the event time window %s, formulas are aggregated as %j", (eventTimeWindow, expected) => {
  const formulas = ["sum", "count", "last", "max", "min"] as const;
  expect(formulas.map((formula) => aggregationOf({ formula, eventTimeWindow }))).toEqual(expected);
});
