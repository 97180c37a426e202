import type Stripe from "stripe";
import { describe, expect, it } from "vitest";
import {
  createMeter,
  liveStripe,
  minute,
  payload,
  plain,
  raw,
  refusal,
  stripe,
  stripeClient,
  unique,
  WAIT,
} from "./client.ts";

const report = async (meter: Stripe.Billing.Meter, value = "25", timestamp?: string): Promise<string> => {
  const event = { event_name: meter.event_name, payload: { ...payload, value }, identifier: unique("idmp") };
  await stripe.v2.billing.meterEvents.create(timestamp === undefined ? event : { ...event, timestamp });
  return event.identifier;
};

const cancel = (event_name: string, identifier: string, options: Stripe.RequestOptions = {}) =>
  stripe.v2.billing.meterEventAdjustments.create({ event_name, type: "cancel", cancel: { identifier } }, options);

async function total(meter: string): Promise<number | undefined> {
  const range = { customer: "cus_1", start_time: minute(-600), end_time: minute(10) };
  return (await stripe.billing.meters.listEventSummaries(meter, range, WAIT)).data[0]?.aggregated_value;
}

describe("C10 adjustments", () => {
  it("C10.1 are answered with the contract's object, and take the event out of the summary", async () => {
    const meter = await createMeter();
    await report(meter, "1");
    const identifier = await report(meter, "2");
    expect(await total(meter.id)).toBe(3);
    const adjustment = await cancel(meter.event_name, identifier);
    expect(plain(adjustment)).toEqual({
      object: "v2.billing.meter_event_adjustment",
      id: expect.stringMatching(/^mtr_event_adj_/),
      cancel: { identifier },
      created: expect.stringMatching(/Z$/),
      event_name: meter.event_name,
      livemode: false,
      status: "pending",
      type: "cancel",
    });
    expect(await total(meter.id)).toBe(1);
  });

  it("C10.2 of v1 are the same without an id", async () => {
    const meter = await createMeter();
    const identifier = await report(meter);
    const adjustment = await stripe.billing.meterEventAdjustments.create({
      event_name: meter.event_name,
      type: "cancel",
      cancel: { identifier },
    });
    expect(plain(adjustment)).toEqual({
      object: "billing.meter_event_adjustment",
      cancel: { identifier },
      event_name: meter.event_name,
      livemode: false,
      status: "pending",
      type: "cancel",
    });
    expect(await total(meter.id)).toBeUndefined();
  });

  it("C10.3 happen once; the same Idempotency-Key answers the first response again", async () => {
    const meter = await createMeter();
    const identifier = await report(meter);
    const options = { idempotencyKey: unique("key") };
    const first = await cancel(meter.event_name, identifier, options);
    expect(plain(await cancel(meter.event_name, identifier, options))).toEqual(plain(first));
    const again = await refusal(cancel(meter.event_name, identifier));
    expect(again).toMatchObject({ statusCode: 400, code: "invalid_cancel_configuration" });
    expect(again.message).toContain("already cancelled");
  });

  it("C10.4 say which event they cannot cancel, and why", async () => {
    const meter = await createMeter();
    const other = await createMeter();
    const identifier = await report(meter);
    const unknown = await refusal(cancel(meter.event_name, "nobody"));
    expect(unknown).toMatchObject({ statusCode: 400, code: "invalid_cancel_configuration" });
    expect(unknown.message).toContain("No event with identifier nobody");
    for (const name of [other.event_name, "no_such_name"]) {
      expect((await refusal(cancel(name, identifier))).message).toContain(`not reported with event name "${name}"`);
    }
    const live = liveStripe.v2.billing.meterEventAdjustments.create({
      event_name: meter.event_name,
      type: "cancel",
      cancel: { identifier },
    });
    expect((await refusal(live)).message).toContain("No event with identifier");
    // None of these has cancelled anything.
    expect(await cancel(meter.event_name, identifier)).toMatchObject({ status: "pending" });
  });

  it("C10.5 leave the identifier taken", async () => {
    const meter = await createMeter();
    const identifier = await report(meter);
    await cancel(meter.event_name, identifier);
    const again = stripe.v2.billing.meterEvents.create({ event_name: meter.event_name, payload, identifier });
    expect(await refusal(again)).toMatchObject({ code: "duplicate_meter_event" });
  });

  it("C10.6 work on the events of an archived meter", async () => {
    const meter = await createMeter();
    const identifier = await report(meter);
    await stripe.billing.meters.deactivate(meter.id);
    expect(await cancel(meter.event_name, identifier)).toMatchObject({ status: "pending" });
  });

  it("C10.7 let a `last` meter fall back to the event before", async () => {
    const meter = await createMeter({ default_aggregation: { formula: "last" } });
    const at = (seconds: number) => new Date(minute(-5) * 1_000 + seconds * 1_000).toISOString();
    await report(meter, "5", at(1));
    const identifier = await report(meter, "7", at(2));
    expect(await total(meter.id)).toBe(7);
    await cancel(meter.event_name, identifier);
    expect(await total(meter.id)).toBe(5);
  });

  it.each([
    [{}, "event_name"],
    [{ event_name: "x" }, "type"],
    [{ event_name: "x", type: "undo" }, "type"],
    [{ event_name: "x", type: "cancel" }, "cancel"],
    [{ event_name: "x", type: "cancel", cancel: {} }, "cancel[identifier]"],
    [{ event_name: "x", type: "cancel", cancel: { identifier: "y", more: 1 } }, "cancel[more]"],
  ])("C10.8 refuse the wrong parameters %j", async (json, param) => {
    const v2 = await raw("/v2/billing/meter_event_adjustments", { json });
    expect(v2).toMatchObject({ status: 400, error: { code: "invalid_fields" } });
    expect(v2.error.message).toContain(param);
  });
});

describe("C11 v1 events", () => {
  it("C11.1 are answered with the contract's object", async () => {
    const meter = await createMeter();
    const timestamp = minute(-1);
    const identifier = unique("idmp");
    const event = await stripe.billing.meterEvents.create({
      event_name: meter.event_name,
      payload,
      identifier,
      timestamp,
    });
    expect(plain(event)).toEqual({
      object: "billing.meter_event",
      created: expect.any(Number),
      event_name: meter.event_name,
      identifier,
      livemode: false,
      payload,
      timestamp,
    });
    expect(await total(meter.id)).toBe(25);
  });

  it("C11.2 share their identifiers with v2; a duplicate has no code and is not to be retried", async () => {
    const meter = await createMeter();
    const identifier = await report(meter);
    const error = await refusal(
      stripe.billing.meterEvents.create({ event_name: meter.event_name, payload, identifier }),
    );
    expect(error).toMatchObject({ statusCode: 400, type: "StripeInvalidRequestError", code: undefined });
    expect(error.message).toBe(`An event already exists with identifier ${identifier}.`);
    expect(error.headers["stripe-should-retry"]).toBe("false");
  });

  it("C11.3 have v1's messages", async () => {
    const meter = await createMeter();
    const send = (changes: Partial<Stripe.Billing.MeterEventCreateParams>) =>
      refusal(stripe.billing.meterEvents.create({ event_name: meter.event_name, payload, ...changes }));
    expect((await send({ event_name: "nobody" })).message).toBe('No active meter found for event name "nobody".');
    expect((await send({ timestamp: minute(-36 * 1_440) })).message).toMatch(
      /^The event timestamp cannot be more than 35 days in past\. Expected a timestamp greater than or equal to \d+\.$/,
    );
    expect((await send({ payload: { ...payload, value: "1234567890123456" } })).message).toBe(
      "The value in the event payload can have at most 15 digits. Received 1234567890123456.",
    );
    expect((await send({ payload: { value: "1" } })).message).toBe(
      "Customer mapping key stripe_customer_id not found in payload.",
    );
    expect(await send({ payload: { ...payload, stripe_customer_id: "cus_9 " } })).toMatchObject({
      code: undefined,
      param: "payload[stripe_customer_id]",
      message: expect.stringContaining("white space"),
    });
    const { error } = await raw("/v1/billing/meter_events", { form: "event_name=a&payload[a]=1&payload[a]=2" });
    expect(error).toMatchObject({ type: "invalid_request_error", param: "payload[a]" });
  });

  it("C11.4 repeat the first answer for the same Idempotency-Key, which belongs to one endpoint", async () => {
    const meter = await createMeter();
    const options = { idempotencyKey: unique("key") };
    const params = { event_name: meter.event_name, payload };
    const first = await stripe.billing.meterEvents.create(params, options);
    expect(plain(await stripe.billing.meterEvents.create(params, options))).toEqual(plain(first));
    const error = await refusal(stripe.v2.billing.meterEvents.create(params, options));
    expect(error.type).toBe("StripeIdempotencyError");
  });

  it("C11.5 refuse empty parameters, which is how the SDK sends null", async () => {
    const meter = await createMeter();
    const event = { event_name: meter.event_name, payload };
    const error = await refusal(stripe.billing.meterEvents.create({ ...event, identifier: null as never }));
    expect(error).toMatchObject({ statusCode: 400, code: "parameter_invalid_empty", param: "identifier" });
    expect(error.message).toBe(
      "You passed an empty string for 'identifier'. We assume empty values are an attempt to unset a parameter; however 'identifier' cannot be unset. You should remove 'identifier' from your request or supply a non-empty value.",
    );
    const form = `event_name=${meter.event_name}&payload[stripe_customer_id]=cus_1&payload[value]=`;
    const { error: timed } = await raw("/v1/billing/meter_events", { form: `${form}1&timestamp=` });
    expect(timed).toMatchObject({ code: "parameter_invalid_empty", param: "timestamp", doc_url: expect.any(String) });
    expect((await raw("/v1/billing/meters?status=")).error.code).toBe("parameter_invalid_empty");
    // What a payload holds is the meter's to judge.
    const { error: unpaid } = await raw("/v1/billing/meter_events", { form });
    expect(unpaid).toMatchObject({ param: "payload[value]", message: "Value key value not found in payload." });
    expect(await total(meter.id)).toBeUndefined();
  });

  it("C11.6 need a payload: a form has no way to write an empty one", async () => {
    const meter = await createMeter();
    const error = await refusal(stripe.billing.meterEvents.create({ event_name: meter.event_name, payload: {} }));
    expect(error).toMatchObject({ statusCode: 400, code: "parameter_missing", param: "payload" });
  });
});

describe("C12 stored events", () => {
  type Known = {
    id: string;
    identifier: string;
    created: number;
    aggregated: boolean;
    cancelled_at: number | null;
    payload: object;
  };
  const list = async (query: string): Promise<{ data: Known[]; has_more: boolean }> =>
    JSON.parse((await raw(`/v1/billing/meter_events?${query}`, WAIT)).text);

  it("C12.1 are retrieved by their identifier at once, and say what became of them", async () => {
    const meter = await createMeter();
    const identifier = await report(meter);
    const read = async () => JSON.parse((await raw(`/v1/billing/meter_events/${encodeURIComponent(identifier)}`)).text);
    expect(await read()).toEqual({
      id: expect.stringMatching(/^mtrev_test_/),
      object: "billing.meter_event",
      aggregated: expect.any(Boolean),
      cancelled_at: null,
      cancelled_by: null,
      reported_by: 1,
      created: expect.any(Number),
      event_name: meter.event_name,
      identifier,
      livemode: false,
      meter: meter.id,
      parked: null,
      payload,
      timestamp: expect.any(Number),
    });
    await total(meter.id);
    expect((await read()).aggregated).toBe(true);
    await cancel(meter.event_name, identifier);
    expect(await read()).toMatchObject({ cancelled_at: expect.any(Number), cancelled_by: 1 });
    expect(await raw("/v1/billing/meter_events/nobody")).toMatchObject({
      status: 404,
      error: { code: "resource_missing" },
    });
    const live = await stripeClient("sk_live_edgemeter_local")
      .rawRequest("GET", `/v1/billing/meter_events/${identifier}`)
      .catch(String);
    expect(live).toContain("No such meter event");
  });

  it.each([".", "..", "a/b", "a?b#c", "%2e", "客户 🙂"])(
    "C12.3 are found by any identifier, also by %s",
    async (name) => {
      const meter = await createMeter();
      // Identifiers are unique for a day, so other runs of this test must not have taken it.
      const identifier = name.startsWith(".") ? name : `${name}${unique("")}`;
      await stripe.v2.billing.meterEvents.create({ event_name: meter.event_name, payload, identifier });
      const found = { has_more: false, data: [expect.objectContaining({ identifier, meter: meter.id, payload })] };
      expect(await list(`identifier=${encodeURIComponent(identifier)}`)).toMatchObject(found);
      const path = `/v1/billing/meter_events?identifier=${encodeURIComponent(identifier)}`;
      expect(await stripe.rawRequest("GET", path)).toMatchObject(found);
    },
  );

  it("C12.4 are looked up by an identifier alone, or listed of a customer on a meter", async () => {
    expect(await list(`identifier=${unique("nobody")}`)).toMatchObject({ data: [], has_more: false });
    expect(await raw("/v1/billing/meter_events?identifier=a&customer=b")).toMatchObject({
      status: 400,
      error: { param: "customer" },
    });
    expect(await raw("/v1/billing/meter_events")).toMatchObject({
      status: 400,
      error: { code: "parameter_missing", param: "meter" },
    });
  });

  it("C12.5 that came late are listed in the order of receipt, of one customer or of all, in pages", async () => {
    const meter = await createMeter();
    const reportLate = async (customer: string, seconds: number): Promise<string> => {
      const timestamp = new Date(Date.now() - seconds * 1_000).toISOString();
      const changes = { payload: { stripe_customer_id: customer, value: "5" }, timestamp };
      const { event_name } = meter;
      return (await stripe.v2.billing.meterEvents.create({ event_name, ...changes })).identifier;
    };
    const [day, first, , second] = [
      await reportLate("cus_1", 86_400),
      await reportLate("cus_2", 3_600),
      await reportLate("cus_1", 3_500),
      await reportLate("cus_1", 7_200),
    ];
    const listLate = async (query: string): Promise<{ data: Known[]; has_more: boolean }> =>
      JSON.parse((await raw(`/v1/billing/meter_events?meter=${meter.id}&${query}`, WAIT)).text);
    const names = async (query: string) => (await listLate(query)).data.map(({ identifier }) => identifier);
    expect(await names("late[gte]=3600")).toEqual([second, first, day]);
    expect(await names("late[gte]=7200")).toEqual([second, day]);
    expect(await names("late[gte]=3600&customer=cus_2")).toEqual([first]);
    const period = Math.floor(Date.now() / 1_000) - 80_000;
    expect(await names(`late[gte]=3600&timestamp[lt]=${period}`)).toEqual([day]);
    await cancel(meter.event_name, second ?? "");
    expect(await names("late[gte]=3600&cancelled=false")).toEqual([first, day]);
    expect(await names("late[gte]=3600&cancelled=true")).toEqual([second]);

    const page = await listLate("late[gte]=3600&limit=2");
    expect(page).toMatchObject({ has_more: true, data: [{}, { payload: { stripe_customer_id: "cus_2" } }] });
    const [newest, next] = page.data;
    expect(await names(`late[gte]=3600&limit=2&starting_after=${next?.id}`)).toEqual([day]);
    expect(await names(`late[gte]=3600&limit=1&ending_before=${next?.id}`)).toEqual([second]);
    expect(await names(`late[gte]=3600&created[gt]=${newest?.created}`)).toEqual([]);
    expect(await names(`late[gte]=3600&created[lte]=${newest?.created}`)).toEqual([second, first, day]);
    for (const seconds of ["3599", "-1", "x", "3600.5"]) {
      const path = `/v1/billing/meter_events?meter=${meter.id}&late[gte]=${seconds}`;
      expect(await raw(path)).toMatchObject({ status: 400, error: { param: "late[gte]" } });
    }
  });

  it("C12.2 are listed latest first, by time and by whether they count, in pages", async () => {
    const meter = await createMeter();
    const identifiers: string[] = [];
    for (let i = 0; i < 5; i++)
      identifiers.push(await report(meter, String(i + 1), new Date((minute(-20) + i) * 1_000).toISOString()));
    await cancel(meter.event_name, identifiers[1] ?? "");
    const base = `meter=${meter.id}&customer=cus_1`;
    const latestFirst = [...identifiers].reverse();
    const names = async (query: string) => (await list(`${base}&${query}`)).data.map(({ identifier }) => identifier);
    expect(await names("cancelled=true")).toEqual([identifiers[1]]);
    expect(await names("limit=100")).toEqual(latestFirst);
    expect(await names("cancelled=false")).toEqual(latestFirst.filter((identifier) => identifier !== identifiers[1]));
    expect(await names(`timestamp[gte]=${minute(-20) + 1}&timestamp[lt]=${minute(-20) + 3}`)).toEqual([
      identifiers[2],
      identifiers[1],
    ]);
    expect(await names(`timestamp[gt]=${minute(-20) + 3}`)).toEqual([identifiers[4]]);
    expect(await names(`timestamp[lte]=${minute(-20)}`)).toEqual([identifiers[0]]);
    const first = await list(`${base}&limit=2`);
    expect(first.has_more).toBe(true);
    expect(await names(`limit=2&starting_after=${first.data[1]?.id}`)).toEqual(latestFirst.slice(2, 4));
    const all = (await list(`${base}&limit=100`)).data;
    expect(await names(`limit=2&ending_before=${all[4]?.id}`)).toEqual(latestFirst.slice(2, 4));
    expect(await names(`limit=100&created[gte]=${(all[0]?.created ?? 0) + 1}`)).not.toContain(latestFirst[0]);
    expect(await raw(`/v1/billing/meter_events?${base}&starting_after=nonsense`)).toMatchObject({ status: 400 });
    expect(await raw("/v1/billing/meter_events?meter=mtr_test_nobody&customer=c")).toMatchObject({ status: 400 });
    expect(await raw(`/v1/billing/meter_events?meter=${meter.id}`)).toMatchObject({
      status: 400,
      error: { param: "customer" },
    });
  });
});
