import Stripe from "stripe";
import { describe, expect, it } from "vitest";
import { createMeter, stripeClient } from "../conformance/client.ts";
import { PATIENCE, used } from "./summary.ts";

const CUSTOMER = "cus_1";

/** Sixteen calls of language models of one customer, and the tokens that each took. */
const CALLS = Array.from({ length: 16 }, (_, call) => ({ input: 100 + call, output: 10 + call }));

const SUM_OF_CALLS = CALLS.reduce((sum, { input, output }) => sum + input + output, 0);

/** Sixteen values that give another sum when any of them is missing or counts twice. */
const POWERS_OF_TWO = Array.from({ length: 16 }, (_, i) => 2 ** i);

const event = (meter: Stripe.Billing.Meter, value: number, more: Record<string, string> = {}) => ({
  event_name: meter.event_name,
  payload: { stripe_customer_id: CUSTOMER, value: String(value), ...more },
});

/**
 * Reports as `@stripe/ai-sdk` and `@stripe/token-meter` do: after each call of a model an event for each type of
 * token, without identifier. The caller does not wait for them, and a failure is only logged.
 */
function trackUsage(
  client: Stripe,
  meter: Stripe.Billing.Meter,
  tokens: { input: number; output: number },
  log: (failure: unknown) => void,
): void {
  for (const [token_type, count] of Object.entries(tokens)) {
    const report = {
      ...event(meter, count, { model: "openai/gpt-4o-mini", token_type }),
      timestamp: new Date().toISOString(),
    };
    client.v2.billing.meterEvents.create(report).catch(log);
  }
}

/** A client with the SDK's own settings, and how many requests it has sent, retries included. */
function countingClient(): { client: Stripe; attempts: () => number } {
  const client = stripeClient();
  let attempts = 0;
  client.on("request", () => attempts++);
  return { client, attempts: () => attempts };
}

describe("AI packages", () => {
  it("that log failures and forget them lose no usage", async () => {
    const meter = await createMeter();
    const client = stripeClient();
    const failures: unknown[] = [];
    for (const tokens of CALLS) trackUsage(client, meter, tokens, (failure) => failures.push(failure));
    await expect
      .poll(async () => ({ failures, used: await used(meter, CUSTOMER) }), PATIENCE)
      .toEqual({
        failures: [],
        used: SUM_OF_CALLS,
      });
  });

  it("succeed with all of sixteen events of one customer at once, through the SDK's own retries", async () => {
    const meter = await createMeter();
    const { client, attempts } = countingClient();
    const reports = POWERS_OF_TWO.map((value) => client.v2.billing.meterEvents.create(event(meter, value)));
    const outcomes = await Promise.allSettled(reports);
    expect(outcomes.filter(({ status }) => status === "rejected")).toEqual([]);
    // Some were refused at first, so it was the retries that succeeded.
    expect(attempts()).toBeGreaterThan(16);
    expect(await used(meter, CUSTOMER)).toBe(2 ** 16 - 1);
  });

  it("that retry nothing are told of each event that does not count", async () => {
    const meter = await createMeter();
    const client = stripeClient(undefined, { maxNetworkRetries: 0 });
    const reports = Array.from({ length: 50 }, () => client.v2.billing.meterEvents.create(event(meter, 1)));
    const outcomes = await Promise.allSettled(reports);
    const refused = outcomes.flatMap((outcome) => (outcome.status === "rejected" ? [outcome.reason] : []));
    expect(refused.length).toBeGreaterThan(0);
    for (const error of refused) {
      expect(error).toBeInstanceOf(Stripe.errors.StripeError);
      expect(error).toMatchObject({ statusCode: 409, code: "too_many_concurrent_requests" });
    }
    expect(await used(meter, CUSTOMER)).toBe(50 - refused.length);
  });
});
