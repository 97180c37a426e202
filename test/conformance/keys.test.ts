import Stripe from "stripe";
import { beforeAll, describe, expect, inject, it, vi } from "vitest";
import { type KeysRun, runKeys } from "../support/node/keys-tool.ts";
import { npmRun } from "../support/node/npm-run.ts";
import { createMeter, raw, refusal, stripe, stripeClient, unique } from "./client.ts";

const keys = (...args: string[]): Promise<KeysRun> => runKeys(inject("stateDir"), args);

describe("C5 keys made while the server runs", () => {
  let full: KeysRun;
  let ingest: KeysRun;
  let read: KeysRun;
  let operate: KeysRun;

  beforeAll(async () => {
    [full, ingest, read, operate] = await Promise.all([
      keys("create", "--name", "full"),
      keys("create", "--name", "ingest", "--permission", "ingest"),
      keys("create", "--name", "read", "--permission", "read"),
      keys("create", "--name", "operate", "--permission", "operate"),
    ]);
  });

  /** An event of its own on a meter. */
  const anEvent = ({ event_name }: Stripe.Billing.Meter) => ({
    event_name,
    identifier: unique("keys"),
    payload: { stripe_customer_id: unique("cus"), value: "1" },
  });

  it("C5.4 work at once, and differ", async () => {
    expect(new Set([full.secret, ingest.secret, read.secret]).size).toBe(3);
    const meter = await createMeter({}, stripeClient(full.secret));
    expect(await stripe.billing.meters.retrieve(meter.id)).toMatchObject({ id: meter.id, livemode: false });
  });

  it("C5.5 with the permission to ingest report, cancel and stream, and may not read or change meters", async () => {
    const meter = await createMeter();
    const client = stripeClient(ingest.secret);
    const event = await client.v2.billing.meterEvents.create(anEvent(meter));
    const cancel = { event_name: meter.event_name, type: "cancel", cancel: { identifier: event.identifier } } as const;
    expect(await client.v2.billing.meterEventAdjustments.create(cancel)).toMatchObject({ status: "pending" });
    const session = await client.v2.billing.meterEventSession.create();
    const streaming = stripeClient(session.authentication_token);
    await streaming.v2.billing.meterEventStream.create({ events: [anEvent(meter)] });
    for (const call of [() => client.billing.meters.list(), () => createMeter({}, client)]) {
      const error = await refusal(call());
      expect(error).toBeInstanceOf(Stripe.errors.StripePermissionError);
      expect(error.message).not.toContain(ingest.secret);
    }
  });

  it("C5.6 with the permission to read may list and retrieve, and report nothing in v1 or v2", async () => {
    const meter = await createMeter();
    const client = stripeClient(read.secret);
    expect(await client.billing.meters.retrieve(meter.id)).toMatchObject({ id: meter.id });
    const event = anEvent(meter);
    for (const call of [
      () => client.v2.billing.meterEvents.create(event),
      () => client.billing.meterEvents.create(event),
      () => client.v2.billing.meterEventSession.create(),
      () => client.billing.meters.deactivate(meter.id),
    ]) {
      expect(await refusal(call())).toBeInstanceOf(Stripe.errors.StripePermissionError);
    }
    expect(await stripe.billing.meters.retrieve(meter.id)).toMatchObject({ status: "active" });
  });

  it("C5.8 operate a deployment only when they were made for it, and are told which permission they lack", async () => {
    const audit = (key: string) => raw("/v1/edgemeter/audit", { key, form: "" });
    for (const { secret } of [full, read]) {
      const { status, error } = await audit(secret);
      expect(status).toBe(403);
      expect(error.message).toContain("needs the permission 'operate'");
    }
    // Of both modes, so that a test key is told of what it lacks next.
    expect((await audit(operate.secret)).error.message).toMatch(/live key/);
    expect((await raw("/v1/edgemeter/pipeline", { key: operate.secret })).status).toBe(200);
    expect((await raw("/v1/billing/meters", { key: operate.secret, form: "display_name=T" })).status).toBe(403);
    const redriven = await npmRun("redrive", ["--url", inject("url"), "--key", operate.secret]);
    expect(redriven).toMatchObject({ code: 0, stdout: "0 test dead letters: 0 stored, 0 left\n" });
    const refused = await npmRun("redrive", ["--url", inject("url"), "--key", full.secret, "--id", "dl_1"]);
    expect(refused).toMatchObject({ code: 2, stdout: "" });
    expect(refused.stderr).toMatch(/^redrive: .*needs the permission 'operate'.*\n$/);
  });

  it("C5.7 stop working within ten seconds of being revoked, and so do their sessions; others go on", async () => {
    const client = stripeClient(ingest.secret);
    const meter = await createMeter();
    const session = await client.v2.billing.meterEventSession.create();
    const streaming = stripeClient(session.authentication_token);
    await streaming.v2.billing.meterEventStream.create({ events: [anEvent(meter)] });

    expect(await keys("revoke", ingest.id)).toMatchObject({ code: 0 });
    const stopped = async (): Promise<void> => {
      for (const call of [
        () => client.v2.billing.meterEvents.create(anEvent(meter)),
        () => streaming.v2.billing.meterEventStream.create({ events: [anEvent(meter)] }),
      ]) {
        expect(await refusal(call())).toBeInstanceOf(Stripe.errors.StripeAuthenticationError);
      }
    };
    // That it takes ten seconds at most is shown on a clock of its own (unit/positive-cache.test.ts).
    await vi.waitFor(stopped, { timeout: 60_000, interval: 250 });
    await stripeClient(full.secret).v2.billing.meterEvents.create(anEvent(meter));
  });
});
