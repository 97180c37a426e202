// What a load sends, one request after the other.
import { LOCAL_KEYS } from "../scripts/local-keys.ts";
import type { WorkerSpec } from "./local-workerd.ts";

export type TargetRequest = {
  readonly method: "GET" | "POST";
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
};

/** Makes the next request. */
export type Target = () => TargetRequest;

export const EVENT_NAME = "tokens";

/** Customers that a load spreads its events over. */
export const CUSTOMERS = 1_000;

/** Events of a stream's request. */
export const STREAM_EVENTS = 100;

export const hostOf = (worker: Pick<WorkerSpec, "name">): string => `${worker.name}.test`;

let made = 0;

/** An event of the next customer in turn, with an identifier of its own. */
function nextEvent(customers: number = CUSTOMERS): object {
  const n = made++;
  return {
    event_name: EVENT_NAME,
    identifier: `bench-event-${n}`,
    payload: { stripe_customer_id: `cus_${n % customers}`, value: "25" },
  };
}

/** One event a request. */
export const syncEvents =
  (worker: WorkerSpec, customers: number = CUSTOMERS): Target =>
  () => ({
    method: "POST",
    path: "/v2/billing/meter_events",
    headers: { host: hostOf(worker), authorization: `Bearer ${LOCAL_KEYS.test}`, "content-type": "application/json" },
    body: JSON.stringify(nextEvent(customers)),
  });

/** A hundred events a request, with a session's token. */
export const streamEvents =
  (worker: WorkerSpec, token: string): Target =>
  () => ({
    method: "POST",
    path: "/v2/billing/meter_event_stream",
    headers: { host: hostOf(worker), authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: JSON.stringify({ events: Array.from({ length: STREAM_EVENTS }, () => nextEvent()) }),
  });

/** A yardstick of bench/bare: `route` over so many objects, with a key and a body as an event has. */
export const bare =
  (worker: WorkerSpec, route: string, objects: number): Target =>
  () => {
    const body = JSON.stringify(nextEvent());
    const key = String(made).padStart(10, "0");
    return {
      method: "POST",
      path: `/${route}/${made % objects}/${key}`,
      headers: { host: hostOf(worker), "content-type": "application/json" },
      body,
    };
  };

/** The same request again and again. */
export const reads = (worker: WorkerSpec, path: string): Target => {
  const request: TargetRequest = {
    method: "GET",
    path,
    headers: { host: hostOf(worker), authorization: `Bearer ${LOCAL_KEYS.test}` },
  };
  return () => request;
};
