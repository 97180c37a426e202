import type { Endpoint } from "./endpoint.ts";

/** A method and a path, as an endpoint defines them. */
export type Route = `${"get" | "post"} /${string}`;

/**
 * A file of endpoints and their routes, in its order. The file is evaluated when one of them is first asked for: an isolate
 * that takes events, or has Durable Objects alone, starts without the schemas of all others.
 */
type Resource = { readonly load: () => Promise<readonly Endpoint[]>; readonly routes: readonly Route[] };

/** Every file of endpoints, in the order of the API's description. */
const RESOURCES: readonly Resource[] = [
  {
    load: async () => (await import("./v2/meter-events.ts")).meterEventEndpoints,
    routes: ["post /v2/billing/meter_events"],
  },
  {
    load: async () => (await import("./v1/meter-events.ts")).meterEventEndpoints,
    routes: [
      "post /v1/billing/meter_events",
      "get /v1/billing/meter_events",
      "get /v1/billing/meter_events/{identifier}",
    ],
  },
  {
    load: async () => (await import("./v2/meter-event-session.ts")).meterEventSessionEndpoints,
    routes: ["post /v2/billing/meter_event_session"],
  },
  {
    load: async () => (await import("./v2/meter-event-stream.ts")).meterEventStreamEndpoints,
    routes: ["post /v2/billing/meter_event_stream"],
  },
  {
    load: async () => (await import("./v2/core-events.ts")).coreEventEndpoints,
    routes: ["get /v2/core/events", "get /v2/core/events/{id}"],
  },
  {
    load: async () => (await import("./v2/meter-event-adjustments.ts")).adjustmentEndpoints,
    routes: ["post /v2/billing/meter_event_adjustments"],
  },
  {
    load: async () => (await import("./v1/meter-event-adjustments.ts")).adjustmentEndpoints,
    routes: ["post /v1/billing/meter_event_adjustments"],
  },
  {
    load: async () => (await import("./v1/meters.ts")).meterEndpoints,
    routes: [
      "post /v1/billing/meters",
      "get /v1/billing/meters/{id}",
      "get /v1/billing/meters",
      "post /v1/billing/meters/{id}",
      "post /v1/billing/meters/{id}/deactivate",
      "post /v1/billing/meters/{id}/reactivate",
    ],
  },
  {
    load: async () => (await import("./v1/event-summaries.ts")).eventSummaryEndpoints,
    routes: ["get /v1/billing/meters/{id}/event_summaries"],
  },
  {
    load: async () => (await import("./v1/meter-usage.ts")).meterUsageEndpoints,
    routes: ["get /v1/billing/analytics/meter_usage"],
  },
  {
    load: async () => (await import("./admin/usage.ts")).usageEndpoints,
    routes: ["get /v1/edgemeter/usage", "get /v1/edgemeter/customers"],
  },
  {
    load: async () => (await import("./admin/pipeline.ts")).pipelineEndpoints,
    routes: ["get /v1/edgemeter/pipeline"],
  },
  {
    load: async () => (await import("./admin/dead-letters.ts")).deadLetterEndpoints,
    routes: [
      "get /v1/edgemeter/dead_letters",
      "post /v1/edgemeter/dead_letters/{id}/redrive",
      "post /v1/edgemeter/dead_letters/{id}/discard",
    ],
  },
  {
    load: async () => (await import("./admin/audit.ts")).auditEndpoints,
    routes: ["post /v1/edgemeter/audit"],
  },
  {
    load: async () => (await import("./admin/archive-audit.ts")).archiveAuditEndpoints,
    routes: ["post /v1/edgemeter/archive_audit"],
  },
  {
    load: async () => (await import("./admin/resend.ts")).resendEndpoints,
    routes: ["post /v1/edgemeter/resend"],
  },
  {
    load: async () => (await import("./admin/erasures.ts")).erasureEndpoints,
    routes: ["post /v1/edgemeter/erasures"],
  },
  {
    load: async () => (await import("./admin/events.ts")).exportEndpoints,
    routes: ["get /v1/edgemeter/events"],
  },
  {
    load: async () => (await import("./admin/restore.ts")).restoreEndpoints,
    routes: ["post /v1/edgemeter/restore"],
  },
];

/** Every route, with what loads its endpoint. */
export const ROUTES: readonly { readonly route: Route; readonly load: () => Promise<Endpoint> }[] = RESOURCES.flatMap(
  ({ load, routes }) =>
    routes.map((route, place) => ({
      route,
      load: async () => {
        const endpoints = await load();
        const endpoint = endpoints[place];
        if (
          endpoint === undefined ||
          `${endpoint.method} ${endpoint.path}` !== route ||
          endpoints.length !== routes.length
        ) {
          throw new Error(`the file of ${route} has other endpoints than it is said to have`);
        }
        return endpoint;
      },
    })),
);

/** Every endpoint, in the same order. */
export const allEndpoints = (): Promise<readonly Endpoint[]> => Promise.all(ROUTES.map(({ load }) => load()));
