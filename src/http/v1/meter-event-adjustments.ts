import * as z from "zod";
import { defineEndpoint } from "../endpoint.ts";
import { adjustmentFields, commonShape, createAdjustment } from "../v2/meter-event-adjustments.ts";

const AdjustmentObject = z
  .object({ object: z.literal("billing.meter_event_adjustment"), ...commonShape })
  .meta({ id: "MeterEventAdjustment" });

const createEndpoint = defineEndpoint({
  apiVersion: "v1",
  method: "post",
  path: "/v1/billing/meter_event_adjustments",
  tag: "Adjustments",
  summary: "Cancel an event",
  description: "As its v2 twin, without an id.",
  needs: "ingest",
  limit: "sync_events",
  fields: adjustmentFields,
  response: AdjustmentObject,
  handle: (call) => createAdjustment(call, (common) => ({ object: "billing.meter_event_adjustment", ...common })),
});

export const adjustmentEndpoints = [createEndpoint];
