import { describe, expect, it } from "vitest";
import { createMeter, liveStripe, plain, raw, refusal, stripe, unique } from "./client.ts";

describe("C1 meters", () => {
  it("C1.1 are created with the contract's object", async () => {
    const eventName = unique("search");
    const meter = await stripe.billing.meters.create({
      display_name: "Search API calls",
      event_name: eventName,
      default_aggregation: { formula: "sum" },
    });
    expect(plain(meter)).toEqual({
      id: expect.stringMatching(/^mtr_test_[a-z0-9]+$/),
      object: "billing.meter",
      created: expect.any(Number),
      customer_mapping: { event_payload_key: "stripe_customer_id", type: "by_id" },
      default_aggregation: { formula: "sum" },
      display_name: "Search API calls",
      event_name: eventName,
      event_time_window: null,
      livemode: false,
      status: "active",
      status_transitions: { deactivated_at: null },
      updated: meter.created,
      value_settings: { event_payload_key: "value" },
    });
    expect(Math.abs(meter.created - Date.now() / 1_000)).toBeLessThan(60);
  });

  it("C1.2 take every parameter", async () => {
    const meter = await createMeter({
      default_aggregation: { formula: "count" },
      customer_mapping: { type: "by_id", event_payload_key: "who" },
      value_settings: { event_payload_key: "how_many" },
      event_time_window: "day",
    });
    expect(meter).toMatchObject({
      default_aggregation: { formula: "count" },
      customer_mapping: { type: "by_id", event_payload_key: "who" },
      value_settings: { event_payload_key: "how_many" },
      event_time_window: "day",
    });
  });

  it("C1.3 are retrieved, and unknown ones are 404 resource_missing", async () => {
    const meter = await createMeter();
    expect(await stripe.billing.meters.retrieve(meter.id)).toMatchObject({
      id: meter.id,
      event_name: meter.event_name,
    });
    const error = await refusal(stripe.billing.meters.retrieve("mtr_test_nobody"));
    expect(error).toMatchObject({ statusCode: 404, type: "StripeInvalidRequestError", code: "resource_missing" });
    expect(error.message).toBe("No such meter: 'mtr_test_nobody'");
  });

  it("C1.4 change their display name and nothing else", async () => {
    const meter = await createMeter();
    expect(await stripe.billing.meters.update(meter.id, { display_name: "Renamed" })).toMatchObject({
      display_name: "Renamed",
      event_name: meter.event_name,
    });
    const { status, error } = await raw(`/v1/billing/meters/${meter.id}`, { form: "event_name=other" });
    expect({ status, error }).toMatchObject({
      status: 400,
      error: { message: "Received unknown parameter: event_name" },
    });
  });

  it("C1.5 are deactivated and reactivated, and doing it again changes nothing", async () => {
    const meter = await createMeter();
    const inactive = await stripe.billing.meters.deactivate(meter.id);
    expect(inactive).toMatchObject({ status: "inactive", status_transitions: { deactivated_at: expect.any(Number) } });
    expect(await stripe.billing.meters.deactivate(meter.id)).toMatchObject({
      status_transitions: inactive.status_transitions,
    });
    expect(await stripe.billing.meters.reactivate(meter.id)).toMatchObject({
      status: "active",
      status_transitions: { deactivated_at: null },
    });
  });

  it("C1.6 have an event name of their own while active", async () => {
    const first = await createMeter();
    const error = await refusal(createMeter({ event_name: first.event_name }));
    expect(error).toMatchObject({ statusCode: 400, type: "StripeInvalidRequestError" });
    expect(error.message).toBe(
      `An active meter already exists for event name '${first.event_name}'. To create a new meter with the same event name, first deactivate the currently active meter.`,
    );
    await stripe.billing.meters.deactivate(first.id);
    const second = await createMeter({ event_name: first.event_name });
    expect((await refusal(stripe.billing.meters.reactivate(first.id))).message).toContain(
      "An active meter already exists",
    );
    await stripe.billing.meters.deactivate(second.id);
    expect(await stripe.billing.meters.reactivate(first.id)).toMatchObject({ status: "active" });
  });

  it("C1.7 are listed newest first, by status, in pages", async () => {
    const made = [];
    for (let i = 0; i < 5; i++) made.push(await createMeter());
    const newestFirst = made.map(({ id }) => id).reverse();
    const page = await stripe.billing.meters.list({ limit: 2 });
    expect(page).toMatchObject({ object: "list", has_more: true, url: "/v1/billing/meters" });
    expect(page.data.map(({ id }) => id)).toEqual(newestFirst.slice(0, 2));
    const next = await stripe.billing.meters.list({ limit: 2, starting_after: newestFirst[1] ?? "" });
    expect(next.data.map(({ id }) => id)).toEqual(newestFirst.slice(2, 4));
    const before = await stripe.billing.meters.list({ limit: 2, ending_before: newestFirst[4] ?? "" });
    expect(before.data.map(({ id }) => id)).toEqual(newestFirst.slice(2, 4));
    expect(before.has_more).toBe(true);
    const all = await stripe.billing.meters.list({ limit: 3 }).autoPagingToArray({ limit: 10_000 });
    expect(all.slice(0, 5).map(({ id }) => id)).toEqual(newestFirst);
    await stripe.billing.meters.deactivate(newestFirst[0] ?? "");
    const inactive = await stripe.billing.meters.list({ status: "inactive", limit: 1 });
    expect(inactive.data[0]?.id).toBe(newestFirst[0]);
    const active = await stripe.billing.meters.list({ status: "active", limit: 1 });
    expect(active.data[0]?.id).toBe(newestFirst[1]);
  });

  it("C1.8 exist in one mode only", async () => {
    const live = await createMeter({}, liveStripe);
    expect(live).toMatchObject({ livemode: true, id: expect.stringMatching(/^mtr_(?!test_)/) });
    expect(await refusal(stripe.billing.meters.retrieve(live.id))).toMatchObject({ statusCode: 404 });
    expect(await refusal(stripe.billing.meters.update(live.id, { display_name: "x" }))).toMatchObject({
      statusCode: 404,
    });
    const test = await stripe.billing.meters.list({ limit: 100 }).autoPagingToArray({ limit: 10_000 });
    expect(test.every(({ livemode }) => !livemode)).toBe(true);
    // The same name in the other mode is free.
    expect(await createMeter({ event_name: live.event_name })).toMatchObject({ livemode: false });
  });

  it("C1.9 answer an Idempotency-Key with its first answer, and refuse it for another request", async () => {
    const idempotencyKey = unique("key");
    const params = {
      display_name: "T",
      event_name: unique("tokens"),
      default_aggregation: { formula: "sum" },
    } as const;
    const first = await stripe.billing.meters.create(params, { idempotencyKey });
    const again = await stripe.billing.meters.create(params, { idempotencyKey });
    expect(again.id).toBe(first.id);
    const error = await refusal(stripe.billing.meters.create({ ...params, display_name: "U" }, { idempotencyKey }));
    expect(error).toMatchObject({ statusCode: 400, type: "StripeIdempotencyError" });
    expect(await refusal(stripe.billing.meters.deactivate(first.id, {}, { idempotencyKey }))).toMatchObject({
      type: "StripeIdempotencyError",
    });
    const key2 = unique("key");
    const inactive = await stripe.billing.meters.deactivate(first.id, {}, { idempotencyKey: key2 });
    await stripe.billing.meters.reactivate(first.id);
    expect(await stripe.billing.meters.deactivate(first.id, {}, { idempotencyKey: key2 })).toMatchObject({
      updated: inactive.updated,
      status: "inactive",
    });
    expect(await stripe.billing.meters.retrieve(first.id)).toMatchObject({ status: "active" });
  });

  it.each([
    ["display_name", "event_name=a&default_aggregation[formula]=sum", "Missing required param: display_name."],
    ["event_name", "display_name=a&default_aggregation[formula]=sum", "Missing required param: event_name."],
    ["default_aggregation", "display_name=a&event_name=b", "Missing required param: default_aggregation."],
    [
      "default_aggregation[formula]",
      "display_name=a&event_name=b&default_aggregation[formula]=median",
      "Invalid default_aggregation[formula]",
    ],
    [
      "colour",
      "display_name=a&event_name=b&default_aggregation[formula]=sum&colour=red",
      "Received unknown parameter: colour",
    ],
    [
      "display_name",
      `display_name=${"x".repeat(251)}&event_name=b&default_aggregation[formula]=sum`,
      "at most 250 characters",
    ],
    [
      "event_name",
      `display_name=a&event_name=${"x".repeat(101)}&default_aggregation[formula]=sum`,
      "at most 100 characters",
    ],
    ["event_name", "display_name=a&event_name=b&event_name=c&default_aggregation[formula]=sum", "Invalid event_name"],
    [
      "event_time_window",
      "display_name=a&event_name=b&default_aggregation[formula]=sum&event_time_window=week",
      "Invalid event_time_window",
    ],
    [undefined, "display_name=a&event_name=%FF&default_aggregation[formula]=sum", "broken percent encoding"],
    [undefined, "display_name=a&event_name=b&default_aggregation[formula]=sum&__proto__[x]=1", "__proto__"],
    ["event_name", "display_name=a&event_name=%00&default_aggregation[formula]=sum", "cannot be stored"],
  ])("C1.10 refuse a wrong %s (%#)", async (param, form, message) => {
    const { status, error } = await raw("/v1/billing/meters", { form });
    expect(status).toBe(400);
    expect(error).toMatchObject({ type: "invalid_request_error", message: expect.stringContaining(message) });
    expect(error.param).toBe(param);
  });

  it("C1.11 accept expand, and numbers as forms write them", async () => {
    const { data } = await stripe.billing.meters.list({ limit: 1, expand: ["data.nothing"] });
    expect(data).toHaveLength(1);
    for (const limit of ["0", "101", "-1", "x", "1.5"]) {
      expect((await raw(`/v1/billing/meters?limit=${limit}`)).status).toBe(400);
    }
    expect((await raw("/v1/billing/meters?starting_after=mtr_test_nobody")).error).toMatchObject({
      code: "resource_missing",
    });
    expect((await raw("/v1/billing/meters?starting_after=a&ending_before=b")).status).toBe(400);
  });
});
