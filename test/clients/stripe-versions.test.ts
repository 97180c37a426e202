import type Stripe from "stripe";
import { describe, expect, it } from "vitest";
import { LOCAL_KEYS } from "../../scripts/local-keys.ts";
import { createMeter, unique, url } from "../conformance/client.ts";
import { used } from "./summary.ts";

/** Versions of the official SDK that are in use, by the packages that package.json knows them as. */
const VERSIONS = [
  [17, "stripe-17"],
  [18, "stripe-18"],
  [20, "stripe-20"],
  [23, "stripe"],
] as const;

/** An older SDK has the newest one's types here: what is called below has not changed since. */
const load = async (name: string): Promise<typeof Stripe> =>
  ((await import(name)) as { default: typeof Stripe }).default;

const { hostname: host, port } = new URL(url);

const payload = { stripe_customer_id: "cus_1", value: "25" };

describe.each(VERSIONS)("stripe %i", async (major, name) => {
  const SDK = await load(name);
  const client = (key: string): Stripe => new SDK(key, { host, port, protocol: "http" });
  const stripe = client(LOCAL_KEYS.test);

  it("is that version", () => {
    expect(SDK.PACKAGE_VERSION).toMatch(new RegExp(`^${major}\\.`));
  });

  it("reports events by v1, by v2 and in a stream, and they count", async () => {
    const meter = await createMeter();
    const event = { event_name: meter.event_name, payload };
    await stripe.billing.meterEvents.create(event);
    await stripe.v2.billing.meterEvents.create(event);
    const session = await stripe.v2.billing.meterEventSession.create();
    // Until version 22 the host of streams is an option of the call.
    const options = (major < 22 ? { host } : {}) as Stripe.RequestOptions;
    const streams = client(session.authentication_token).v2.billing.meterEventStream;
    await streams.create({ events: [event, event] }, options);
    expect(await used(meter, "cus_1")).toBe(100);
  });

  it.each([
    ["duplicate_meter_event", {}],
    ["no_meter", { event_name: unique("nobody") }],
    ["payload_invalid_value", { payload: { ...payload, value: "-1" } }],
  ])("gets a StripeInvalidRequestError for %s", async (code, change) => {
    const meter = await createMeter();
    const event = { event_name: meter.event_name, payload, identifier: unique("idmp") };
    await stripe.v2.billing.meterEvents.create(event);
    const refused = stripe.v2.billing.meterEvents.create({ ...event, ...change });
    const error = await refused.catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(SDK.errors.StripeInvalidRequestError);
    expect(error).toMatchObject({ type: "StripeInvalidRequestError", statusCode: 400, code });
  });
});
