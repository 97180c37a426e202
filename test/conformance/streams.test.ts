import Stripe from "stripe";
import { describe, expect, inject, it } from "vitest";
import { LOCAL_KEYS } from "../../scripts/local-keys.ts";
import { issueSession } from "../../src/http/session-token.ts";
import {
  createMeter,
  liveStripe,
  payload,
  plain,
  raw,
  refusal,
  stripe,
  stripeClient,
  total,
  unique,
  WAIT,
} from "./client.ts";

const STREAM = "/v2/billing/meter_event_stream";

/** A client that streams with the token of a new session. */
async function streaming(client = stripe): Promise<Stripe> {
  const session = await client.v2.billing.meterEventSession.create();
  return stripeClient(session.authentication_token);
}

/** A client that takes a new session, and sends again, when it is refused with one of these errors. */
function renewing(client: Stripe, ...renewed: (abstract new (...args: never[]) => Error)[]) {
  let streams = client;
  let renewals = 0;
  const send = async (events: Stripe.V2.Billing.MeterEventCreateParams[]): Promise<void> => {
    try {
      await streams.v2.billing.meterEventStream.create({ events });
    } catch (error) {
      if (!renewed.some((type) => error instanceof type)) throw error;
      renewals++;
      streams = await streaming();
      await send(events);
    }
  };
  return { send, renewals: () => renewals };
}

/** A token as the service makes them, but changed on its way. */
async function tampered(): Promise<string> {
  const { authentication_token: token } = await stripe.v2.billing.meterEventSession.create();
  const [head = "", , signature = ""] = token.split(".");
  const claims = { sub: "key_live_local", livemode: true, aud: "meter_event_stream", exp: 4_000_000_000 };
  return [head, Buffer.from(JSON.stringify(claims)).toString("base64url"), signature].join(".");
}

describe("C8 streams", () => {
  it("C8.1 begin with a session: the contract's object, 15 minutes, the key's mode", async () => {
    for (const client of [stripe, liveStripe]) {
      const session = await client.v2.billing.meterEventSession.create();
      expect(plain(session)).toEqual({
        object: "v2.billing.meter_event_session",
        id: expect.any(String),
        livemode: client === liveStripe,
        authentication_token: expect.stringMatching(/^token_/),
        created: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000Z$/),
        expires_at: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000Z$/),
      });
      expect(Date.parse(session.expires_at) - Date.parse(session.created)).toBe(15 * 60_000);
    }
  });

  it("C8.2 take events with the session's token as the client's key, in the session's mode", async () => {
    for (const [client, key] of [
      [stripe, LOCAL_KEYS.test],
      [liveStripe, LOCAL_KEYS.live],
    ] as const) {
      const meter = await createMeter({}, client);
      const streams = await streaming(client);
      const events = Array.from({ length: 100 }, () => ({ event_name: meter.event_name, payload }));
      const answer = await streams.v2.billing.meterEventStream.create({ events });
      expect(answer).toEqual({});
      expect(await total(meter.id, "cus_1", key)).toBe("2500");
    }
  });

  it("C8.3 take the token for one call, too", async () => {
    const meter = await createMeter();
    const { authentication_token: apiKey } = await stripe.v2.billing.meterEventSession.create();
    const events = [{ event_name: meter.event_name, payload }];
    await stripe.v2.billing.meterEventStream.create({ events }, { apiKey });
    expect(await total(meter.id)).toBe("25");
  });

  it("C8.4 refuse API keys, tampered and missing tokens with a 401 that is no expired session", async () => {
    const events = [{ event_name: "tokens", payload }];
    for (const token of [LOCAL_KEYS.test, await tampered(), "token_nonsense"]) {
      const error = await refusal(stripeClient(token).v2.billing.meterEventStream.create({ events }));
      expect(error).toBeInstanceOf(Stripe.errors.StripeAuthenticationError);
      expect(error.statusCode).toBe(401);
    }
    const { status, error } = await raw(STREAM, { key: null, json: { events } });
    expect({ status, type: error.type }).toEqual({ status: 401, type: undefined });
  });

  it("C8.5 do not open other doors: a token is no API key", async () => {
    const streams = await streaming();
    for (const forbidden of [
      () => streams.billing.meters.list(),
      () => streams.v2.billing.meterEventSession.create(),
    ]) {
      expect(await refusal(forbidden())).toBeInstanceOf(Stripe.errors.StripeAuthenticationError);
    }
  });

  it("C8.6 go on when a client takes a new session for one that is refused", async () => {
    const meter = await createMeter();
    // An expired token cannot be made from outside; the Worker's own tests look at how it is answered.
    const { TemporarySessionExpiredError, StripeAuthenticationError } = Stripe.errors;
    const client = renewing(stripeClient(await tampered()), TemporarySessionExpiredError, StripeAuthenticationError);
    for (const _ of [1, 2]) await client.send([{ event_name: meter.event_name, payload }]);
    expect(client.renewals()).toBe(1);
    expect(await total(meter.id)).toBe("50");
  });

  it("C8.7 answer 200 for duplicates and for events that will only be reported", async () => {
    const meter = await createMeter();
    const streams = await streaming();
    const event = { event_name: meter.event_name, payload, identifier: unique("idmp") };
    const events = [
      event,
      event,
      { event_name: unique("unknown"), payload },
      { event_name: meter.event_name, payload: { value: "1" } },
      { event_name: meter.event_name, payload: { ...payload, value: "abc" } },
    ];
    for (const _ of [1, 2]) expect(await streams.v2.billing.meterEventStream.create({ events })).toEqual({});
    expect(await total(meter.id)).toBe("25");
    expect((await refusal(stripe.v2.billing.meterEvents.create(event))).code).toBe("duplicate_meter_event");
  });

  it("C8.8 count once when sent again with the same Idempotency-Key", async () => {
    const meter = await createMeter();
    const streams = await streaming();
    const events = [1, 2, 3].map(() => ({ event_name: meter.event_name, payload }));
    const options = { idempotencyKey: unique("key") };
    for (const _ of [1, 2, 3]) await streams.v2.billing.meterEventStream.create({ events }, options);
    expect(await total(meter.id)).toBe("75");
    const other = events.map((event) => ({ ...event, payload: { ...payload, value: "1" } }));
    const error = await refusal(streams.v2.billing.meterEventStream.create({ events: other }, options));
    expect(error).toBeInstanceOf(Stripe.errors.StripeIdempotencyError);
    expect(error.statusCode).toBe(409);
  });

  it.each<[string, Partial<Stripe.Billing.MeterCreateParams>]>([
    ["a `last` meter", { default_aggregation: { formula: "last" } }],
    ["an hour's window", { event_time_window: "hour" }],
    ["a day's window", { event_time_window: "day" }],
  ])("C8.16 keep their events in order: of five with one timestamp the fifth is the last of %s", async (_, change) => {
    const meter = await createMeter(change);
    const streams = await streaming();
    const timestamp = new Date().toISOString();
    const events = ["1", "2", "3", "4", "5"].map((value) => ({
      event_name: meter.event_name,
      timestamp,
      payload: { ...payload, value },
    }));
    await streams.v2.billing.meterEventStream.create({ events });
    const list = `/v1/billing/meter_events?meter=${meter.id}&customer=cus_1`;
    expect(JSON.parse((await raw(list, WAIT)).text).data).toHaveLength(5);
    expect(await total(meter.id)).toBe("5");
  });

  it("C8.9 refuse malformed requests whole: none, too many, or one event of the wrong shape", async () => {
    const meter = await createMeter();
    const streams = await streaming();
    const event = { event_name: meter.event_name, payload };
    for (const events of [[], Array.from({ length: 101 }, () => event), [event, { payload }]]) {
      const error = await refusal(streams.v2.billing.meterEventStream.create({ events: events as never }));
      expect(error).toBeInstanceOf(Stripe.errors.StripeInvalidRequestError);
      expect({ status: error.statusCode, code: error.code }).toEqual({ status: 400, code: "invalid_fields" });
    }
    await streams.v2.billing.meterEventStream.create({ events: [event] });
    expect(await total(meter.id)).toBe("25");
  });

  it("C8.14 name the event and the key that are malformed", async () => {
    const streams = await streaming();
    const event = { event_name: "tokens", payload };
    const events = [event, event, { ...event, payload: { ...payload, region: null } }];
    const error = await refusal(streams.v2.billing.meterEventStream.create({ events: events as never }));
    expect(error).toMatchObject({ statusCode: 400, code: "invalid_fields", param: "events[2][payload][region]" });
    expect(error.message).toContain("events[2][payload][region]");
  });

  it("C8.15 take events with JSON numbers that are no exact integers, for the error report", async () => {
    const meter = await createMeter();
    const streams = await streaming();
    const of = (value: unknown, customer: unknown = "cus_1") => ({
      event_name: meter.event_name,
      payload: { stripe_customer_id: customer, value },
    });
    const events = [of("25"), of(0.5), of(1e21), of(2 ** 53), of("1", 2 ** 53), of("1", "cus_1 ")];
    expect(await streams.v2.billing.meterEventStream.create({ events: events as never })).toEqual({});
    expect(await total(meter.id)).toBe("25");
  });

  it("C8.18 tell what became of each event, in their order, when the header edgemeter-outcomes asks for it", async () => {
    const meter = await createMeter();
    const { authentication_token: key } = await stripe.v2.billing.meterEventSession.create();
    const event = { event_name: meter.event_name, payload, identifier: unique("idmp") };
    const events = [event, { ...event, identifier: unique("bad"), payload: { ...payload, value: "0" } }];
    const headers = { "edgemeter-outcomes": "true" };
    for (const outcome of ["accepted", "accepted_before"]) {
      const { status, text } = await raw(STREAM, { key, json: { events }, headers });
      expect({ status, body: JSON.parse(text) }).toEqual({
        status: 200,
        body: {
          outcomes: [
            { outcome, identifier: event.identifier },
            { outcome: "refused", code: "payload_invalid_value", message: expect.stringContaining("Received 0.") },
          ],
        },
      });
    }
    const wrong = await raw(STREAM, { key, json: { events }, headers: { "edgemeter-outcomes": "yes" } });
    expect(wrong).toMatchObject({ status: 400, error: { code: "invalid_fields" } });
    expect(wrong.error.message).toContain("edgemeter-outcomes");
    expect(await total(meter.id)).toBe("25");
  });

  it("C8.12 tell a client when to renew its token: TemporarySessionExpiredError", async () => {
    const meter = await createMeter();
    // A session that was opened 16 minutes ago.
    const opened = await issueSession(
      { id: "key_test_local", livemode: false },
      inject("sessionSecret"),
      Date.now() - 16 * 60_000,
    );
    if (!opened.ok) throw new Error(opened.error.reason);
    const client = renewing(stripeClient(opened.value.token), Stripe.errors.TemporarySessionExpiredError);
    for (const _ of [1, 2, 3]) await client.send([{ event_name: meter.event_name, payload }]);
    expect(client.renewals()).toBe(1);
    expect(await total(meter.id)).toBe("75");
  });

  it.concurrent("C8.13 report what they refuse: an event of v2, with counts by code and samples", async () => {
    const meter = await createMeter();
    const streams = await streaming();
    const bad = { event_name: meter.event_name, payload: { ...payload, value: "0" }, identifier: unique("bad") };
    const lost = { event_name: meter.event_name, payload: { value: "1" } };
    const padded = { event_name: meter.event_name, payload: { ...payload, stripe_customer_id: " cus_1" } };
    expect(await streams.v2.billing.meterEventStream.create({ events: [bad, lost, bad, padded] })).toEqual({});
    const reports = async () => (await stripe.v2.core.events.list({ object_id: meter.id })).data;
    await expect.poll(async () => (await reports()).length, { timeout: 60_000, interval: 500 }).toBe(1);
    const report = await stripe.v2.core.events.retrieve((await reports())[0]?.id ?? "");
    expect(report).toMatchObject({
      object: "v2.core.event",
      type: "v1.billing.meter.error_report_triggered",
      related_object: { id: meter.id, type: "billing.meter", url: `/v1/billing/meters/${meter.id}` },
      data: {
        developer_message_summary: "There are 3 invalid events",
        reason: {
          error_count: 3,
          error_types: expect.arrayContaining([
            expect.objectContaining({
              code: "meter_event_invalid_value",
              error_count: 1,
              sample_errors: [{ error_message: expect.any(String), request: { identifier: bad.identifier } }],
            }),
            expect.objectContaining({ code: "meter_event_no_customer_defined", error_count: 1 }),
            expect.objectContaining({ code: "meter_event_invalid_customer", error_count: 1 }),
          ]),
        },
      },
    });
  }, 60_000);

  it.concurrent("C8.17 report an event whose identifier another report has, and ignore the same report again", async () => {
    const meter = await createMeter();
    const streams = await streaming();
    const event = { event_name: meter.event_name, payload, identifier: unique("idmp") };
    await stripe.v2.billing.meterEvents.create(event);
    const other = { ...event, payload: { ...payload, value: "26" } };
    expect(await streams.v2.billing.meterEventStream.create({ events: [event, other, event] })).toEqual({});
    const reports = async () => (await stripe.v2.core.events.list({ object_id: meter.id })).data;
    await expect.poll(async () => (await reports()).length, { timeout: 40_000, interval: 500 }).toBe(1);
    const report = await stripe.v2.core.events.retrieve((await reports())[0]?.id ?? "");
    expect(report).toMatchObject({
      type: "v1.billing.meter.error_report_triggered",
      data: {
        reason: {
          error_count: 1,
          error_types: [
            {
              code: "duplicate_meter_event",
              error_count: 1,
              sample_errors: [
                {
                  error_message: `An event already exists with identifier ${event.identifier}.`,
                  request: { identifier: event.identifier },
                },
              ],
            },
          ],
        },
      },
    });
    expect(await total(meter.id)).toBe("25");
  }, 60_000);
});
