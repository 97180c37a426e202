import type { MeteringError } from "./errors.ts";
import { timeOrderedId } from "./identifiers.ts";
import { err, ok, type Result } from "./result.ts";

export const FORMULAS = ["count", "last", "max", "min", "sum"] as const;

/** How a meter adds its events up. `last` is the latest by timestamp, `max` the greatest value, `min` the least. */
export type Formula = (typeof FORMULAS)[number];

export const EVENT_TIME_WINDOWS = ["day", "hour"] as const;

/** With one, the last received event of each UTC window replaces the earlier ones. */
export type EventTimeWindow = (typeof EVENT_TIME_WINDOWS)[number];

/** What a product counts. Everything but `displayName`, `status` and the times is fixed at creation. */
export type Meter = {
  readonly id: string;
  readonly livemode: boolean;
  /** The name that events call it by; unique among the active meters of a mode. */
  readonly eventName: string;
  readonly displayName: string;
  readonly formula: Formula;
  readonly eventTimeWindow: EventTimeWindow | null;
  /** The payload key that holds the customer. */
  readonly customerKey: string;
  /** The payload key that holds the value. */
  readonly valueKey: string;
  /** Payload keys that each event must have, and whose values are told apart: its dimensions. Declared at creation. */
  readonly dimensionKeys: readonly string[];
  readonly status: "active" | "inactive";
  /** All three in ms. */
  readonly created: number;
  readonly updated: number;
  readonly deactivatedAt: number | null;
};

/** What a caller chooses when creating a meter. */
export type NewMeter = Pick<Meter, "displayName" | "eventName" | "formula" | "eventTimeWindow"> & {
  readonly customerKey?: string | undefined;
  readonly valueKey?: string | undefined;
  readonly dimensionKeys?: readonly string[] | undefined;
};

const TEST_PREFIX = "mtr_test_";

/** The mode of a meter, by its id. */
export const isLiveMeter = (id: string): boolean => !id.startsWith(TEST_PREFIX);

/**
 * A new active meter, created `now` (ms); the payload keys default to Stripe's `stripe_customer_id`
 * and `value`. One key cannot hold both customer and value.
 */
export function createMeter(input: NewMeter, livemode: boolean, now: number): Result<Meter, MeteringError> {
  const customerKey = input.customerKey ?? "stripe_customer_id";
  const valueKey = input.valueKey ?? "value";
  if (customerKey === valueKey && input.formula !== "count") {
    const message = "The customer and the value cannot have the same payload key.";
    return err({ reason: "invalid_field", message, param: "value_settings[event_payload_key]" });
  }
  const dimensionKeys = input.dimensionKeys ?? [];
  const taken = input.formula === "count" ? [customerKey] : [customerKey, valueKey];
  const fault = dimensionFault(dimensionKeys, taken);
  if (fault !== undefined) return err(fault);
  return ok({
    id: timeOrderedId(livemode ? "mtr_" : TEST_PREFIX, now),
    livemode,
    eventName: input.eventName,
    displayName: input.displayName,
    formula: input.formula,
    eventTimeWindow: input.eventTimeWindow,
    customerKey,
    valueKey,
    dimensionKeys,
    status: "active",
    created: now,
    updated: now,
    deactivatedAt: null,
  });
}

/** What is wrong with the first of a meter's dimensions that cannot be one, beside payload keys that are taken. */
function dimensionFault(keys: readonly string[], taken: readonly string[]): MeteringError | undefined {
  for (const [i, key] of keys.entries()) {
    const param = `dimension_payload_keys[${i}]`;
    const message = faultOfKey(key) ?? (taken.includes(key) ? HOLDS_ANOTHER : undefined);
    if (message !== undefined) return { reason: "invalid_field", message: `Invalid ${param}: ${message}`, param };
    if (keys.indexOf(key) < i) return { reason: "invalid_field", message: `Invalid ${param}: it comes twice.`, param };
  }
  return undefined;
}

const HOLDS_ANOTHER = "the customer and the value cannot be dimensions too.";

/** A dimension can be named in a query, `dimension_filters[KEY]`, and in SQLite's JSON paths. */
const faultOfKey = (key: string): string | undefined =>
  key === key.trim() && key !== "__proto__" && /^[\p{L}_][^"\\[\]\p{Cc}]*$/u.test(key)
    ? undefined
    : "it must begin with a letter or _, without quotes, backslashes, brackets, control characters, or white space at its end.";

/** An inactive meter stays as it is, so that a repeated call changes nothing. */
export const deactivate = (meter: Meter, now: number): Meter =>
  meter.status === "inactive" ? meter : { ...meter, status: "inactive", updated: now, deactivatedAt: now };

/** An active meter stays as it is. Whether its event name is still free is for the storage to say. */
export const reactivate = (meter: Meter, now: number): Meter =>
  meter.status === "active" ? meter : { ...meter, status: "active", updated: now, deactivatedAt: null };

export const rename = (meter: Meter, displayName: string, now: number): Meter => ({
  ...meter,
  displayName,
  updated: now,
});

/**
 * How the aggregator keeps a meter's summaries up to date:
 * - `additive`: counts and sums per quarter hour (`sum` and `count` without an event time window);
 * - the others keep one surviving event per window: `latest_of_quarter_hour` by timestamp (`last`),
 *   `greatest_of_quarter_hour` and `least_of_quarter_hour` by value (`max`, `min`), `last_received_of_hour` and
 *   `last_received_of_day` by receipt (event time windows).
 */
export type Aggregation = "additive" | (typeof KEEPS_SURVIVORS)[number];

export const KEEPS_SURVIVORS = [
  "latest_of_quarter_hour",
  "greatest_of_quarter_hour",
  "least_of_quarter_hour",
  "last_received_of_hour",
  "last_received_of_day",
] as const;

const BY_FORMULA: Record<Formula, Aggregation> = {
  count: "additive",
  last: "latest_of_quarter_hour",
  max: "greatest_of_quarter_hour",
  min: "least_of_quarter_hour",
  sum: "additive",
};

export function aggregationOf({ formula, eventTimeWindow }: Pick<Meter, "formula" | "eventTimeWindow">): Aggregation {
  if (eventTimeWindow === "hour") return "last_received_of_hour";
  if (eventTimeWindow === "day") return "last_received_of_day";
  return BY_FORMULA[formula];
}
