// Live mode grows from one events database to two, between the events of one customer.
import { env } from "cloudflare:workers";
import { afterEach, expect, it, vi } from "vitest";
import { LOCAL_KEYS } from "../../../scripts/local-keys.ts";
import { FRESH_MS } from "../../../src/catalog/positive-cache.ts";
import { databaseOf } from "../../../src/domain/placement.ts";
import { DAY_MS, floorTo } from "../../../src/domain/window.ts";
import { unique } from "../../support/builders.ts";
import { answerOf, aToken, createdMeter, eventually, growTo, storedIn } from "../support.ts";

afterEach(() => void vi.useRealTimers());

it("new events go to the database that the customer has now, cancellations to where the event is, and sums have both", async () => {
  const key = LOCAL_KEYS.live;
  const meter = await createdMeter({}, key);
  const [stays, moves] = [0, 1].map((database) => {
    for (;;) {
      const customer = unique("cus");
      if (databaseOf(meter.id, customer, 2) === database) return customer;
    }
  });
  const anEvent = (customer: string | undefined, value: number) => ({
    event_name: meter.event_name,
    identifier: unique("growing"),
    payload: { stripe_customer_id: customer, value: String(value) },
  });
  const single = async (body: object) =>
    expect(await answerOf("/v2/billing/meter_events", { key, body })).toMatchObject({ status: 200 });
  /** Values of the events in a database, without those that are cancelled. */
  const countedIn = async (db: D1Database) =>
    (await storedIn(db, meter.id)).map(({ value, cancelled }) => (cancelled === null ? value : null)).sort();
  const cancelled = anEvent(moves, 1);
  for (const event of [cancelled, anEvent(moves, 2), anEvent(stays, 4)]) await single(event);
  await growTo(2);
  // What this isolate knows of the history is fresh for so long.
  vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + FRESH_MS });
  await single(anEvent(moves, 8));
  const body = { events: [anEvent(moves, 16), anEvent(stays, 32)] };
  expect(await answerOf("/v2/billing/meter_event_stream", { key: await aToken(key), body })).toMatchObject({
    status: 200,
  });
  const adjustment = { event_name: meter.event_name, type: "cancel", cancel: { identifier: cancelled.identifier } };
  const adjusted = await answerOf("/v2/billing/meter_event_adjustments", { key, body: adjustment });
  expect(adjusted).toMatchObject({ status: 200 });
  vi.useRealTimers();
  await eventually(async () => {
    expect(await countedIn(env.EVENTS_0)).toEqual([2, 32, 4, null]);
    expect(await countedIn(env.EVENTS_1)).toEqual([16, 8]);
  });
  const start = floorTo(Date.now(), DAY_MS) / 1_000 - 86_400;
  for (const [customer, sum] of [
    [stays, 36],
    [moves, 26],
  ]) {
    const query = `customer=${customer}&start_time=${start}&end_time=${start + 3 * 86_400}`;
    const summaries = await answerOf(`/v1/billing/meters/${meter.id}/event_summaries?${query}`, { key });
    expect(summaries.body.data).toMatchObject([{ aggregated_value: sum }]);
  }
});
