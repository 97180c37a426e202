import { createExecutionContext, createMessageBatch, getQueueResult, waitOnExecutionContext } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, describe, expect, it, vi } from "vitest";
import worker from "../../../src/index.ts";
import { encodeMessage } from "../../../src/log/message.ts";
import { aLogEntry, unique } from "../../support/builders.ts";
import { aShare, eventLines } from "../../support/shares.ts";
import { answerOf, call, createdMeter, eventually, storedEvents } from "../support.ts";

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

const EVENTS = "/v2/billing/meter_events";

const anEvent = (meter: { event_name: string }, fields: Record<string, unknown> = {}) => ({
  event_name: meter.event_name,
  identifier: unique("api"),
  payload: { stripe_customer_id: "cus_1", value: "25" },
  ...fields,
});

/** The total of a customer over the last and the coming hours, as the API's own text. */
async function total(meter: string, customer = "cus_1"): Promise<string | undefined> {
  const minute = Math.floor(Date.now() / 60_000) * 60;
  const response = await call(
    `/v1/billing/meters/${meter}/event_summaries?customer=${customer}&start_time=${minute - 36_000}&end_time=${minute + 36_000}`,
  );
  return /"aggregated_value":([^,]+),/.exec(await response.text())?.[1];
}

describe("the queue consumer", () => {
  it("acknowledges every message, also unreadable ones and when D1 fails", async () => {
    const logged = vi.spyOn(console, "error").mockImplementation(() => {});
    vi.spyOn(env.TEST_EVENTS, "batch").mockRejectedValue(new Error("D1 is down"));
    const body = encodeMessage([aShare("test-0", "events", eventLines([aLogEntry()]))]);
    const batch = createMessageBatch("meter-events", [
      { id: "1", timestamp: new Date(), attempts: 1, body },
      { id: "2", timestamp: new Date(), attempts: 1, body: new TextEncoder().encode("nonsense") },
    ]);
    const execution = createExecutionContext();
    await worker.queue(batch, env);
    await waitOnExecutionContext(execution);
    const { outcome, retryMessages, ackAll } = await getQueueResult(batch, execution);
    expect({ outcome, retryMessages, ackAll }).toEqual({ outcome: "ok", retryMessages: [], ackAll: true });
    const lines = logged.mock.calls.map(([line]) => JSON.parse(String(line)));
    expect(lines.map(({ message }) => message)).toEqual([
      "a message was not read",
      "shares were not applied; their logs will send them again",
    ]);
    // What a message holds is its sender's, not the log's.
    expect(JSON.stringify(lines)).not.toContain("nonsense");
  });
});

describe("retries of an event", () => {
  it("are answered as before although the meter was archived or the timestamp grew too old meanwhile", async () => {
    const meter = await createdMeter();
    const old = new Date(Date.now() - 35 * 86_400_000 + 60_000).toISOString();
    const request = { body: anEvent(meter, { timestamp: old }), headers: { "idempotency-key": unique("key") } };
    const first = await answerOf(EVENTS, request);
    expect(first.status).toBe(200);
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 120_000 });
    const tooOld = await answerOf(EVENTS, request);
    expect({ status: tooOld.status, body: tooOld.body }).toEqual({ status: 200, body: first.body });
    await call(`/v1/billing/meters/${meter.id}/deactivate`, { method: "POST" });
    const archived = await answerOf(EVENTS, request);
    expect({ status: archived.status, body: archived.body }).toEqual({ status: 200, body: first.body });
    const fresh = await answerOf(EVENTS, { body: anEvent(meter) });
    expect(fresh.body).toMatchObject({ error: { code: "archived_meter" } });
  });
});

describe("retries after the event name went to another meter", () => {
  it("are still answered as before", async () => {
    const meter = await createdMeter();
    const request = { body: anEvent(meter), headers: { "idempotency-key": unique("key") } };
    const first = await answerOf(EVENTS, request);
    await call(`/v1/billing/meters/${meter.id}/deactivate`, { method: "POST" });
    await createdMeter({ event_name: meter.event_name, "value_settings[event_payload_key]": "other" });
    const again = await answerOf(EVENTS, request);
    expect({ status: again.status, body: again.body }).toEqual({ status: 200, body: first.body });
  });

  it("without a key are told that it counted, and another event with that identifier that it is refused", async () => {
    const meter = await createdMeter();
    const event = anEvent(meter);
    await call(EVENTS, { body: event });
    await call(`/v1/billing/meters/${meter.id}/deactivate`, { method: "POST" });
    expect((await answerOf(EVENTS, { body: event })).body).toMatchObject({ error: { code: "duplicate_meter_event" } });
    const other = { ...event, payload: { ...event.payload, value: "1" } };
    expect((await answerOf(EVENTS, { body: other })).body).toMatchObject({ error: { code: "archived_meter" } });
  });
});

describe("a customer whose name looks like a prototype", () => {
  it("can be billed and read", async () => {
    const meter = await createdMeter();
    await call(EVENTS, { body: anEvent(meter, { payload: { stripe_customer_id: "a__proto__b", value: "3" } }) });
    await eventually(async () => expect(await total(meter.id, "a__proto__b")).toBe("3"));
  });
});

describe("when D1 fails", () => {
  it("a warm isolate still takes events, and a cold name is a 503 to be retried, never no_meter", async () => {
    const meter = await createdMeter();
    await call(EVENTS, { body: anEvent(meter) });
    vi.spyOn(env.DB, "prepare").mockImplementation(() => {
      throw new Error("D1_ERROR: overloaded");
    });
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 60_000 });
    expect((await call(EVENTS, { body: anEvent(meter) })).status).toBe(200);
    const unknown = await answerOf(EVENTS, { body: anEvent({ event_name: "never_seen" }) });
    expect(unknown.status).toBe(503);
    expect(unknown.headers.get("stripe-should-retry")).toBe("true");
    expect(unknown.body).toMatchObject({ error: { code: "service_unavailable" } });
    const stranger = await answerOf(EVENTS, { body: anEvent(meter), key: "sk_test_never_seen_before" });
    expect(stranger.status).toBe(503);
  });
});

describe("limits of the deployment", () => {
  it("turn a full log into a 503 to be retried", async () => {
    const meter = await createdMeter();
    vi.spyOn(env.CUSTOMER_METER, "getByName").mockReturnValue({ record: async () => ({ outcome: "full" }) } as never);
    const { status, body, headers } = await answerOf(EVENTS, { body: anEvent(meter) });
    expect({ status, body }).toMatchObject({ status: 503, body: { error: { code: "log_full" } } });
    expect(headers.get("stripe-should-retry")).toBe("true");
  });
});

describe("deactivating a meter", () => {
  it("holds at once in the isolate that did it, also for events under way meanwhile", async () => {
    const meter = await createdMeter();
    const batch = env.DB.batch.bind(env.DB);
    vi.spyOn(env.DB, "batch").mockImplementationOnce(async (statements) => {
      // An event between the look at the meter and the commit.
      await call(EVENTS, { body: anEvent(meter) });
      return batch(statements) as never;
    });
    await call(`/v1/billing/meters/${meter.id}/deactivate`, { method: "POST" });
    expect((await answerOf(EVENTS, { body: anEvent(meter) })).body).toMatchObject({
      error: { code: "archived_meter" },
    });
  });

  it("lets another one under its name count the next event, and leaves each event with the meter it was admitted to", async () => {
    const old = await createdMeter();
    expect((await call(EVENTS, { body: anEvent(old) })).status).toBe(200);
    await call(`/v1/billing/meters/${old.id}/deactivate`, { method: "POST" });
    const next = await createdMeter({ event_name: old.event_name });
    expect((await call(EVENTS, { body: anEvent(next) })).status).toBe(200);
    await eventually(async () => expect([await storedEvents(old.id), await storedEvents(next.id)]).toEqual([1, 1]));
  });
});

describe("creating a meter", () => {
  const form = (eventName: string) => `display_name=T&event_name=${eventName}&default_aggregation[formula]=sum`;

  it("happens once for an Idempotency-Key, also when its calls race", async () => {
    const name = unique("raced");
    const headers = { "idempotency-key": unique("key") };
    const answers = await Promise.all(
      Array.from({ length: 5 }, () => answerOf("/v1/billing/meters", { form: form(name), headers })),
    );
    expect(answers.map(({ status }) => status)).toEqual(Array(5).fill(200));
    expect(new Set(answers.map(({ body }) => body.id)).size).toBe(1);
  });

  it("happens once for an event name, also when its calls race under different keys", async () => {
    const name = unique("raced");
    const answers = await Promise.all(
      Array.from({ length: 5 }, () =>
        answerOf("/v1/billing/meters", { form: form(name), headers: { "idempotency-key": unique("key") } }),
      ),
    );
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
    expect(answers.filter(({ status }) => status === 400)).toHaveLength(4);
  });

  it("forgets an Idempotency-Key after 24 hours, and deletes it then", async () => {
    // Later than all that other tests have the logs receive: a log's time of receipt never goes back.
    const start = Date.UTC(2060, 0);
    vi.useFakeTimers({ toFake: ["Date"], now: start });
    const headers = { "idempotency-key": unique("key") };
    await call("/v1/billing/meters", { form: form(unique("kept")), headers });
    expect((await call("/v1/billing/meters", { form: form(unique("other")), headers })).status).toBe(400);
    vi.setSystemTime(start + 24 * 3_600_000);
    expect((await call("/v1/billing/meters", { form: form(unique("other")), headers })).status).toBe(200);
    vi.setSystemTime(start + 48 * 3_600_000);
    await worker.scheduled({} as ScheduledController, env);
    const left = env.DB.prepare("SELECT COUNT(*) AS n FROM idempotency_keys WHERE key = ?").bind(
      headers["idempotency-key"],
    );
    expect(await left.first("n")).toBe(0);
  });
});
