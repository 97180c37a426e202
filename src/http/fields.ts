// zod is imported as `* as z` everywhere: then a bundler leaves out what is not used, above all the messages in other languages.
import * as z from "zod";
import type { MeteringError } from "../domain/errors.ts";
import { type EventReport, readPayload } from "../domain/event.ts";
import { OWN_PREFIX } from "../domain/identifiers.ts";
import { LIMITS } from "../domain/limits.ts";
import { err, ok, type Result } from "../domain/result.ts";
import { isLongerThan, isStorable, nameFault } from "../domain/text.ts";
import { SECOND_MS } from "../domain/window.ts";
import { parseTimestamp } from "./timestamps.ts";

/** The message of an issue about a parameter that is not there. */
const MISSING = "missing";

/** A field that must be there; its absence is Stripe's "Missing required param". */
export const requiredError = {
  error: (issue: { input?: unknown }): string | undefined => (issue.input === undefined ? MISSING : undefined),
};

/** Text of 1 to `max` characters that every store keeps as it is. */
export const text = (max: number) =>
  z
    .string(requiredError)
    .min(1, "it cannot be empty.")
    .refine((given) => !isLongerThan(given, max), `it can have at most ${max} characters.`)
    .refine(isStorable, "it contains characters that cannot be stored.")
    .meta({ maxLength: max });

/** Text that can name an event or a customer; see `nameFault`. */
const name = (max: number) =>
  text(max).refine((given) => nameFault(given) === undefined, { error: ({ input }) => nameFault(String(input)) ?? "" });

/** One of a few words. */
export const choice = <const T extends readonly [string, ...string[]]>(words: T) =>
  z.enum(words, {
    error: ({ input }) => (input === undefined ? MISSING : `it must be one of ${words.join(", ")}.`),
  });

const INTEGER = /^-?[0-9]{1,12}$/;

/** A v1 time: whole seconds since 1970, as digits. */
export const unixSeconds = z
  .string(requiredError)
  .regex(INTEGER, "it must be a Unix timestamp in seconds.")
  .transform(Number)
  .meta({ type: "integer", example: 1711656000 });

const NOT_RFC_3339 = "it must be an RFC 3339 timestamp.";

/** A v2 time: RFC 3339, in ms. */
export const rfc3339 = z
  .string(NOT_RFC_3339)
  .transform((given, context) => {
    const ms = parseTimestamp(given);
    if (ms === undefined) context.addIssue({ code: "custom", message: NOT_RFC_3339 });
    return ms ?? z.NEVER;
  })
  .meta({ type: "string", format: "date-time" });

/** A time in ms as v1 writes it: whole seconds. */
export const toUnix = (ms: number): number => Math.floor(ms / SECOND_MS);

/** The identifier of a reported event. Those that the service makes are a namespace of its own. */
export const reportedIdentifier = text(LIMITS.identifierLength).refine(
  (identifier) => !identifier.startsWith(OWN_PREFIX),
  `it cannot begin with ${OWN_PREFIX}, as the identifiers do that the service makes.`,
);

const EVENT_NAME = { example: "ai_search_api" };

export const eventName = name(LIMITS.eventNameLength).meta({
  ...EVENT_NAME,
  description: "Without control characters, and without white space around it.",
});

/** The event name of one event among many: a name that no meter can have is that event's fault, not its stream's. */
export const streamedEventName = text(LIMITS.eventNameLength).meta(EVENT_NAME);

/** An event's payload: a flat map of strings; a number is taken as its digits. */
export const payload = z
  .unknown()
  .transform((raw, context) => {
    if (raw === undefined) {
      context.addIssue({ code: "custom", message: MISSING });
      return z.NEVER;
    }
    const read = readPayload(raw);
    if (read.ok) return read.value;
    const { message, key } = read.error;
    context.addIssue({ code: "custom", message, path: key === undefined ? [] : [key] });
    return z.NEVER;
  })
  .meta({
    type: "object",
    additionalProperties: { type: ["string", "number"], maxLength: LIMITS.payloadValueLength },
    propertyNames: { minLength: 1, maxLength: LIMITS.payloadKeyLength },
    maxProperties: LIMITS.payloadKeys,
    example: { stripe_customer_id: "cus_1", value: "25" },
    description: `The customer, the value, and any further dimensions. An integer is taken as its digits. At most ${LIMITS.payloadBytes} bytes as JSON.`,
  });

/** A report from the fields of an event, whichever API version and encoding they came by. `timestamp` in ms. */
export const toReport = (fields: {
  readonly event_name: string;
  readonly payload: z.output<typeof payload>;
  readonly identifier?: string | undefined;
  readonly timestamp?: number | undefined;
}): EventReport => ({
  eventName: fields.event_name,
  ...fields.payload,
  identifier: fields.identifier,
  timestamp: fields.timestamp,
});

/** Checks raw fields against a schema; the first thing that is wrong becomes the error. */
export function check<T>(schema: z.ZodType<T>, raw: unknown): Result<T, MeteringError> {
  const checked = schema.safeParse(raw);
  if (checked.success) return ok(checked.data);
  const [issue] = checked.error.issues;
  return err(issue === undefined ? { reason: "invalid_field", message: "Invalid request." } : toError(issue));
}

function toError(issue: z.core.$ZodIssue): MeteringError {
  if (issue.code === "unrecognized_keys")
    return { reason: "unknown_parameter", param: paramOf([...issue.path, issue.keys[0] ?? ""]) };
  const param = paramOf(issue.path);
  if (issue.message === MISSING) return { reason: "missing_parameter", param };
  return { reason: "invalid_field", message: `Invalid ${param}: ${issue.message}`, param };
}

/**
 * The name of the first v1 parameter that is there but empty (the SDKs send null so), or nothing. What a
 * payload holds is the meter's to judge.
 */
export function emptyParameter(fields: unknown, path: readonly string[] = []): string | undefined {
  if (fields === "") return paramOf(path);
  if (typeof fields !== "object" || fields === null || path[0] === "payload") return undefined;
  for (const [key, value] of Object.entries(fields)) {
    const found = emptyParameter(value, [...path, key]);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** A name as forms write it, `payload[value]`, no longer than a message should quote. */
function paramOf(path: readonly PropertyKey[]): string {
  const [first = "", ...rest] = path.map((part) => shortened(String(part)));
  return first + rest.map((part) => `[${part}]`).join("");
}

/** No half of a surrogate pair is left over: an error's text is well-formed. */
const shortened = (part: string): string =>
  isLongerThan(part, LIMITS.payloadKeyLength)
    ? [...part.slice(0, 2 * LIMITS.payloadKeyLength)].slice(0, LIMITS.payloadKeyLength).join("")
    : part;
