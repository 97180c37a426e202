import { stringify } from "qs";
import type Stripe from "stripe";
import { beforeAll, describe, expect, it } from "vitest";
import { createMeter, payload, raw, refusal, stripe, stripeClient, unique, WAIT } from "./client.ts";

const DAY = 86_400;

/** A UTC day that is over, in unix seconds. */
const day = Math.floor(Date.now() / 1_000 / DAY) * DAY - 3 * DAY;

/** Parameters that the SDK's types lack. */
const create = (fields: object) =>
  createMeter(fields as Partial<Stripe.Billing.MeterCreateParams>) as Promise<
    Stripe.Billing.Meter & { dimension_payload_keys?: string[] }
  >;

/** A GET as the SDK makes one, which takes the parameters of a path that it has no types for in the path. */
const get = async (path: string, params: Record<string, unknown>) =>
  (await stripe.rawRequest("GET", `${path}?${stringify(params)}`, undefined, {
    additionalHeaders: WAIT.headers,
  })) as unknown as {
    object: string;
    livemode: boolean;
    refreshed_at: number;
    has_more: boolean;
    data: Record<string, unknown>[];
    rows: { object: string; url: string; has_more: boolean; data: Record<string, unknown>[] };
  };

describe("C15 dimensions and usage", () => {
  let meter: Stripe.Billing.Meter;
  const customer = unique("cus");
  const other = unique("cus");

  const EVENTS = [
    [0, "small", "eu", 1],
    [3_600, "large", "eu", 2],
    [7_200, "small", "us", 4],
    [DAY - 1, "large", "us", 8],
    [DAY + 1_000, "small", "eu", 16],
  ] as const;

  beforeAll(async () => {
    meter = await create({ dimension_payload_keys: ["region", "model"] });
    for (const [seconds, model, region, value] of EVENTS) {
      for (const [who, times] of [
        [customer, 1],
        [other, 10],
      ] as const) {
        await stripe.v2.billing.meterEvents.create({
          event_name: meter.event_name,
          payload: { stripe_customer_id: who, value: String(value * times), model, region },
          timestamp: new Date((day + seconds) * 1_000).toISOString(),
        });
      }
    }
    const all = await get("/v1/edgemeter/usage", { meter: meter.id, from: day, to: day + 2 * DAY });
    expect(all.data[0]?.value).toBe(341);
  }, 60_000);

  it("C15.1 are declared with the meter, and shown with it; without any the meter is as before", async () => {
    expect(meter).toMatchObject({ dimension_payload_keys: ["region", "model"] });
    expect(await stripe.billing.meters.retrieve(meter.id)).toMatchObject({
      dimension_payload_keys: ["region", "model"],
    });
    expect(await createMeter()).not.toHaveProperty("dimension_payload_keys");
    for (const [keys, param] of [
      [["region", "value"], "dimension_payload_keys[1]"],
      [["stripe_customer_id"], "dimension_payload_keys[0]"],
      [["a", "a"], "dimension_payload_keys[1]"],
      [['a"'], "dimension_payload_keys[0]"],
      [Array.from({ length: 11 }, (_, i) => `k${i}`), "dimension_payload_keys"],
    ] as const) {
      expect(await refusal(create({ dimension_payload_keys: keys }))).toMatchObject({ statusCode: 400, param });
    }
  });

  it("C15.2 must be in an event: refused at once, and in a stream's report", async () => {
    const { event_name } = meter;
    const lacking = { event_name, payload: { ...payload, region: "eu" } };
    for (const call of [
      () => stripe.v2.billing.meterEvents.create(lacking),
      () => stripe.billing.meterEvents.create(lacking),
    ]) {
      expect(await refusal(call())).toMatchObject({
        ...{ statusCode: 400, code: "missing_dimension_payload_keys", param: "payload[model]" },
      });
    }
    const { authentication_token } = await stripe.v2.billing.meterEventSession.create();
    await stripeClient(authentication_token).v2.billing.meterEventStream.create({ events: [lacking] });
    const codes = async () =>
      (await raw(`/v2/core/events?object_id=${meter.id}`)).text.includes('"code":"missing_dimension_payload_keys"');
    await expect.poll(codes, { timeout: 60_000, interval: 500 }).toBe(true);
  }, 60_000);

  const summaries = (params: Record<string, unknown>) =>
    get(`/v1/billing/meters/${meter.id}/event_summaries`, {
      ...{ customer, start_time: day, end_time: day + 2 * DAY },
      ...params,
    });

  it("C15.3 filter summaries and tell them apart, in pages that lead both ways", async () => {
    const values = async (params: Record<string, unknown>) =>
      (await summaries(params)).data.map(({ aggregated_value, dimensions }) => [aggregated_value, dimensions]);
    expect(await values({})).toEqual([[31, undefined]]);
    expect(await values({ dimension_filters: { model: "small" } })).toEqual([[21, undefined]]);
    expect(await values({ dimension_filters: { model: "small", region: "us" } })).toEqual([[4, undefined]]);
    expect(await values({ dimension_filters: { model: "none" } })).toEqual([]);
    expect(await values({ dimension_group_by_keys: ["model"] })).toEqual([
      [10, { model: "large" }],
      [21, { model: "small" }],
    ]);
    const byDay = { value_grouping_window: "day", dimension_group_by_keys: ["region", "model"] };
    expect(await values(byDay)).toEqual([
      [16, { region: "eu", model: "small" }],
      [2, { region: "eu", model: "large" }],
      [1, { region: "eu", model: "small" }],
      [8, { region: "us", model: "large" }],
      [4, { region: "us", model: "small" }],
    ]);
    const ids = (await summaries(byDay)).data.map(({ id }) => id);
    const after = await summaries({ ...byDay, limit: 2, starting_after: ids[1] });
    expect(after.data.map(({ id }) => id)).toEqual(ids.slice(2, 4));
    expect(after.has_more).toBe(true);
    const before = await summaries({ ...byDay, limit: 2, ending_before: ids[3] });
    expect(before.data.map(({ id }) => id)).toEqual(ids.slice(1, 3));
    // A cursor belongs to its grouping.
    expect(await refusal(summaries({ dimension_group_by_keys: ["model"], starting_after: ids[1] }))).toMatchObject({
      code: "resource_missing",
    });
    for (const [params, param] of [
      [{ dimension_filters: { tier: "a" } }, "dimension_filters[tier]"],
      [{ dimension_group_by_keys: ["model", "tier"] }, "dimension_group_by_keys[1]"],
    ] as const) {
      expect(await refusal(summaries(params))).toMatchObject({ statusCode: 400, param });
    }
  });

  const usage = (params: Record<string, unknown>) =>
    get("/v1/billing/analytics/meter_usage", { customer, starts_at: day, ends_at: day + 2 * DAY, ...params });

  it("C15.4 meter usage has rows of several meters by the days of a zone", async () => {
    const second = await createMeter({ default_aggregation: { formula: "count" } });
    await stripe.v2.billing.meterEvents.create({
      event_name: second.event_name,
      payload: { ...payload, stripe_customer_id: customer },
      timestamp: new Date(day * 1_000).toISOString(),
    });
    const asked = {
      meters: [
        { meter: meter.id, dimension_filters: { region: ["eu", "us"] }, dimension_group_by_keys: ["model"] },
        { meter: second.id },
      ],
      ...{ timezone: "Asia/Kathmandu", value_grouping_window: "day" },
    };
    const found = await usage(asked);
    expect(found.rows.data).toHaveLength(5);
    const midnight = day + DAY - 5.75 * 3_600;
    const [first, next, last] = [
      { starts_at: day, ends_at: midnight },
      { starts_at: midnight, ends_at: midnight + DAY },
      { starts_at: midnight + DAY, ends_at: day + 2 * DAY },
    ];
    expect(last?.starts_at).toBeLessThan(day + 2 * DAY);
    expect(found).toEqual({
      ...{ object: "billing.analytics.meter_usage", livemode: false, refreshed_at: expect.any(Number) },
      rows: {
        ...{ object: "list", has_more: false, url: "/v1/billing/analytics/meter_usage" },
        data: [
          { ...first, meter: meter.id, value: 2, dimensions: { model: "large" } },
          { ...first, meter: meter.id, value: 5, dimensions: { model: "small" } },
          { ...first, meter: second.id, value: 1, dimensions: null },
          { ...next, meter: meter.id, value: 8, dimensions: { model: "large" } },
          { ...next, meter: meter.id, value: 16, dimensions: { model: "small" } },
        ].map((row) => ({ ...row, id: expect.any(String), object: "billing.analytics.meter_usage_row" })),
      },
    });
    const ids = found.rows.data.map(({ id }) => id);
    const after = await usage({ ...asked, limit: 2, starting_after: ids[1] });
    expect(after.rows).toMatchObject({ has_more: true, data: [{ id: ids[2] }, { id: ids[3] }] });
    const before = await usage({ ...asked, limit: 2, ending_before: ids[3] });
    expect(before.rows).toMatchObject({ has_more: true, data: [{ id: ids[1] }, { id: ids[2] }] });
    // Without meters, all of them are added up.
    expect((await usage({})).rows.data).toMatchObject([{ meter: null, value: 32, dimensions: null }]);
    for (const [params, param] of [
      [{ meters: [{ meter: "mtr_test_none" }] }, "meters[0][meter]"],
      [{ meters: [{ meter: second.id, dimension_group_by_keys: ["model"] }] }, "meters[0][dimension_group_by_keys][0]"],
      [{ timezone: "Mars/Olympus" }, "timezone"],
      [{ timezone: "+05:30" }, "timezone"],
      [{ cycle_anchor: day }, "cycle_anchor"],
      [{ ends_at: day }, "ends_at"],
      [{ value_grouping_window: "hour", starts_at: 0 }, "value_grouping_window"],
      [{ starting_after: "mtrusr_test_x" }, "starting_after"],
    ] as const) {
      expect(await refusal(usage(params)), JSON.stringify(params)).toMatchObject({ statusCode: 400, param });
    }
  }, 60_000);

  it("C15.5 meter usage goes by months from an anchor, to its second", async () => {
    const { rows } = await usage({
      ...{ starts_at: day - 40 * DAY, meters: [{ meter: meter.id }], value_grouping_window: "month" },
      cycle_anchor: day + 3_601,
    });
    expect(rows.data.map(({ starts_at, ends_at, value }) => [starts_at, ends_at, value]).slice(-1)).toEqual([
      [day + 3_601, day + 2 * DAY, 28],
    ]);
    expect(rows.data.at(-2)).toMatchObject({ ends_at: day + 3_601, value: 3 });
  });

  const ofAll = (params: Record<string, unknown>) =>
    get("/v1/edgemeter/usage", { meter: meter.id, from: day, to: day + 2 * DAY, ...params });

  it("C15.6 usage of all customers is one row, or one for each customer, value or window", async () => {
    const { data, ...list } = await ofAll({ group_by: "customer", order: "value" });
    expect(list).toEqual({ object: "list", has_more: false, url: "/v1/edgemeter/usage" });
    const row = { object: "edgemeter.usage_row", id: expect.any(String), starts_at: day, ends_at: day + 2 * DAY };
    expect(data).toEqual([
      { ...row, customer: other, value: 310 },
      { ...row, customer, value: 31 },
    ]);
    const first = await ofAll({ group_by: "customer", order: "value", limit: 1 });
    expect(first).toMatchObject({ has_more: true, data: [{ customer: other }] });
    const second = await ofAll({ group_by: "customer", order: "value", limit: 1, starting_after: first.data[0]?.id });
    expect(second).toMatchObject({ has_more: false, data: [{ customer }] });
    expect((await ofAll({ group_by: "model" })).data).toMatchObject([
      { dimensions: { model: "large" }, value: 110 },
      { dimensions: { model: "small" }, value: 231 },
    ]);
    // To the second.
    const ragged = { from: day + 1, to: day + DAY, window: "day", dimension_filters: { region: "us" } };
    expect((await ofAll(ragged)).data).toMatchObject([{ starts_at: day + 1, ends_at: day + DAY, value: 132 }]);
    for (const [params, param] of [
      [{ group_by: "tier" }, "group_by"],
      [{ order: "value", window: "day" }, "order"],
      [{ meter: "mtr_test_none" }, "meter"],
      [{ starting_after: "usage_x" }, "starting_after"],
    ] as const) {
      expect(await refusal(ofAll(params)), JSON.stringify(params)).toMatchObject({ statusCode: 400, param });
    }
  });

  it("C15.7 customers are listed by prefix, with the quarter hour of their last event", async () => {
    const list = (params: Record<string, unknown>) => get("/v1/edgemeter/customers", { meter: meter.id, ...params });
    const found = await list({ prefix: customer });
    expect(found).toEqual({
      ...{ object: "list", has_more: false, url: "/v1/edgemeter/customers" },
      data: [{ id: customer, object: "edgemeter.customer", last_event: day + DAY + 900 }],
    });
    const ids = [customer, other].sort();
    const first = await list({ limit: 1 });
    expect(first).toMatchObject({ has_more: true, data: [{ id: ids[0] }] });
    expect(await list({ limit: 1, starting_after: ids[0] })).toMatchObject({ has_more: false, data: [{ id: ids[1] }] });
  });
});
