import type { MeteringError } from "./errors.ts";
import { fingerprint } from "./identifiers.ts";
import { LIMITS, TIMESTAMP_AHEAD_MS, TIMESTAMP_PAST_MS } from "./limits.ts";
import { type Aggregation, aggregationOf, type Meter } from "./meters.ts";
import { err, ok, type Result } from "./result.ts";
import { parseValue } from "./values.ts";

export type Payload = Readonly<Record<string, string>>;

/** What a product reports, as either door (v1 or v2) hands it over. */
export type EventReport = {
  readonly eventName: string;
  readonly payload: Payload;
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
      | "payload_no_value_defined"
      | "payload_invalid_value"
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
  /** What the payload holds besides customer and value. */
  readonly dimensions: Payload | undefined;
};

const invalid = (message: string, param: string): Result<never, MeteringError> =>
  err({ reason: "invalid_field", message, param });

/**
 * Whether text survives every store unchanged: NUL ends strings in some of SQLite's functions, and
 * a lone surrogate has no UTF-8, so two different texts would become one.
 */
export const isStorable = (text: string): boolean => !text.includes("\0") && text.isWellFormed();

/** Checks the shape of a payload: a flat map of strings (an integer is taken as its digits), within the limits. */
export function readPayload(raw: unknown): Result<Payload, MeteringError> {
  if (typeof raw !== "object" || raw === null || Array.isArray(raw)) {
    return invalid("payload must be a map of strings.", "payload");
  }
  const entries = Object.entries(raw);
  if (entries.length > LIMITS.payloadKeys)
    return invalid(`payload can have at most ${LIMITS.payloadKeys} keys.`, "payload");
  const payload: Record<string, string> = {};
  let characters = 0;
  for (const [key, value] of entries) {
    if (key === "" || key.length > LIMITS.payloadKeyLength) {
      return invalid(`A payload key must have 1 to ${LIMITS.payloadKeyLength} characters.`, "payload");
    }
    // Such a number has lost digits before it came here: two customers could become one.
    if (typeof value === "number" && Math.abs(value) > Number.MAX_SAFE_INTEGER) {
      return err({ reason: "payload_invalid_value", key, value: String(value) });
    }
    const text = typeof value === "number" ? String(value) : value;
    if (typeof text !== "string") return invalid("payload must be a flat map of strings.", `payload[${key}]`);
    if (text.length > LIMITS.payloadValueLength) {
      return invalid(`A payload value can have at most ${LIMITS.payloadValueLength} characters.`, `payload[${key}]`);
    }
    // "__proto__" cannot be a plain object's key, and dropping it silently would change what was reported.
    if (key === "__proto__" || !isStorable(key) || !isStorable(text)) {
      return invalid("A payload key or value contains characters that cannot be stored.", "payload");
    }
    payload[key] = text;
    characters += key.length + text.length;
  }
  // A character takes at most six bytes of JSON, so most payloads need no second look.
  if (
    characters * 6 + entries.length * 6 > LIMITS.payloadBytes &&
    Buffer.byteLength(JSON.stringify(payload)) > LIMITS.payloadBytes
  ) {
    return invalid(`payload can have at most ${LIMITS.payloadBytes} bytes as JSON.`, "payload");
  }
  return ok(payload);
}

/**
 * Applies the rules of an event in the order of the wire contract: the meter exists, is active,
 * customer present, value present, value valid, timestamp in reach. `now` in ms.
 */
export function admit(report: EventReport, meter: Meter | undefined, now: number): Result<AdmittedEvent, Refusal> {
  const { eventName, payload, timestamp } = report;
  if (meter === undefined) return err({ reason: "no_meter", eventName });
  if (meter.status !== "active") return err({ reason: "archived_meter", eventName });
  const { customerKey, valueKey } = meter;

  const customer = field(payload, customerKey);
  if (!customer) return err({ reason: "payload_no_customer_defined", key: customerKey });

  let value: number | undefined = 1;
  if (meter.formula !== "count") {
    const text = field(payload, valueKey);
    if (!text) return err({ reason: "payload_no_value_defined", key: valueKey });
    value = parseValue(text);
    if (value === undefined) return err({ reason: "payload_invalid_value", key: valueKey, value: text });
  }

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
  });
}

/** An own key's value; `payload["constructor"]` alone would find what every object inherits. */
const field = (payload: Payload, key: string): string | undefined =>
  Object.hasOwn(payload, key) ? payload[key] : undefined;

/** The payload of a stored event: its dimensions, and customer and value under its meter's keys. */
export function payloadOf(
  { customer, value, dimensions }: Pick<AdmittedEvent, "customer" | "value" | "dimensions">,
  { customerKey, valueKey, formula }: Meter,
): Payload {
  return { [customerKey]: customer, ...(formula === "count" ? {} : { [valueKey]: String(value) }), ...dimensions };
}

/** What is left of a payload without its customer and (unless ignored) its value: both stand in columns of their own. */
function dimensionsOf(payload: Payload, { customerKey, valueKey, formula }: Meter): Payload | undefined {
  const rest = Object.entries(payload).filter(
    ([key]) => key !== customerKey && (key !== valueKey || formula === "count"),
  );
  return rest.length === 0 ? undefined : Object.fromEntries(rest);
}

/**
 * What a report says, in 16 characters: the same for the same body sent again, whatever the order of its
 * payload and whatever the endpoint.
 */
export function reportDigest({ eventName, payload, identifier, timestamp }: EventReport): string {
  const pairs = Object.entries(payload).sort(([a], [b]) => (a < b ? -1 : 1));
  return fingerprint(eventName, identifier ?? "", timestamp === undefined ? "" : String(timestamp), ...pairs.flat());
}

/** What a request that reports one event says: an Idempotency-Key belongs to one endpoint, so that counts too. */
export const requestDigest = (endpoint: string, report: EventReport): string =>
  fingerprint(endpoint, reportDigest(report));
