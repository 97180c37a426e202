import { ok } from "../../domain/result.ts";
import { cancelEvent } from "../../ingest/cancel-event.ts";
import { answerFirstGivenTo, defineEndpoint } from "../endpoint.ts";
import { adjustmentFields } from "../v2/meter-event-adjustments.ts";
import * as z from "../zod.ts";

const Adjustment = z
  .object({
    object: z.literal("billing.meter_event_adjustment"),
    cancel: z.object({ identifier: z.string() }),
    event_name: z.string(),
    livemode: z.boolean(),
    status: z.enum(["pending", "complete"]),
    type: z.literal("cancel"),
  })
  .openapi("MeterEventAdjustment");

const createAdjustment = defineEndpoint({
  apiVersion: "v1",
  method: "post",
  path: "/v1/billing/meter_event_adjustments",
  tag: "Adjustments",
  summary: "Cancel an event",
  description: "As its v2 twin, without an id.",
  needs: "ingest",
  limit: "sync_events",
  fields: adjustmentFields,
  response: Adjustment,
  handle: async (call) => {
    const { event_name, type, cancel } = call.input;
    const cancelled = await cancelEvent({ eventName: event_name, identifier: cancel.identifier }, call);
    if (!cancelled.ok) return cancelled;
    const adjustment: z.output<typeof Adjustment> = {
      object: "billing.meter_event_adjustment",
      cancel: { identifier: cancel.identifier },
      event_name,
      livemode: call.key.livemode,
      status: "pending",
      type,
    };
    return ok(answerFirstGivenTo(cancelled.value.token, JSON.stringify(adjustment), call));
  },
});

export const adjustmentEndpoints = [createAdjustment];
