import type Stripe from "stripe";
import { beforeAll, describe, expect, it } from "vitest";
import { createMeter, minute, raw, refusal, stripe, unique, WAIT } from "./client.ts";

const HOUR = 3_600;
const DAY = 24 * HOUR;

describe("C3 summaries", () => {
  let meter: Stripe.Billing.Meter;
  /** A UTC day that is over, in unix seconds. */
  const today = Math.floor(Date.now() / 1_000 / DAY) * DAY - 2 * DAY;
  const list = (params: Partial<Stripe.Billing.MeterListEventSummariesParams>, id = meter.id) =>
    stripe.billing.meters.listEventSummaries(
      id,
      { customer: "cus_1", start_time: today, end_time: today + DAY, ...params },
      WAIT,
    );
  const report = async (
    target: Stripe.Billing.Meter,
    events: readonly (readonly [seconds: number, value: number])[],
  ) => {
    for (const [seconds, value] of events) {
      await stripe.v2.billing.meterEvents.create({
        event_name: target.event_name,
        payload: { stripe_customer_id: "cus_1", value: String(value) },
        timestamp: new Date((today + seconds) * 1_000).toISOString(),
      });
    }
  };
  const EVENTS = [
    [0, 1],
    [30, 2],
    [60, 4],
    [HOUR - 1, 8],
    [HOUR, 16],
    [5 * HOUR + 90, 32],
    [DAY - 1, 64],
    [DAY, 128],
    [DAY + HOUR, 256],
  ] as const;

  beforeAll(async () => {
    meter = await createMeter();
    await report(meter, EVENTS);
    expect((await list({ end_time: today + 2 * DAY })).data[0]?.aggregated_value).toBe(511);
  }, 60_000);

  it("C3.1 are one object for an ungrouped range", async () => {
    const { data, has_more } = await list({});
    expect(has_more).toBe(false);
    expect(data).toEqual([
      {
        id: expect.stringMatching(/^mtrusg_/),
        object: "billing.meter_event_summary",
        aggregated_value: 127,
        start_time: today,
        end_time: today + DAY,
        livemode: false,
        meter: meter.id,
      },
    ]);
  });

  it("C3.2 by hour leave empty hours out, newest first", async () => {
    const { data } = await list({ value_grouping_window: "hour" });
    expect(
      data.map(({ start_time, end_time, aggregated_value }) => [
        (start_time - today) / HOUR,
        (end_time - today) / HOUR,
        aggregated_value,
      ]),
    ).toEqual([
      [23, 24, 64],
      [5, 6, 32],
      [1, 2, 16],
      [0, 1, 15],
    ]);
  });

  it("C3.3 by day follow UTC days", async () => {
    const { data } = await list({ value_grouping_window: "day", end_time: today + 2 * DAY });
    expect(data.map(({ start_time, aggregated_value }) => [start_time - today, aggregated_value])).toEqual([
      [DAY, 384],
      [0, 127],
    ]);
  });

  it("C3.4 take start inclusive and end exclusive, to the second", async () => {
    const value = async (from: number, to: number) =>
      (await list({ start_time: today + from, end_time: today + to })).data[0]?.aggregated_value;
    expect(await value(0, 60)).toBe(3);
    expect(await value(60, 120)).toBe(4);
    expect(await value(60, HOUR)).toBe(12);
    expect(await value(60, 6 * HOUR)).toBe(60);
    expect(await value(60, DAY)).toBe(124);
    expect(await value(120, 180)).toBeUndefined();
    expect(await value(0, 30)).toBe(1);
    expect(await value(29, 31)).toBe(2);
    expect(await value(31, 60)).toBeUndefined();
    expect(await value(1, 5 * HOUR + 90)).toBe(30);
    expect(await value(17, 5 * HOUR + 91)).toBe(62);
    expect(await value(HOUR - 1, HOUR + 1)).toBe(24);
  });

  it("C3.5 come in pages, forwards, backwards, and all by themselves", async () => {
    const all = (await list({ value_grouping_window: "hour" })).data.map(({ id }) => id);
    const first = await list({ value_grouping_window: "hour", limit: 3 });
    expect(first.has_more).toBe(true);
    const second = await list({ value_grouping_window: "hour", limit: 3, starting_after: first.data[2]?.id ?? "" });
    expect([...first.data, ...second.data].map(({ id }) => id)).toEqual(all);
    expect(second.has_more).toBe(false);
    const back = await list({ value_grouping_window: "hour", limit: 2, ending_before: all[3] ?? "" });
    expect(back.data.map(({ id }) => id)).toEqual(all.slice(1, 3));
    expect(back.has_more).toBe(true);
    const paged = await list({ value_grouping_window: "hour", limit: 1 }).autoPagingToArray({ limit: 100 });
    expect(paged.map(({ id }) => id)).toEqual(all);
    expect(await refusal(list({ starting_after: "mtrusg_test_1_x" }))).toMatchObject({
      statusCode: 400,
      code: "resource_missing",
    });
  });

  it.each([
    [
      "hour",
      HOUR + 1,
      `should be aligned with hourly boundaries (expected ${today + HOUR}) because the \`value_grouping_window\` is hour.`,
    ],
    [
      "day",
      HOUR,
      `should be aligned with daily boundaries (expected ${today}) because the \`value_grouping_window\` is day.`,
    ],
  ] as const)("C3.6 grouped by %s refuse misaligned times", async (grouping, offset, message) => {
    const error = await refusal(
      list({ value_grouping_window: grouping, start_time: today + offset, end_time: today + 2 * DAY }),
    );
    expect(error).toMatchObject({ statusCode: 400, type: "StripeInvalidRequestError", param: "start_time" });
    expect(error.message).toContain(`start_time ${today + offset} ${message}`);
  });

  it("C3.7 of nothing are an empty list", async () => {
    expect(await list({ customer: "cus_nobody" })).toMatchObject({ data: [], has_more: false });
  });

  it("C3.8 refuse a range that is empty or backwards, and parameters that are missing", async () => {
    expect((await refusal(list({ start_time: today, end_time: today }))).param).toBe("end_time");
    const base = `/v1/billing/meters/${meter.id}/event_summaries`;
    expect((await raw(`${base}?start_time=0&end_time=60`)).error).toMatchObject({ param: "customer" });
    expect((await raw(`${base}?customer=c&end_time=60`)).error).toMatchObject({ param: "start_time" });
    expect((await raw(`${base}?customer=c&start_time=1e3&end_time=60`)).error).toMatchObject({ param: "start_time" });
    expect((await raw(`${base}?customer=c&start_time=9999999999999&end_time=60`)).status).toBe(400);
    expect(
      (await raw("/v1/billing/meters/mtr_test_nobody/event_summaries?customer=c&start_time=0&end_time=60")).status,
    ).toBe(404);
  });

  it("C3.9 of `last` give the latest event by timestamp, of `count` their number", async () => {
    const last = await createMeter({ default_aggregation: { formula: "last" } });
    const count = await createMeter({ default_aggregation: { formula: "count" } });
    await report(last, [
      [HOUR + 10, 5],
      [HOUR + 5, 9],
      [2 * HOUR, 3],
    ]);
    await report(count, [
      [1, 5],
      [2, 9],
    ]);
    expect((await list({}, last.id)).data[0]?.aggregated_value).toBe(3);
    const byHour = await list({ value_grouping_window: "hour" }, last.id);
    expect(byHour.data.map(({ aggregated_value }) => aggregated_value)).toEqual([3, 5]);
    expect((await list({}, count.id)).data[0]?.aggregated_value).toBe(2);
  });

  it.each([
    ["max", "90", [30, 40], 30, 40],
    ["min", "1", [5, 2], 5, 2],
  ] as const)(
    "C3.12 of `%s`, edgemeter's own, give that value of the events that are not cancelled",
    async (formula, lost, [left, others], ofOne, ofAll) => {
      const meter = await createMeter({ default_aggregation: { formula: formula as "last" } });
      expect(meter.default_aggregation).toEqual({ formula });
      const identifier = unique("event");
      const { event_name } = meter;
      const create = (customer: string, value: string, more: object = {}) =>
        stripe.v2.billing.meterEvents.create({
          ...{ event_name, payload: { stripe_customer_id: customer, value }, ...more },
          timestamp: new Date((today + HOUR + 10) * 1_000).toISOString(),
        });
      await report(meter, [
        [HOUR + 20, left],
        [2 * HOUR, 20],
      ]);
      await create("cus_1", lost, { identifier });
      await create("cus_2", String(others));
      const value = async () => (await list({}, meter.id)).data[0]?.aggregated_value;
      expect(await value()).toBe(Number(lost));
      await stripe.v2.billing.meterEventAdjustments.create({ event_name, type: "cancel", cancel: { identifier } });
      expect(await value()).toBe(ofOne);
      const byHour = await list({ value_grouping_window: "hour" }, meter.id);
      expect(byHour.data.map(({ aggregated_value }) => aggregated_value)).toEqual([20, left]);
      // To the second, of the events themselves.
      const edge = await list({ start_time: today + HOUR, end_time: today + HOUR + 60 }, meter.id);
      expect(edge.data[0]?.aggregated_value).toBe(left);
      const all = `/v1/edgemeter/usage?meter=${meter.id}&from=${today}&to=${today + DAY}`;
      expect(await stripe.rawRequest("GET", all, undefined, { additionalHeaders: WAIT.headers })).toMatchObject({
        data: [{ value: ofAll }],
      });
    },
  );

  it("C3.10 are exact integers in the raw answer", async () => {
    const big = await createMeter();
    await report(
      big,
      Array.from({ length: 11 }, (_, i) => [i, 999_999_999_999_999] as const),
    );
    const read = async (to: number) =>
      (
        await raw(
          `/v1/billing/meters/${big.id}/event_summaries?customer=cus_1&start_time=${today}&end_time=${today + to}`,
          WAIT,
        )
      ).text;
    expect(await read(DAY)).toContain('"aggregated_value":10999999999999989,');
    // 11 × 999,999,999,999,999 is past 2^53; at a ragged edge it comes from the events.
    expect(await read(60)).toContain('"aggregated_value":10999999999999989,');
  });

  it("C3.11 show an event within seconds", async () => {
    const fresh = await createMeter();
    await stripe.v2.billing.meterEvents.create({
      event_name: fresh.event_name,
      payload: { stripe_customer_id: "cus_1", value: "1" },
    });
    const read = async () =>
      (
        await stripe.billing.meters.listEventSummaries(fresh.id, {
          ...{ customer: "cus_1", start_time: minute(-10), end_time: minute(10) },
        })
      ).data[0]?.aggregated_value;
    await expect.poll(read, { timeout: 60_000, interval: 50 }).toBe(1);
  });

  it("C16.1 say up to which moment they are complete, as usage, customers and lists of events do", async () => {
    const at = today + DAY;
    const paths = [
      `/v1/billing/meters/${meter.id}/event_summaries?customer=cus_1&start_time=${today}&end_time=${at}`,
      `/v1/billing/meter_events?meter=${meter.id}&customer=cus_1`,
      `/v1/billing/meter_events?identifier=${unique("none")}`,
      `/v1/billing/analytics/meter_usage?customer=cus_1&meters[0][meter]=${meter.id}&starts_at=${today}&ends_at=${at}`,
      `/v1/edgemeter/usage?meter=${meter.id}&from=${today}&to=${at}`,
      "/v1/edgemeter/customers",
    ];
    for (const path of paths) {
      const before = Date.now();
      const { status, headers } = await raw(path, WAIT);
      expect({ path, status }).toEqual({ path, status: 200 });
      const through = Date.parse(headers.get("edgemeter-complete-through") ?? "");
      // All was in when it was read, so it is the clock, less what clocks may differ and what an answer may be old.
      expect(through).toBeGreaterThan(before - 2_100);
      expect(through).toBeLessThan(Date.now());
    }
  });

  it("C16.2 wait for what was reported before, and refuse other waits than 0 to 10 seconds", async () => {
    const fresh = await createMeter();
    const read = () => list({ start_time: minute(-10), end_time: minute(10) }, fresh.id);
    for (let events = 1; events <= 5; events++) {
      await stripe.v2.billing.meterEvents.create({
        event_name: fresh.event_name,
        payload: { stripe_customer_id: "cus_1", value: "1" },
      });
      expect((await read()).data[0]?.aggregated_value).toBe(events);
    }
    const { status, error } = await raw("/v1/edgemeter/customers", { headers: { "edgemeter-wait": "11" } });
    expect({ status, param: error.param }).toEqual({ status: 400, param: "edgemeter-wait" });
  });
});
