import * as z from "zod";
import { LIMITS } from "../../domain/limits.ts";
import { type Adjustment, cancelEvent } from "../../ingest/cancel-event.ts";
import { type Call, defineEndpoint } from "../endpoint.ts";
import { choice, eventName, requiredError, text } from "../fields.ts";
import { firstGivenTo, type Handled } from "../response.ts";

/** The parameters of an adjustment, in both API versions. */
export const adjustmentFields = {
  event_name: eventName,
  type: choice(["cancel"]),
  cancel: z.strictObject({ identifier: text(LIMITS.identifierLength) }, requiredError),
};

/** What both API versions say of an adjustment. */
export const commonShape = {
  cancel: z.object({ identifier: z.string() }),
  event_name: z.string(),
  livemode: z.boolean(),
  status: z.enum(["pending", "complete"]),
  type: z.literal("cancel"),
};

type Common = z.output<z.ZodObject<typeof commonShape>>;

const AdjustmentObject = z
  .object({
    object: z.literal("v2.billing.meter_event_adjustment"),
    id: z.string(),
    created: z.iso.datetime(),
    ...commonShape,
  })
  .meta({ id: "V2MeterEventAdjustment" });

/** Cancels the event that a call names; `toWire` makes the response of what both API versions say and the rest. */
export async function createAdjustment<T extends object>(
  call: Call<z.output<z.ZodObject<typeof adjustmentFields>>>,
  toWire: (common: Common, adjustment: Adjustment) => T,
): Promise<Handled<T>> {
  const { event_name, type, cancel } = call.input;
  const cancelled = await cancelEvent({ eventName: event_name, identifier: cancel.identifier }, call);
  if (!cancelled.ok) return cancelled;
  const common: Common = { cancel, event_name, livemode: call.key.livemode, status: "pending", type };
  return firstGivenTo(cancelled.value.token, toWire(common, cancelled.value));
}

const createEndpoint = defineEndpoint({
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
  response: AdjustmentObject,
  handle: (call) =>
    createAdjustment(call, (common, { id, created }) => ({
      object: "v2.billing.meter_event_adjustment",
      id,
      created: new Date(created).toISOString(),
      ...common,
    })),
});

export const adjustmentEndpoints = [createEndpoint];
