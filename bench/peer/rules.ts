// What the peer checks of an event: the same rules, in the same order, as src/domain/event.ts.
import { LIMITS, TIMESTAMP_AHEAD_MS, TIMESTAMP_PAST_MS } from "../../src/domain/limits.ts";
import { err, ok, type Result } from "../../src/domain/result.ts";

export type Meter = {
  readonly id: string;
  readonly formula: "sum" | "count";
  readonly customerKey: string;
  readonly valueKey: string;
  readonly status: "active" | "inactive";
};

/** An event's JSON, once Fastify has checked it against `reportSchema`. */
export type Report = {
  readonly event_name: string;
  readonly payload: Readonly<Record<string, string | number>>;
  readonly identifier?: string;
  readonly timestamp?: string;
};

/** A report that needs nothing but its turn and an identifier that is free. */
export type Admitted = {
  readonly meter: string;
  readonly customer: string;
  /** Digits; 1 for a `count` meter. */
  readonly value: string;
  /** When it happened, ISO. */
  readonly timestamp: string;
  readonly payload: Readonly<Record<string, string>>;
  /** The payload without customer and value, as JSON. */
  readonly dimensions: string | null;
};

/** A wire error: `code` and `message` of Stripe's v2 envelope. */
export type Refusal = { readonly status: 400 | 401 | 409; readonly code: string; readonly message: string };

/** PostgreSQL keeps neither NUL nor half a surrogate pair. */
const storable = "^[^\\u0000\\ud800-\\udfff]*$";
const text = (maxLength: number) => ({ type: "string", minLength: 1, maxLength, pattern: storable });

/** The shape of an event, for ajv. */
export const reportSchema = {
  type: "object",
  required: ["event_name", "payload"],
  additionalProperties: false,
  properties: {
    event_name: text(LIMITS.eventNameLength),
    payload: {
      type: "object",
      maxProperties: LIMITS.payloadKeys,
      propertyNames: text(LIMITS.payloadKeyLength),
      additionalProperties: {
        type: ["string", "integer"],
        maxLength: LIMITS.payloadValueLength,
        pattern: storable,
        maximum: Number.MAX_SAFE_INTEGER,
        minimum: Number.MIN_SAFE_INTEGER,
      },
    },
    identifier: text(LIMITS.identifierLength),
    timestamp: { type: "string", format: "date-time" },
  },
} as const;

const VALUE = /^[1-9][0-9]{0,14}$/;

const refuse = (code: string, message: string): Result<never, Refusal> => err({ status: 400, code, message });

/** The rules that need neither lock nor uniqueness. `now` in ms. */
export function admit(report: Report, meter: Meter | undefined, now: number): Result<Admitted, Refusal> {
  const { event_name: eventName, timestamp } = report;
  if (meter?.status !== "active") {
    const code = meter === undefined ? "no_meter" : "archived_meter";
    return refuse(code, `No active meter found for event name "${eventName}".`);
  }
  const payload = Object.fromEntries(Object.entries(report.payload).map(([key, value]) => [key, String(value)]));
  if (Buffer.byteLength(JSON.stringify(payload)) > LIMITS.payloadBytes) {
    return refuse("invalid_fields", `payload can have at most ${LIMITS.payloadBytes} bytes as JSON.`);
  }
  const { [meter.customerKey]: customer, ...others } = payload;
  if (!customer) {
    return refuse("payload_no_customer_defined", `Customer mapping key ${meter.customerKey} not found in payload.`);
  }
  const { [meter.valueKey]: reported, ...rest } = others;
  const counts = meter.formula === "count";
  if (!counts && !reported) {
    return refuse("payload_no_value_defined", `Value key ${meter.valueKey} not found in payload.`);
  }
  const value = counts ? "1" : (reported ?? "");
  if (!VALUE.test(value)) {
    return refuse(
      "payload_invalid_value",
      `The value in the event payload must be a positive integer of at most 15 digits. Received ${value}.`,
    );
  }
  const at = timestamp === undefined ? now : Date.parse(timestamp);
  if (at < now - TIMESTAMP_PAST_MS) {
    return refuse("timestamp_too_far_in_past", "The event timestamp cannot be more than 35 days in past.");
  }
  if (at > now + TIMESTAMP_AHEAD_MS) {
    return refuse("timestamp_in_future", "The event timestamp cannot be more than 5 minutes in the future.");
  }
  const dimensions = counts ? others : rest;
  return ok({
    meter: meter.id,
    customer,
    value,
    timestamp: new Date(at).toISOString(),
    payload,
    dimensions: Object.keys(dimensions).length === 0 ? null : JSON.stringify(dimensions),
  });
}
