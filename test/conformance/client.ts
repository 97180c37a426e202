import { randomUUID } from "node:crypto";
import Stripe from "stripe";
import { inject } from "vitest";
import { LOCAL_KEYS } from "../../scripts/local-keys.ts";

export const url = inject("url");

/** The official SDK, with nothing changed but the host. */
export const stripeClient = (key: string = LOCAL_KEYS.test, options: Partial<Stripe.StripeConfig> = {}): Stripe =>
  new Stripe(key, { host: "127.0.0.1", port: new URL(url).port, protocol: "http", ...options });

export const stripe = stripeClient();
export const liveStripe = stripeClient(LOCAL_KEYS.live);

/** A word that no other test uses. */
export const unique = (prefix: string): string => `${prefix}_${randomUUID()}`;

export const createMeter = (
  changes: Partial<Stripe.Billing.MeterCreateParams> = {},
  client = stripe,
): Promise<Stripe.Billing.Meter> =>
  client.billing.meters.create({
    display_name: "Tokens",
    event_name: unique("tokens"),
    default_aggregation: { formula: "sum" },
    ...changes,
  });

/** What an event holds when nothing else matters. */
export const payload = { stripe_customer_id: "cus_1", value: "25" };

/** Reports a v2 event on a meter. */
export const report = (
  { event_name }: Pick<Stripe.Billing.Meter, "event_name">,
  changes: Partial<Stripe.V2.Billing.MeterEventCreateParams> = {},
  options: Stripe.RequestOptions = {},
) => stripe.v2.billing.meterEvents.create({ event_name, payload, ...changes }, options);

/** Has a read wait for what was reported before it; the SDK repeats one that had to wait too long. */
export const WAIT = { headers: { "edgemeter-wait": "10" } };

/** The total of a customer around now, as the response's own text; nothing when there is no summary. */
export async function total(meter: string, customer = "cus_1", key: string = LOCAL_KEYS.test) {
  const range = `customer=${encodeURIComponent(customer)}&start_time=${minute(-600)}&end_time=${minute(10)}`;
  const { status, text } = await raw(`/v1/billing/meters/${meter}/event_summaries?${range}`, { key, ...WAIT });
  if (status !== 200) throw new Error(text);
  return /"aggregated_value":([^,]+),/.exec(text)?.[1];
}

type Call = {
  method?: string;
  key?: string | null;
  json?: unknown;
  form?: string;
  body?: string | Uint8Array<ArrayBuffer> | ReadableStream;
  headers?: Record<string, string>;
};

/** A call without the SDK, for what the SDK would never send. */
export async function raw(
  path: string,
  { method, key = LOCAL_KEYS.test, json, form, body, headers = {} }: Call = {},
): Promise<{
  status: number;
  headers: Headers;
  text: string;
  error: Record<string, unknown>;
}> {
  const content = body ?? form ?? (json === undefined ? undefined : JSON.stringify(json));
  const type = form === undefined ? "application/json" : "application/x-www-form-urlencoded";
  const response = await fetch(url + path, {
    method: method ?? (content === undefined ? "GET" : "POST"),
    headers: {
      ...(key === null ? {} : { authorization: `Bearer ${key}` }),
      ...(content === undefined ? {} : { "content-type": type }),
      ...headers,
    },
    ...(content === undefined ? {} : { body: content, duplex: "half" }),
  });
  const text = await response.text();
  const parsed: { error?: Record<string, unknown> } = text === "" ? {} : JSON.parse(text);
  return { status: response.status, headers: response.headers, text, error: parsed.error ?? {} };
}

/** What a call was refused with: the SDK's error, or a failure when it was not refused. */
export async function refusal(
  call: Promise<unknown>,
): Promise<Stripe.errors.StripeError & { headers: Record<string, string> }> {
  try {
    await call;
  } catch (error) {
    if (error instanceof Stripe.errors.StripeError) return error as never;
    throw error;
  }
  throw new Error("the call was not refused");
}

/** An SDK object as it came over the wire. */
export const plain = (object: object): unknown => JSON.parse(JSON.stringify(object));

/** The current minute, and others around it, in unix seconds. */
export const minute = (offset = 0): number => (Math.floor(Date.now() / 60_000) + offset) * 60;
