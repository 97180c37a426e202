import type { MeteringError } from "../domain/errors.ts";
import { type EventReport, readPayload } from "../domain/event.ts";
import { OWN_PREFIX } from "../domain/identifiers.ts";
import { LIMITS } from "../domain/limits.ts";
import type { Cursor } from "../domain/page.ts";
import { err, ok, type Result } from "../domain/result.ts";
import { isLongerThan, isStorable, nameFault } from "../domain/text.ts";
import { SECOND_MS } from "../domain/window.ts";
import { MISSING, requiredError } from "./input.ts";
import { parseTimestamp } from "./timestamps.ts";
import * as z from "./zod.ts";

/** Text of 1 to `max` characters that every store keeps as it is. */
export const text = (max: number) =>
  z
    .string(requiredError)
    .min(1, "it cannot be empty.")
    .refine((given) => !isLongerThan(given, max), `it can have at most ${max} characters.`)
    .refine(isStorable, "it contains characters that cannot be stored.")
    .openapi({ maxLength: max });

/** Text that can name an event or a customer: no two names look the same. */
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
  .openapi({ type: "integer", example: 1711656000 });

const NOT_RFC_3339 = "it must be an RFC 3339 timestamp.";

/** A v2 time: RFC 3339, in ms. */
export const rfc3339 = z
  .string(NOT_RFC_3339)
  .transform((given, context) => {
    const ms = parseTimestamp(given);
    if (ms === undefined) context.addIssue({ code: "custom", message: NOT_RFC_3339 });
    return ms ?? z.NEVER;
  })
  .openapi({ type: "string", format: "date-time" });

/** A time in ms as v1 answers it: whole seconds. */
export const toUnix = (ms: number): number => Math.floor(ms / SECOND_MS);

/** How many objects a page holds. */
export const pageLimit = z
  .string()
  .regex(/^[0-9]{1,3}$/, "it must be an integer.")
  .transform(Number)
  .refine((limit) => limit >= 1 && limit <= LIMITS.pageSize, `it must be between 1 and ${LIMITS.pageSize}.`)
  .default(10)
  .openapi({ type: "integer", minimum: 1, maximum: LIMITS.pageSize, default: 10 });

/** The cursor of a list call; nothing for the first page. */
export function cursorOf(input: {
  starting_after?: string | undefined;
  ending_before?: string | undefined;
}): Result<Cursor | undefined, MeteringError> {
  const { starting_after, ending_before } = input;
  if (starting_after !== undefined && ending_before !== undefined) {
    return err({
      reason: "invalid_field",
      message: "Only one of starting_after and ending_before can be given.",
      param: "ending_before",
    });
  }
  if (starting_after !== undefined) return ok({ id: starting_after, param: "starting_after" });
  return ok(ending_before === undefined ? undefined : { id: ending_before, param: "ending_before" });
}

/** The paging parameters of a v1 list. */
export const paging = {
  limit: pageLimit,
  starting_after: text(200).optional().openapi({ description: "The id after which the page begins." }),
  ending_before: text(200).optional().openapi({ description: "The id before which the page ends." }),
};

/** The identifier of a reported event. Those that the service makes are a namespace of its own. */
export const reportedIdentifier = text(LIMITS.identifierLength).refine(
  (identifier) => !identifier.startsWith(OWN_PREFIX),
  `it cannot begin with ${OWN_PREFIX}, as the identifiers do that the service makes.`,
);

const EVENT_NAME = { example: "ai_search_api" };

export const eventName = name(LIMITS.eventNameLength).openapi({
  ...EVENT_NAME,
  description: "Without control characters, and without white space around it.",
});

/** The event name of one event among many: a name that no meter can have is that event's fault, not its stream's. */
export const streamedEventName = text(LIMITS.eventNameLength).openapi(EVENT_NAME);

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
  .openapi({
    type: "object",
    additionalProperties: { type: ["string", "number"], maxLength: LIMITS.payloadValueLength },
    propertyNames: { minLength: 1, maxLength: LIMITS.payloadKeyLength },
    maxProperties: LIMITS.payloadKeys,
    example: { stripe_customer_id: "cus_1", value: "25" },
    description: `The customer, the value, and any further dimensions. An integer is taken as its digits. At most ${LIMITS.payloadBytes} bytes as JSON.`,
  } as never);

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
