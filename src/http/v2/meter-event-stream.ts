import { LIMITS } from "../../domain/limits.ts";
import { ok } from "../../domain/result.ts";
import { recordStream } from "../../ingest/report-stream.ts";
import { defineEndpoint } from "../endpoint.ts";
import { streamedEventName, toReport } from "../fields.ts";
import { requiredError } from "../input.ts";
import * as z from "../zod.ts";
import { eventFields } from "./meter-events.ts";

const streamEvents = defineEndpoint({
  door: "v2",
  method: "post",
  path: "/v2/billing/meter_event_stream",
  auth: "session",
  needs: "ingest",
  limit: "streams",
  tag: "Meter event streams",
  summary: "Report many events",
  description:
    "A 200 means that every valid event is stored and will be counted exactly once, and that every other one will be in an error report. Events whose identifier is taken are ignored. Sent again after a failure, with identifiers or the same Idempotency-Key, nothing counts twice.",
  errors: ["billing_meter_event_session_expired", "idempotency_error", "invalid_fields", "log_full"],
  fields: {
    events: z
      .array(z.strictObject({ ...eventFields, event_name: streamedEventName }), requiredError)
      .min(1, "it cannot be empty.")
      .max(LIMITS.streamEvents, `it can have at most ${LIMITS.streamEvents} events.`),
  },
  response: z.object({}).openapi("V2MeterEventStream"),
  bodyBytes: LIMITS.streamBodyBytes,
  handle: async (call) => {
    const recorded = await recordStream(call.input.events.map(toReport), call);
    return recorded.ok ? ok("{}") : recorded;
  },
});

export const meterEventStreamEndpoints = [streamEvents];
