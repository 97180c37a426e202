// Reports usage events over a stream: one JSON event a line on standard input, as POST /v2/billing/meter_events takes it.
import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import Stripe from "stripe";

const BATCH_EVENTS = 100;
const BATCH_MS = 1_000;
/** A session is renewed this long before it expires. */
const RENEW_MS = 60_000;

const { EDGEMETER_URL = "http://127.0.0.1:8787", EDGEMETER_API_KEY = "sk_test_edgemeter_local" } = process.env;
const { hostname: host, port, protocol } = new URL(EDGEMETER_URL);
const options = { host, protocol: protocol.slice(0, -1), timeout: 30_000, maxNetworkRetries: 0 };
const stripe = new Stripe(EDGEMETER_API_KEY, port === "" ? options : { ...options, port });

const waiting = [];
let session;
let flushing;

const input = createInterface({ input: process.stdin });
// The first signal ends the input, so that what was read is still sent; the second one ends the program.
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => input.close());
const timer = setInterval(flush, BATCH_MS);
for await (const line of input) {
  const event = readEvent(line);
  if (event !== undefined) waiting.push(event);
  // Reading stops here while a full batch waits, so an outage fills no memory.
  while (waiting.length >= BATCH_EVENTS) await flush();
}
clearInterval(timer);
while (waiting.length > 0 || flushing !== undefined) await flush();

/** An event with its identifier and time. Both are chosen once, so that every retry says the same. */
function readEvent(line) {
  try {
    return { identifier: randomUUID(), timestamp: new Date().toISOString(), ...JSON.parse(line) };
  } catch (error) {
    refuse(line, error);
  }
}

/** Sends everything that waits, one batch at a time. */
function flush() {
  flushing ??= (async () => {
    while (waiting.length > 0) await send(waiting.splice(0, BATCH_EVENTS));
  })().finally(() => {
    flushing = undefined;
  });
  return flushing;
}

/** Sends a batch until it is accepted. A malformed event is found by halving, so that it holds up no other. */
async function send(events) {
  const idempotencyKey = randomUUID();
  for (let delay = 200; ; delay = Math.min(2 * delay, 30_000)) {
    try {
      if (session === undefined || Date.parse(session.expires_at) < Date.now() + RENEW_MS) {
        session = undefined;
        session = await stripe.v2.billing.meterEventSession.create();
      }
      const apiKey = session.authentication_token;
      return await stripe.v2.billing.meterEventStream.create({ events }, { apiKey, idempotencyKey });
    } catch (error) {
      if (error.statusCode === 401 && session !== undefined) session = undefined;
      else if (error.statusCode === 400 || error.statusCode === 413) return await sendHalves(events, error);
      else if (!isTransient(error)) giveUp(error);
      console.error(`a batch of ${events.length} is sent again: ${error.message}`);
      await sleep(delay * (0.5 + Math.random() / 2));
    }
  }
}

async function sendHalves(events, error) {
  if (events.length === 1) return refuse(JSON.stringify(events[0]), error);
  const middle = Math.ceil(events.length / 2);
  for (const half of [events.slice(0, middle), events.slice(middle)]) await send(half);
}

function isTransient({ statusCode, headers, type }) {
  if (statusCode === undefined) return type === "StripeConnectionError";
  return (
    headers?.["stripe-should-retry"] !== "false" && (statusCode === 409 || statusCode === 429 || statusCode >= 500)
  );
}

function giveUp({ message }) {
  console.error(`the server takes no events from this key: ${message}`);
  process.exit(1);
}

/** What can never be accepted is said, and makes the exit code 1. */
function refuse(text, { message }) {
  console.error(`refused: ${message} ${text}`);
  process.exitCode = 1;
}
