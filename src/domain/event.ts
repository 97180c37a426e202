import type { MeteringError } from "./errors.ts";
import { fingerprint } from "./identifiers.ts";
import { LIMITS, TIMESTAMP_AHEAD_MS, TIMESTAMP_PAST_MS } from "./limits.ts";
import { type Aggregation, aggregationOf, type Meter } from "./meter.ts";
import { err, ok, type Result } from "./result.ts";
import { isLongerThan, isStorable, nameFault } from "./text.ts";
import { parseValue } from "./value.ts";

export type Payload = Readonly<Record<string, string>>;

/** What a product reports, the same for both API versions. */
export type EventReport = {
  readonly eventName: string;
  readonly payload: Payload;
  /** Payload keys whose value came as a JSON number that is no exact integer; absent when there are none. */
  readonly inexact?: readonly string[];
  /** Absent: the service makes one. */
  readonly identifier: string | undefined;
  /** When it happened (ms). Absent: when it is received. */
  readonly timestamp: number | undefined;
};

/** Why the rules of an event refuse a report. */
export type Refusal = Extract<
  MeteringError,
  {
    reason:
      | "no_meter"
      | "archived_meter"
      | "payload_no_customer_defined"
      | "invalid_customer"
      | "payload_no_value_defined"
      | "payload_invalid_value"
      | "missing_dimension_payload_keys"
      | "invalid_dimension"
      | "timestamp_too_far_in_past"
      | "timestamp_in_future";
  }
>;

/** A report that has passed every rule that needs neither lock nor log. */
export type AdmittedEvent = {
  readonly meter: string;
  readonly customer: string;
  /** 1 for a `count` meter, which ignores the reported value. */
  readonly value: number;
  readonly aggregation: Aggregation;
  readonly timestamp: number | undefined;
  /** The values of the dimensions that the meter declares: canonical JSON, or "" when it declares none. */
  readonly dimensions: string;
  /** What the payload holds besides customer, value and those. */
  readonly payload: Payload | undefined;
};

/** What is wrong with the shape of a payload: with one key of it, or with the whole. */
type PayloadFault = { readonly message: string; readonly key?: string };

/**
 * Checks the shape of a payload: a flat map of strings, within the limits. A JSON number becomes its
 * digits; what it means when those are not exact depends on the meter, so `admit` judges it.
 */
export function readPayload(raw: unknown): Result<Pick<EventReport, "payload" | "inexact">, PayloadFault> {
  if (typeof raw !== "object" || raw === null || Array.isArray(raw))
    return err({ message: "it must be a map of strings." });
  const entries = Object.entries(raw);
  if (entries.length > LIMITS.payloadKeys) return err({ message: `it can have at most ${LIMITS.payloadKeys} keys.` });
  const payload: Record<string, string> = {};
  const inexact: string[] = [];
  let characters = 0;
  for (const [key, value] of entries) {
    const text = typeof value === "number" ? String(value) : value;
    const message = keyFault(key) ?? valueFault(text);
    if (message !== undefined) return err({ message, key });
    if (typeof value === "number" && !Number.isSafeInteger(value)) inexact.push(key);
    payload[key] = text;
    characters += key.length + text.length;
  }
  // A character takes at most six bytes of JSON, so most payloads need no second look.
  if (
    characters * 6 + entries.length * 6 > LIMITS.payloadBytes &&
    Buffer.byteLength(JSON.stringify(payload)) > LIMITS.payloadBytes
  ) {
    return err({ message: `it can have at most ${LIMITS.payloadBytes} bytes as JSON.` });
  }
  return ok(inexact.length === 0 ? { payload } : { payload, inexact });
}

function keyFault(key: string): string | undefined {
  if (key === "" || isLongerThan(key, LIMITS.payloadKeyLength)) {
    return `a payload key must have 1 to ${LIMITS.payloadKeyLength} characters.`;
  }
  // "__proto__" cannot be a plain object's key, and dropping it silently would change what was reported.
  return key === "__proto__" || !isStorable(key)
    ? "a payload key contains characters that cannot be stored."
    : undefined;
}

function valueFault(value: unknown): string | undefined {
  if (typeof value !== "string") return "it must be a string: a payload is a flat map of strings.";
  if (isLongerThan(value, LIMITS.payloadValueLength)) {
    return `it can have at most ${LIMITS.payloadValueLength} characters.`;
  }
  return isStorable(value) ? undefined : "it contains characters that cannot be stored.";
}

/**
 * Applies the rules of an event in the order of docs/wire-contract.md, section 6: the meter exists, is active,
 * customer present and a name, value present, value valid, dimensions present and exact, timestamp in reach. `now` in ms.
 */
export function admit(report: EventReport, meter: Meter | undefined, now: number): Result<AdmittedEvent, Refusal> {
  const { eventName, payload, inexact = [], timestamp } = report;
  if (meter === undefined) return err({ reason: "no_meter", eventName });
  if (meter.status !== "active") return err({ reason: "archived_meter", eventName });
  const { customerKey, valueKey } = meter;
  const isDimension = (key: string): boolean => key !== valueKey || meter.dimensionKeys.includes(key);

  const customer = field(payload, customerKey);
  if (!customer) return err({ reason: "payload_no_customer_defined", key: customerKey });
  const fault = inexact.includes(customerKey) ? INEXACT : nameFault(customer);
  if (fault !== undefined) return err({ reason: "invalid_customer", key: customerKey, fault });

  let value: number | undefined = 1;
  if (meter.formula !== "count") {
    const text = field(payload, valueKey);
    if (!text) return err({ reason: "payload_no_value_defined", key: valueKey });
    value = parseValue(text);
    if (value === undefined) return err({ reason: "payload_invalid_value", key: valueKey, value: text });
  }

  const keys = meter.dimensionKeys.filter((key) => !Object.hasOwn(payload, key));
  if (keys.length > 0) return err({ reason: "missing_dimension_payload_keys", keys });
  // The value is judged above, and a count meter ignores it, unless it is a dimension of it.
  const rounded = inexact.find((key) => isDimension(key) && isRounded(payload[key] ?? ""));
  if (rounded !== undefined) return err({ reason: "invalid_dimension", key: rounded, fault: INEXACT });

  if (timestamp !== undefined) {
    const earliest = now - TIMESTAMP_PAST_MS;
    const latest = now + TIMESTAMP_AHEAD_MS;
    if (timestamp < earliest) return err({ reason: "timestamp_too_far_in_past", earliest });
    if (timestamp > latest) return err({ reason: "timestamp_in_future", latest });
  }
  return ok({
    meter: meter.id,
    customer,
    value,
    aggregation: aggregationOf(meter),
    timestamp,
    dimensions: dimensionsOf(payload, meter),
    payload: restOf(payload, meter),
  });
}

/** Two customers that came as numbers like 1.10 and 1.1, or past 2^53, would become one. */
const INEXACT = "it is a number that is not kept exactly; send it as a string.";

/** Whether a number's text has lost digits that a sender may have meant. A fraction like 0.5 is its own text. */
const isRounded = (text: string): boolean => Math.abs(Number(text)) > Number.MAX_SAFE_INTEGER;

/** An own key's value; `payload["constructor"]` alone would find what every object inherits. */
const field = (payload: Payload, key: string): string | undefined =>
  Object.hasOwn(payload, key) ? payload[key] : undefined;

/** The payload of a stored event: its dimensions, what else it held, and customer and value under its meter's keys. */
export function payloadOf(
  { customer, value, dimensions, payload }: Pick<AdmittedEvent, "customer" | "value" | "dimensions" | "payload">,
  { customerKey, valueKey, formula }: Meter,
): Payload {
  const declared: Payload = dimensions === "" ? {} : JSON.parse(dimensions);
  return {
    [customerKey]: customer,
    ...(formula === "count" ? {} : { [valueKey]: String(value) }),
    ...declared,
    ...payload,
  };
}

/** The declared dimensions of a payload as JSON, in the order of their keys: the same values are the same text. */
function dimensionsOf(payload: Payload, { dimensionKeys }: Meter): string {
  if (dimensionKeys.length === 0) return "";
  return JSON.stringify(Object.fromEntries([...dimensionKeys].sort().map((key) => [key, payload[key]])));
}

/**
 * What is left of a payload without its customer, its dimensions and (unless ignored) its value: those stand in
 * columns of their own.
 */
function restOf(payload: Payload, { customerKey, valueKey, formula, dimensionKeys }: Meter): Payload | undefined {
  const rest = Object.entries(payload).filter(
    ([key]) => key !== customerKey && (key !== valueKey || formula === "count") && !dimensionKeys.includes(key),
  );
  return rest.length === 0 ? undefined : Object.fromEntries(rest);
}

/**
 * What a report says, in 16 characters: the same for the same body sent again, whatever the order of its
 * payload and whatever the endpoint.
 */
export function reportDigest({ eventName, payload, inexact = [], identifier, timestamp }: EventReport): string {
  const pairs = Object.entries(payload).sort(([a], [b]) => (a < b ? -1 : 1));
  const time = timestamp === undefined ? "" : String(timestamp);
  return fingerprint(eventName, identifier ?? "", time, ...pairs.flat(), ...inexact);
}

/** What a request that reports one event says: an Idempotency-Key belongs to one endpoint, so that counts too. */
export const requestDigest = (endpoint: string, report: EventReport): string =>
  fingerprint(endpoint, reportDigest(report));
