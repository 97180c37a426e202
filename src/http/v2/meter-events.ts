import * as z from "zod";
import { type Receipt, reportEvent } from "../../ingest/report-event.ts";
import { defineEndpoint } from "../endpoint.ts";
import { eventName, payload, reportedIdentifier, rfc3339, toReport } from "../fields.ts";
import { firstGivenTo } from "../response.ts";

const timestamp = rfc3339.meta({
  description: "When it happened; now, when absent. Within the past 35 days and up to 5 minutes ahead.",
});

/** The fields of an event, alone or in a stream. */
export const eventFields = {
  event_name: eventName,
  payload,
  identifier: reportedIdentifier
    .optional()
    .meta({ description: "Unique within a rolling 24 hours. Made by the service when absent." }),
  timestamp: timestamp.optional(),
};

const MeterEvent = z
  .object({
    object: z.literal("v2.billing.meter_event"),
    created: z.iso.datetime(),
    livemode: z.boolean(),
    identifier: z.string(),
    event_name: z.string(),
    timestamp: z.iso.datetime(),
    payload: z.record(z.string(), z.string()),
  })
  .meta({ id: "V2MeterEvent" });

const iso = (ms: number): string => new Date(ms).toISOString();

const toWire = (event: Receipt, livemode: boolean): z.output<typeof MeterEvent> => ({
  object: "v2.billing.meter_event",
  created: iso(event.received),
  livemode,
  identifier: event.identifier,
  event_name: event.eventName,
  timestamp: iso(event.timestamp),
  payload: event.payload,
});

const createMeterEvent = defineEndpoint({
  apiVersion: "v2",
  method: "post",
  path: "/v2/billing/meter_events",
  tag: "Meter events",
  summary: "Report an event",
  description: "Checked at once. A 200 means that the event is stored and will be counted exactly once.",
  errors: [
    "archived_meter",
    "duplicate_meter_event",
    "missing_dimension_payload_keys",
    "no_meter",
    "payload_invalid_value",
    "payload_no_customer_defined",
    "payload_no_value_defined",
    "timestamp_in_future",
    "timestamp_too_far_in_past",
    "too_many_concurrent_requests",
    "idempotency_error",
    "invalid_fields",
  ],
  fields: eventFields,
  response: MeterEvent,
  needs: "ingest",
  limit: "sync_events",
  claimsKey: true,
  handle: async (call) => {
    const recorded = await reportEvent(toReport(call.input), call);
    if (!recorded.ok) return recorded;
    return firstGivenTo(recorded.value.token, toWire(recorded.value, call.key.livemode));
  },
});

export const meterEventEndpoints = [createMeterEvent];
