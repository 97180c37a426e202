// `npm run bench`: sync events a second over 1,000 customers at 32 connections, beside a bare
// Durable Object round trip over 1,000 objects, in turn on the same workerd.
import autocannon from "autocannon";
import Stripe from "stripe";
import { LOCAL_KEYS } from "../scripts/local-keys.ts";
import { startWorkerd } from "./local-workerd.ts";

const CUSTOMERS = 1_000;
const CONNECTIONS = 32;
const ROUNDS = 3;
const SECONDS = 5;

const workerd = await startWorkerd(["wrangler.toml", "bench/bare/wrangler.toml"]);
const { url } = workerd;

const stripe = new Stripe(LOCAL_KEYS.test, { host: url.hostname, port: url.port, protocol: "http" });
await stripe.billing.meters.create({
  display_name: "Tokens",
  event_name: "tokens",
  default_aggregation: { formula: "sum" },
});

let sent = 0;
const nextCustomer = (): number => sent++ % CUSTOMERS;

const event = {
  method: "POST" as const,
  path: "/v2/billing/meter_events",
  headers: { authorization: `Bearer ${LOCAL_KEYS.test}`, "content-type": "application/json" },
  setupRequest: (request: autocannon.Request) => ({
    ...request,
    body: JSON.stringify({
      event_name: "tokens",
      identifier: `bench-${sent}`,
      payload: { stripe_customer_id: `cus_${nextCustomer()}`, value: "25" },
    }),
  }),
};

const bare = {
  method: "POST" as const,
  headers: { host: "bare.test", "content-type": "application/json" },
  setupRequest: (request: autocannon.Request) => {
    const path = `/${nextCustomer()}`;
    return {
      ...request,
      path,
      body: JSON.stringify({
        event_name: "tokens",
        identifier: `bench-${sent}`,
        payload: { stripe_customer_id: path, value: "25" },
      }),
    };
  },
};

async function measure(request: autocannon.Request, seconds: number): Promise<autocannon.Result> {
  return autocannon({ url: url.origin, connections: CONNECTIONS, duration: seconds, requests: [request] });
}

const median = (numbers: number[]): number => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? 0;

// Warm both, so that every object has been made once.
await measure(bare, 10);
await measure(event, 10);

const rates: { event: number[]; bare: number[]; ratio: number[] } = { event: [], bare: [], ratio: [] };
for (let round = 1; round <= ROUNDS; round++) {
  const ofBare = await measure(bare, SECONDS);
  const ofEvent = await measure(event, SECONDS);
  const rate = (result: autocannon.Result) => result["2xx"] / result.duration;
  rates.bare.push(rate(ofBare));
  rates.event.push(rate(ofEvent));
  rates.ratio.push(rate(ofEvent) / rate(ofBare));
  console.log(
    `round ${round}: events ${rate(ofEvent).toFixed(0)}/s (p50 ${ofEvent.latency.p50} ms, p99 ${ofEvent.latency.p99} ms, ${ofEvent.non2xx} refused), bare ${rate(ofBare).toFixed(0)}/s`,
  );
}
console.log(`sync events           ${median(rates.event).toFixed(0)}/s`);
console.log(`bare round trips      ${median(rates.bare).toFixed(0)}/s`);
console.log(`ratio                 ${median(rates.ratio).toFixed(2)}`);
await workerd.close();
