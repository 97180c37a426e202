import { randomUUID } from "node:crypto";
import type { ImportedEvent } from "./events.ts";
import { errorOf, type Server, send } from "./http.ts";
import type { Meter } from "./meters.ts";

/** What became of an event at the server. */
export type Outcome =
  | { readonly outcome: "accepted" }
  | { readonly outcome: "duplicate" }
  | { readonly outcome: "rejected"; readonly error: string };

/** How long a row is tried: long enough for a server to be restarted (ms). */
const PATIENCE_MS = 120_000;

/** A sender of events to a meter. It throws an `ImportError` when an event got no answer within `patience` ms. */
export function eventSender(
  server: Server,
  meter: Meter,
  patience = PATIENCE_MS,
): (event: ImportedEvent) => Promise<Outcome> {
  // With a key of its own in this run, a row's retry is told what its lost first attempt became.
  const run = randomUUID();

  return async (event) => {
    const { row, identifier, customer, value, timestamp } = event;
    const answer = await send(
      server,
      {
        method: "POST",
        path: "/v2/billing/meter_events",
        headers: { "content-type": "application/json", "idempotency-key": `${run}-${row.number}` },
        body: JSON.stringify({
          event_name: meter.eventName,
          identifier,
          payload: { [meter.valueKey]: value, [meter.customerKey]: customer },
          timestamp: new Date(timestamp).toISOString(),
        }),
      },
      patience,
    );
    if (answer.ok) return { outcome: "accepted" };
    const { code, message } = errorOf(answer);
    return code === "duplicate_meter_event" ? { outcome: "duplicate" } : { outcome: "rejected", error: message };
  };
}
