import type { Endpoint } from "./endpoint.ts";

/**
 * A file of endpoints, and their paths, or what those begin with. The file is evaluated when one of them is first asked for:
 * an isolate that takes events, or has Durable Objects alone, starts without the schemas of all others.
 */
type Resource = readonly [load: () => Promise<readonly Endpoint[]>, ...paths: readonly string[]];

/** Every file of endpoints, in the order of the API's description. */
export const RESOURCES: readonly Resource[] = [
  [async () => (await import("./v2/meter-events.ts")).meterEventEndpoints, "/v2/billing/meter_events"],
  [async () => (await import("./v1/meter-events.ts")).meterEventEndpoints, "/v1/billing/meter_events"],
  [
    async () => (await import("./v2/meter-event-session.ts")).meterEventSessionEndpoints,
    "/v2/billing/meter_event_session",
  ],
  [
    async () => (await import("./v2/meter-event-stream.ts")).meterEventStreamEndpoints,
    "/v2/billing/meter_event_stream",
  ],
  [async () => (await import("./v2/core-events.ts")).coreEventEndpoints, "/v2/core/events"],
  [
    async () => (await import("./v2/meter-event-adjustments.ts")).adjustmentEndpoints,
    "/v2/billing/meter_event_adjustments",
  ],
  [
    async () => (await import("./v1/meter-event-adjustments.ts")).adjustmentEndpoints,
    "/v1/billing/meter_event_adjustments",
  ],
  [async () => (await import("./v1/meters.ts")).meterEndpoints, "/v1/billing/meters"],
  [async () => (await import("./v1/event-summaries.ts")).eventSummaryEndpoints, "/v1/billing/meters"],
  [async () => (await import("./v1/meter-usage.ts")).meterUsageEndpoints, "/v1/billing/analytics/meter_usage"],
  [async () => (await import("./admin/usage.ts")).usageEndpoints, "/v1/edgemeter/usage", "/v1/edgemeter/customers"],
  [async () => (await import("./admin/pipeline.ts")).pipelineEndpoints, "/v1/edgemeter/pipeline"],
  [async () => (await import("./admin/dead-letters.ts")).deadLetterEndpoints, "/v1/edgemeter/dead_letters"],
  [async () => (await import("./admin/audit.ts")).auditEndpoints, "/v1/edgemeter/audit"],
  [async () => (await import("./admin/archive-audit.ts")).archiveAuditEndpoints, "/v1/edgemeter/archive_audit"],
  [async () => (await import("./admin/resend.ts")).resendEndpoints, "/v1/edgemeter/resend"],
  [async () => (await import("./admin/erasures.ts")).erasureEndpoints, "/v1/edgemeter/erasures"],
  [async () => (await import("./admin/events.ts")).exportEndpoints, "/v1/edgemeter/events"],
  [async () => (await import("./admin/restore.ts")).restoreEndpoints, "/v1/edgemeter/restore"],
];

/** Every endpoint, in the same order. */
export const allEndpoints = (): Promise<readonly Endpoint[]> => endpointsOf(RESOURCES);

/** The endpoints of these files. */
export const endpointsOf = async (resources: readonly Resource[]): Promise<readonly Endpoint[]> =>
  (await Promise.all(resources.map(([load]) => load()))).flat();
