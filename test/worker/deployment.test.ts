import { env } from "cloudflare:workers";
import { expect, it } from "vitest";
import { answerOf, createdMeter } from "./support.ts";

// A file of its own: what an isolate has once agreed on, it does not ask again.
it("a deployment with another number of shards than its data takes no events, and says so", async () => {
  await env.DB.prepare("INSERT INTO deployment (name, value) VALUES ('event_log_shards', '3')").run();
  const meter = await createdMeter();
  const event = { event_name: meter.event_name, payload: { stripe_customer_id: "cus_1", value: "1" } };
  const refused = await answerOf("/v2/billing/meter_events", { body: event });
  expect(refused).toMatchObject({ status: 503, body: { error: { code: "shards_changed" } } });
  expect(JSON.stringify(refused.body)).toMatch(/EVENT_LOG_SHARDS = 4, .* started with 3/);

  await env.DB.prepare("UPDATE deployment SET value = '4'").run();
  expect((await answerOf("/v2/billing/meter_events", { body: event })).status).toBe(200);
});
