import * as z from "zod";
import { LIMITS } from "../../domain/limits.ts";
import { ok } from "../../domain/result.ts";
import { reportStream, type StreamOutcome, type StreamRefusal } from "../../ingest/report-stream.ts";
import { defineEndpoint } from "../endpoint.ts";
import { codeOf, hasTooManyDigits, messageOf } from "../errors.ts";
import { requiredError, streamedEventName, toReport } from "../fields.ts";
import { eventFields } from "./meter-events.ts";

const identifier = z.string().meta({ description: "Made by the service, when the event came without one." });

const Outcome = z
  .discriminatedUnion("outcome", [
    z
      .object({ outcome: z.literal("accepted"), identifier })
      .meta({ description: "Stored, now or by an earlier attempt under the same Idempotency-Key." }),
    z.object({ outcome: z.literal("accepted_before"), identifier }).meta({
      description: "The same report was accepted before, from another request or twice in this one. It counts once.",
    }),
    z
      .object({ outcome: z.literal("refused"), code: z.string(), message: z.string() })
      .meta({ description: "As `POST /v2/billing/meter_events` refuses it. It is in no error report." }),
  ])
  .meta({ id: "V2MeterEventStreamOutcome" });

const MeterEventStream = z
  .object({
    outcomes: z
      .array(Outcome)
      .optional()
      .meta({ description: "One for each event, in their order, where `edgemeter-outcomes: true` asked for them." }),
  })
  .meta({ id: "V2MeterEventStream" });

const streamEvents = defineEndpoint({
  apiVersion: "v2",
  method: "post",
  path: "/v2/billing/meter_event_stream",
  auth: "session",
  needs: "ingest",
  limit: "streams",
  tag: "Meter event streams",
  summary: "Report many events",
  description:
    "A 200 means that every valid event is stored and will be counted exactly once, and that every other one will be in an error report. A report that was accepted before is ignored; one whose identifier another report has is in the error report. Sent again after a failure, with identifiers or the same Idempotency-Key, nothing counts twice. With the header `edgemeter-outcomes: true` the response says what became of each event, and what is refused is in no error report.",
  errors: ["billing_meter_event_session_expired", "idempotency_error", "invalid_fields", "log_full"],
  fields: {
    events: z
      .array(z.strictObject({ ...eventFields, event_name: streamedEventName }), requiredError)
      .min(1, "it cannot be empty.")
      .max(LIMITS.streamEvents, `it can have at most ${LIMITS.streamEvents} events.`),
  },
  headers: {
    "edgemeter-outcomes": z
      .enum(["true", "false"], "this header must be true or false.")
      .default("false")
      .meta({ description: "Whether the response says what became of each event." }),
  },
  response: MeterEventStream,
  bodyBytes: LIMITS.streamBodyBytes,
  claimsKey: true,
  handle: async (call) => {
    const { events, "edgemeter-outcomes": isTold } = call.input;
    const outcomes = await reportStream(events.map(toReport), call, isTold === "true" ? undefined : describe);
    if (!outcomes.ok) return outcomes;
    return ok(isTold === "true" ? { outcomes: outcomes.value.map(toWire) } : {});
  },
});

const toWire = (outcome: StreamOutcome): z.output<typeof Outcome> =>
  outcome.outcome === "refused"
    ? { outcome: "refused", code: codeOf(outcome.refusal), message: messageOf(outcome.refusal) }
    : outcome;

/** What an error report says of a refused event. */
const describe = (refusal: StreamRefusal): { code: string; message: string } => ({
  code: reportCode(refusal),
  message: messageOf(refusal),
});

/** What an error report calls a refusal (docs/wire-contract.md, section 4). */
function reportCode(refusal: StreamRefusal): string {
  switch (refusal.reason) {
    case "payload_no_customer_defined":
      return "meter_event_no_customer_defined";
    case "invalid_customer":
      return "meter_event_invalid_customer";
    case "invalid_dimension":
      return "meter_event_invalid_dimension";
    case "payload_no_value_defined":
      return "meter_event_value_not_found";
    case "payload_invalid_value":
      return hasTooManyDigits(refusal.value) ? "meter_event_value_too_many_digits" : "meter_event_invalid_value";
    case "no_meter":
    case "archived_meter":
    case "duplicate_meter_event":
    case "missing_dimension_payload_keys":
    case "timestamp_in_future":
    case "timestamp_too_far_in_past":
      return refusal.reason;
  }
}

export const meterEventStreamEndpoints = [streamEvents];
