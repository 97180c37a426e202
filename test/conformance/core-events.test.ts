import Stripe from "stripe";
import { describe, expect, it } from "vitest";
import { liveStripe, plain, raw, refusal, stripe, unique } from "./client.ts";

const PATH = "/v2/core/events";

describe("C9 error reports", () => {
  it("C9.1 are a v2 list, empty while nothing was refused", async () => {
    for (const client of [stripe, liveStripe]) {
      const page = await client.v2.core.events.list({ object_id: unique("mtr_test") });
      expect(plain(page)).toEqual({ data: [], next_page_url: null, previous_page_url: null });
    }
    expect(await stripe.v2.core.events.list({ object_id: unique("mtr") }).autoPagingToArray({ limit: 10 })).toEqual([]);
  });

  it("C9.2 that are not there are 404 not_found", async () => {
    for (const id of [
      "evt_test_unknown",
      "evt_test_0mwzs5p2oAAAAAAAAAAAAAAAA",
      "evt_test_' OR 1=1 --",
      unique("mtr_test"),
    ]) {
      const error = await refusal(stripe.v2.core.events.retrieve(id));
      expect(error).toBeInstanceOf(Stripe.errors.StripeInvalidRequestError);
      expect(error).toMatchObject({ statusCode: 404, code: "not_found", message: expect.stringContaining(id) });
    }
  });

  it("C9.3 take every filter as the SDK writes it", async () => {
    const now = Math.floor(Date.now() / 1_000);
    const page = await stripe.v2.core.events.list({
      limit: 100,
      object_id: unique("mtr_test"),
      types: ["v1.billing.meter.error_report_triggered", "v1.billing.meter.no_meter_found"],
      created: { gt: now - 60, gte: now - 60, lt: now, lte: now },
    });
    expect(page.data).toEqual([]);
    // The SDK writes a Date as Unix seconds.
    const dates = { gte: new Date() } as never;
    expect((await stripe.v2.core.events.list({ object_id: unique("mtr_test"), created: dates })).data).toEqual([]);
  });

  it.each([
    `created[gte]=${new Date().toISOString()}`,
    "created[gte]=2026-01-01T00:00:00%2B02:00",
    "created%5Blt%5D=1764000000",
    "types[]=v1.billing.meter.no_meter_found",
    "types=v1.billing.meter.no_meter_found",
    "types=a&types=b",
    "limit=1",
    "limit=100",
    "page=evt_test_0mwzs5p2oAAAAAAAAAAAAAAAA",
  ])("C9.4 take %s", async (query) => {
    const { status, text } = await raw(`${PATH}?${query}&object_id=${unique("mtr_test")}`);
    expect(status).toBe(200);
    expect(JSON.parse(text)).toEqual({ data: [], next_page_url: null, previous_page_url: null });
  });

  it.each([
    "limit=0",
    "limit=101",
    "limit=x",
    "limit=",
    "page=evt_0mwzs5p2oAAAAAAAAAAAAAAAA",
    "page=nonsense",
    "page=",
    "created=1",
    "created[gte]=yesterday",
    "created[gte]=2026-01-01",
    "created[gte]=-1",
    "created[since]=1",
    "object_id=",
    "types[a]=b",
    "types=",
    `${Array.from({ length: 21 }, () => "types[]=a").join("&")}`,
    "starting_after=evt_1",
    "colour=red",
  ])("C9.5 refuse %s", async (query) => {
    const { status, error } = await raw(`${PATH}?${query}`);
    expect(status).toBe(400);
    expect(error).toMatchObject({ code: "invalid_fields", message: expect.any(String) });
  });

  it("C9.6 need a key", async () => {
    for (const path of [PATH, `${PATH}/evt_test_1`]) expect((await raw(path, { key: null })).status).toBe(401);
  });
});
