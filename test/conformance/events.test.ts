import { randomUUID } from "node:crypto";
import Stripe from "stripe";
import { describe, expect, it } from "vitest";
import {
  createMeter,
  liveStripe,
  minute,
  payload,
  raw,
  refusal,
  report,
  stripe,
  stripeClient,
  total,
  unique,
} from "./client.ts";

const EVENTS = "/v2/billing/meter_events";

describe("C2 events", () => {
  it("C2.1 are answered with the contract's object", async () => {
    const meter = await createMeter();
    const timestamp = new Date(Date.now() - 60_000).toISOString();
    const identifier = unique("idmp");
    const event = await report(meter, { identifier, timestamp });
    const { lastResponse, ...object } = event;
    expect(object).toEqual({
      object: "v2.billing.meter_event",
      created: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
      livemode: false,
      identifier,
      event_name: meter.event_name,
      timestamp,
      payload,
    });
    expect(lastResponse.requestId).toMatch(/^req_/);
    expect(await total(meter.id)).toBe("25");
  });

  it("C2.2 get an identifier and the current time when they bring none", async () => {
    const meter = await createMeter();
    const before = Date.now();
    const event = await report(meter);
    expect(event.identifier).not.toBe("");
    expect(event.timestamp).toBe(event.created);
    expect(Date.parse(event.timestamp)).toBeGreaterThanOrEqual(before - 1_000);
    const other = await report(meter);
    expect(other.identifier).not.toBe(event.identifier);
  });

  it("C2.3 take integers as their digits, and echo strings", async () => {
    const meter = await createMeter();
    const { status, text } = await raw(EVENTS, {
      json: { event_name: meter.event_name, payload: { stripe_customer_id: "cus_1", value: 25, seats: 3 } },
    });
    expect({ status, body: JSON.parse(text) }).toMatchObject({
      status: 200,
      body: { payload: { value: "25", seats: "3" } },
    });
  });

  it("C2.4 accept an identifier once in 24 hours, whatever the meter and the customer", async () => {
    const [one, two] = [await createMeter(), await createMeter()];
    const identifier = unique("idmp");
    await report(one, { identifier });
    const error = await refusal(report(two, { payload: { ...payload, stripe_customer_id: "cus_2" }, identifier }));
    expect(error).toMatchObject({ statusCode: 400, type: "StripeInvalidRequestError", code: "duplicate_meter_event" });
    expect(error.message).toBe(`An event already exists with identifier ${identifier}.`);
  });

  it("C2.5 keep identifiers, meters and summaries of the modes apart", async () => {
    const name = unique("tokens");
    const test = await createMeter({ event_name: name });
    const live = await createMeter({ event_name: name }, liveStripe);
    const identifier = unique("idmp");
    expect(await liveStripe.v2.billing.meterEvents.create({ event_name: name, payload, identifier })).toMatchObject({
      livemode: true,
    });
    expect(
      await stripe.v2.billing.meterEvents.create({ event_name: name, payload: { ...payload, value: "1" }, identifier }),
    ).toMatchObject({ livemode: false });
    expect(await total(test.id)).toBe("1");
    expect(
      (
        await raw(
          `/v1/billing/meters/${live.id}/event_summaries?customer=cus_1&start_time=${minute(-1)}&end_time=${minute(1)}`,
        )
      ).status,
    ).toBe(404);
  });

  it("C2.6 repeat the first answer for the same Idempotency-Key", async () => {
    const meter = await createMeter();
    for (const named of [{}, { identifier: unique("idmp") }]) {
      const idempotencyKey = randomUUID();
      const params = { event_name: meter.event_name, payload, ...named };
      const first = await stripe.v2.billing.meterEvents.create(params, { idempotencyKey });
      const again = await stripe.v2.billing.meterEvents.create(params, { idempotencyKey });
      expect({ ...again, lastResponse: 0 }).toEqual({ ...first, lastResponse: 0 });
      expect(again.lastResponse.idempotencyKey).toBe(idempotencyKey);
      const other = { ...params, payload: { ...payload, value: "26" } };
      const error = await refusal(stripe.v2.billing.meterEvents.create(other, { idempotencyKey }));
      expect(error).toBeInstanceOf(Stripe.errors.StripeIdempotencyError);
      expect(error.statusCode).toBe(409);
    }
    expect(await total(meter.id)).toBe("50");
  });

  it("C2.17 keep their Idempotency-Key to themselves: no other identifier and no other endpoint can use it", async () => {
    const meter = await createMeter();
    const { event_name } = meter;
    const options = { idempotencyKey: randomUUID() };
    const event = { event_name, payload, identifier: unique("idmp") };
    await stripe.v2.billing.meterEvents.create(event, options);
    for (const other of [
      () => stripe.v2.billing.meterEvents.create({ ...event, identifier: unique("idmp") }, options),
      () => stripe.v2.billing.meterEvents.create({ event_name, payload }, options),
      () => stripe.billing.meterEvents.create(event, options),
      () =>
        stripe.v2.billing.meterEventAdjustments.create(
          { event_name, type: "cancel", cancel: { identifier: event.identifier } },
          options,
        ),
    ]) {
      expect(await refusal(other())).toBeInstanceOf(Stripe.errors.StripeIdempotencyError);
    }
    expect(await total(meter.id)).toBe("25");
  });

  it("C2.18 cannot be reported under an identifier of the service's own, alone or in a stream", async () => {
    const { event_name } = await createMeter();
    const { identifier } = await stripe.v2.billing.meterEvents.create({ event_name, payload });
    expect(identifier).toMatch(/^em_/);
    const event = { event_name, payload, identifier: `em_${randomUUID()}` };
    const session = await stripe.v2.billing.meterEventSession.create();
    const streams = stripeClient(session.authentication_token);
    for (const report of [
      () => stripe.v2.billing.meterEvents.create(event),
      () => stripe.billing.meterEvents.create(event),
      () => streams.v2.billing.meterEventStream.create({ events: [event] }),
    ]) {
      const error = await refusal(report());
      expect(error).toBeInstanceOf(Stripe.errors.StripeInvalidRequestError);
      expect(error).toMatchObject({ statusCode: 400, message: expect.stringContaining("identifier") });
    }
  });

  it("C2.20 count on the meter that they were admitted to, also when another one takes its name at once", async () => {
    const first = await createMeter();
    await report(first);
    await stripe.billing.meters.deactivate(first.id);
    const second = await stripe.billing.meters.create({
      display_name: "Tokens",
      event_name: first.event_name,
      default_aggregation: { formula: "sum" },
    });
    await report(second);
    for (const { id } of [first, second]) expect(await total(id)).toBe("25");
  });

  it("C2.19 that are replayed say so, and from which request", async () => {
    const { event_name } = await createMeter();
    const options = { idempotencyKey: randomUUID() };
    const create = async () =>
      (await stripe.v2.billing.meterEvents.create({ event_name, payload }, options)).lastResponse;
    const [first, again] = [await create(), await create()];
    expect(first.headers).not.toHaveProperty("idempotent-replayed");
    expect(first.headers).not.toHaveProperty("original-request");
    expect(again.headers).toMatchObject({ "idempotent-replayed": "true", "original-request": first.requestId });
    expect(again.requestId).not.toBe(first.requestId);
  });

  it("C2.7 of one customer on one meter at the same time get 409, which the SDK retries by itself", async () => {
    const meter = await createMeter();
    const answers = await Promise.all(
      Array.from({ length: 8 }, () => raw(EVENTS, { json: { event_name: meter.event_name, payload } })),
    );
    const refused = answers.filter(({ status }) => status === 409);
    expect(refused.length).toBeGreaterThan(0);
    expect(refused[0]?.error).toMatchObject({
      code: "too_many_concurrent_requests",
      message: expect.stringContaining("concurrently"),
    });
    expect(refused[0]?.headers.get("retry-after")).toBe("1");
    await Promise.all([1, 2].map(() => report(meter)));
    const accepted = answers.length - refused.length + 2;
    expect(await total(meter.id)).toBe(String(25 * accepted));
  });

  const day = 86_400_000;
  const at = (ms: number) => new Date(Date.now() + ms).toISOString();
  it.each([
    ["no_meter", { event_name: "nobody_made_this" }],
    ["payload_no_customer_defined", { payload: { value: "1" } }],
    ["payload_no_customer_defined", { payload: { stripe_customer_id: "", value: "1" } }],
    ["payload_no_customer_defined", { payload: {} }],
    ["payload_no_value_defined", { payload: { stripe_customer_id: "cus_1" } }],
    ...["0", "007", "+5", "-5", "1.5", "1e3", " 1", "1234567890123456", "x", "٣", 1.5, -1, 1e300].map(
      (value) => ["payload_invalid_value", { payload: { stripe_customer_id: "cus_1", value } }] as const,
    ),
    ...[" ", "\n", "cus_9\n", " cus_9", "cus\u00859", 1.5, 2 ** 53].map(
      (customer) => ["invalid_fields", { payload: { stripe_customer_id: customer, value: "1" } }] as const,
    ),
    ...["tokens ", "\ttokens", " "].map((event_name) => ["invalid_fields", { event_name }] as const),
    ["invalid_fields", { payload: { ...payload, trace: 2 ** 53 } }],
    ["timestamp_too_far_in_past", { timestamp: at(-35 * day - 60_000) }],
    ["timestamp_in_future", { timestamp: at(60 * 60_000) }],
    ...["1711584000", 1711584000, "2026-02-30T00:00:00Z", "2026-01-01T00:00Z", "2026-01-01"].map(
      (timestamp) => ["invalid_fields", { timestamp }] as const,
    ),
    ...["x".repeat(101), "🙂".repeat(101), "", null, "\ud800", "a\u0000b"].map(
      (identifier) => ["invalid_fields", { identifier }] as const,
    ),
    ...["x", ["x"], null].map((payload) => ["invalid_fields", { payload }] as const),
    ["invalid_fields", { payload: { ...payload, nested: { a: "b" } } }],
    ["invalid_fields", { payload: { ...payload, flag: true } }],
    ["invalid_fields", { payload: { ...payload, note: "x".repeat(501) } }],
    ["invalid_fields", { payload: { ...payload, ["k".repeat(101)]: "x" } }],
    ["invalid_fields", { payload: Object.fromEntries(Array.from({ length: 51 }, (_, i) => [`k${i}`, "x"])) }],
    [
      "invalid_fields",
      { payload: Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`k${i}`, "x".repeat(300)])) },
    ],
    ["invalid_fields", { payload: JSON.parse('{"__proto__": "x"}') }],
    ["invalid_fields", { event_name: 5 }],
    ["invalid_fields", { colour: "red" }],
  ] as const)("C2.8 are refused with %s (%#), and change nothing", async (code, change) => {
    const meter = await createMeter();
    const identifier = unique("idmp");
    const { status, error } = await raw(EVENTS, {
      json: { event_name: meter.event_name, payload, identifier, ...change },
    });
    expect({ status, error }).toMatchObject({ status: 400, error: { code, message: expect.any(String) } });
    // Had it taken the identifier, this one would be a duplicate.
    expect((await raw(EVENTS, { json: { event_name: meter.event_name, payload, identifier } })).status).toBe(200);
  });

  it("C2.9 of an archived meter are refused with archived_meter", async () => {
    const meter = await createMeter();
    await stripe.billing.meters.deactivate(meter.id);
    const error = await refusal(report(meter));
    expect(error).toMatchObject({
      statusCode: 400,
      code: "archived_meter",
      message: `No active meter found for event name "${meter.event_name}".`,
    });
  });

  it("C2.10 may lie 35 days back and 5 minutes ahead", async () => {
    const meter = await createMeter();
    for (const offset of [-35 * day + 60_000, 4 * 60_000]) {
      await report(meter, { timestamp: at(offset) });
    }
  });

  it("C2.11 of a count meter need no value, and ignore one", async () => {
    const meter = await createMeter({ default_aggregation: { formula: "count" } });
    await report(meter, { payload: { stripe_customer_id: "cus_1" } });
    await report(meter, { payload: { stripe_customer_id: "cus_1", value: "-3.5" } });
    expect(await total(meter.id)).toBe("2");
  });

  it("C2.12 read the meter's own payload keys", async () => {
    const meter = await createMeter({
      customer_mapping: { type: "by_id", event_payload_key: "constructor" },
      value_settings: { event_payload_key: "how_many" },
    });
    const missing = await refusal(report(meter, { payload: { how_many: "1" } }));
    expect(missing).toMatchObject({
      code: "payload_no_customer_defined",
      message: "Customer mapping key constructor not found in payload.",
    });
    await report(meter, { payload: { constructor: "cus_1", how_many: "7" } });
    expect(await total(meter.id)).toBe("7");
  });

  it.each([
    [".1234567+00:00", /\.123Z$/],
    ["z", /\.000Z$/],
  ])("C2.13 have timestamps as RFC 3339 writes them: %s", async (end, expected) => {
    const meter = await createMeter();
    const timestamp = at(-day)
      .toLowerCase()
      .replace(/\.\d+z$/, end);
    const { text } = await raw(EVENTS, { json: { event_name: meter.event_name, payload, timestamp } });
    expect(JSON.parse(text)).toMatchObject({ timestamp: expect.stringMatching(expected) });
  });

  it("C2.14 take a leap second for the last millisecond before it", async () => {
    const meter = await createMeter();
    const minute = new Date(Date.now() - day).toISOString().slice(0, 16);
    const { text } = await raw(EVENTS, {
      json: { event_name: meter.event_name, payload, timestamp: `${minute}:60Z` },
    });
    expect(JSON.parse(text)).toMatchObject({ timestamp: `${minute}:59.999Z` });
  });

  it("C2.15 name what is wrong with a customer and with an event name", async () => {
    const meter = await createMeter();
    const refuse = async (json: object) => (await raw(EVENTS, { json })).error;
    expect(
      await refuse({ event_name: meter.event_name, payload: { ...payload, stripe_customer_id: "cus_9\n" } }),
    ).toEqual({
      code: "invalid_fields",
      type: "invalid_request_error",
      message: "Invalid payload[stripe_customer_id]: it cannot contain control characters.",
      param: "payload[stripe_customer_id]",
    });
    expect(await refuse({ event_name: "tokens ", payload })).toMatchObject({
      message: "Invalid event_name: it cannot begin or end with white space.",
      param: "event_name",
    });
    expect(await refusal(createMeter({ event_name: "tokens " }))).toMatchObject({
      statusCode: 400,
      param: "event_name",
    });
  });

  it("C2.16 may have customers of 500 characters, whatever their bytes", async () => {
    const meter = await createMeter();
    const customer = "🙂".repeat(500);
    await report(meter, { payload: { stripe_customer_id: customer, value: "3" } });
    expect(await total(meter.id, customer)).toBe("3");
  });
});
