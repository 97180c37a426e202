import type Stripe from "stripe";
import { minute, stripe, WAIT } from "../conformance/client.ts";

/** What a customer used around now, and nothing when no event of theirs counts yet. */
export async function used(meter: Stripe.Billing.Meter, customer: string): Promise<number | undefined> {
  const range = { customer, start_time: minute(-10), end_time: minute(10) };
  return (await stripe.billing.meters.listEventSummaries(meter.id, range, WAIT)).data[0]?.aggregated_value;
}

/** How long counting may take, whatever else the machine does. */
export const PATIENCE = { timeout: 20_000, interval: 100 };
