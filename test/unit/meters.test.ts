import { describe, expect, test } from "vitest";
import { aggregationOf, createMeter, deactivate, reactivate, rename } from "../../src/domain/meter.ts";
import { aMeter, errorOf, NOON, resultOf } from "../support/builders.ts";

describe("a new meter", () => {
  test("is active, created and updated now, with Stripe's payload keys", () => {
    const input = { displayName: "Tokens", eventName: "tokens", formula: "sum", eventTimeWindow: null } as const;
    expect(resultOf(createMeter(input, false, NOON))).toEqual({
      id: expect.stringMatching(/^mtr_test_/),
      livemode: false,
      eventName: "tokens",
      displayName: "Tokens",
      formula: "sum",
      eventTimeWindow: null,
      customerKey: "stripe_customer_id",
      valueKey: "value",
      status: "active",
      created: NOON,
      updated: NOON,
      deactivatedAt: null,
    });
  });

  test("keeps what its creator chose", () => {
    const choice = {
      displayName: "Seats",
      eventName: "seats",
      formula: "last",
      eventTimeWindow: "day",
      customerKey: "tenant",
      valueKey: "seats",
    } as const;
    expect(resultOf(createMeter(choice, true, NOON))).toMatchObject({ ...choice, livemode: true });
  });

  test("cannot have customer and value in one payload key, unless it ignores the value", () => {
    const input = { displayName: "T", eventName: "t", eventTimeWindow: null, customerKey: "x", valueKey: "x" } as const;
    expect(errorOf(createMeter({ ...input, formula: "sum" }, false, NOON)).reason).toBe("invalid_field");
    expect(createMeter({ ...input, formula: "count" }, false, NOON).ok).toBe(true);
  });

  test("shows its mode in its id", () => {
    expect(aMeter({ livemode: true }).id).toMatch(/^mtr_(?!test_)/);
    expect(aMeter({ livemode: false }).id).toMatch(/^mtr_test_/);
  });

  test("has an id of its own, after those of earlier meters", () => {
    expect(aMeter().id).not.toBe(aMeter().id);
    expect(aMeter({ now: NOON }).id < aMeter({ now: NOON + 1 }).id).toBe(true);
  });
});

describe("a meter's status", () => {
  const meter = aMeter();
  const inactive = deactivate(meter, NOON + 1_000);

  test("is inactive from its deactivation on, which notes the time", () => {
    expect(inactive).toEqual({ ...meter, status: "inactive", updated: NOON + 1_000, deactivatedAt: NOON + 1_000 });
  });

  test("is active again after a reactivation, as if it had never been away", () => {
    expect(reactivate(inactive, NOON + 2_000)).toEqual({ ...meter, updated: NOON + 2_000 });
  });

  test("is not changed by a call that was made before, nor are its times", () => {
    expect(deactivate(inactive, NOON + 9_000)).toEqual(inactive);
    expect(reactivate(meter, NOON + 9_000)).toEqual(meter);
  });

  test("changes on a copy; the meter at hand stays as it was", () => {
    const before = structuredClone(meter);
    deactivate(meter, NOON + 1);
    rename(meter, "Other", NOON + 1);
    expect(meter).toEqual(before);
  });
});

describe("a renamed meter", () => {
  test("differs in its display name and the time of its update only", () => {
    for (const meter of [aMeter(), deactivate(aMeter(), NOON + 1)]) {
      expect(rename(meter, "Other", NOON + 5)).toEqual({ ...meter, displayName: "Other", updated: NOON + 5 });
    }
  });
});

describe("how a meter's events are added up", () => {
  test.each([
    ["sum", null, "additive"],
    ["count", null, "additive"],
    ["last", null, "latest_of_hour"],
    ["sum", "hour", "last_received_of_hour"],
    ["count", "hour", "last_received_of_hour"],
    ["last", "hour", "last_received_of_hour"],
    ["sum", "day", "last_received_of_day"],
    ["count", "day", "last_received_of_day"],
    ["last", "day", "last_received_of_day"],
  ] as const)("%s with the event time window %s is %s", (formula, eventTimeWindow, aggregation) => {
    expect(aggregationOf({ formula, eventTimeWindow })).toBe(aggregation);
  });
});
