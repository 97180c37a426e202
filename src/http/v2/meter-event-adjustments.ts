import { LIMITS } from "../../domain/limits.ts";
import { ok } from "../../domain/result.ts";
import { cancelEvent } from "../../ingest/cancel-event.ts";
import { answerFirstGivenTo, defineEndpoint } from "../endpoint.ts";
import { choice, eventName, text } from "../fields.ts";
import { requiredError } from "../input.ts";
import * as z from "../zod.ts";

/** The parameters of an adjustment, in both API versions. */
export const adjustmentFields = {
  event_name: eventName,
  type: choice(["cancel"]),
  cancel: z.strictObject({ identifier: text(LIMITS.identifierLength) }, requiredError),
};

const Adjustment = z
  .object({
    object: z.literal("v2.billing.meter_event_adjustment"),
    id: z.string(),
    cancel: z.object({ identifier: z.string() }),
    created: z.iso.datetime(),
    event_name: z.string(),
    livemode: z.boolean(),
    status: z.enum(["pending", "complete"]),
    type: z.literal("cancel"),
  })
  .openapi("V2MeterEventAdjustment");

const createAdjustment = defineEndpoint({
  apiVersion: "v2",
  method: "post",
  path: "/v2/billing/meter_event_adjustments",
  tag: "Adjustments",
  summary: "Cancel an event",
  description: "Within 24 hours of its receipt. Its identifier stays taken. Summaries follow within seconds.",
  errors: ["invalid_cancel_configuration", "idempotency_error", "invalid_fields"],
  needs: "ingest",
  limit: "sync_events",
  fields: adjustmentFields,
  response: Adjustment,
  handle: async (call) => {
    const { event_name, type, cancel } = call.input;
    const cancelled = await cancelEvent({ eventName: event_name, identifier: cancel.identifier }, call);
    if (!cancelled.ok) return cancelled;
    const adjustment: z.output<typeof Adjustment> = {
      object: "v2.billing.meter_event_adjustment",
      id: cancelled.value.id,
      cancel: { identifier: cancel.identifier },
      created: new Date(cancelled.value.created).toISOString(),
      event_name,
      livemode: call.key.livemode,
      status: "pending",
      type,
    };
    return ok(answerFirstGivenTo(cancelled.value.token, JSON.stringify(adjustment), call));
  },
});

export const adjustmentEndpoints = [createAdjustment];
