// What only edgemeter has: how its operator sees, audits and mends it. Through the commands of the README.

import { describe, expect, inject, it, vi } from "vitest";
import { withLocalDatabases } from "../../scripts/local.ts";
import { LOCAL_KEYS } from "../../scripts/local-keys.ts";
import { sliceOf } from "../../src/domain/window.ts";
import { writeEvent } from "../../src/log/codec.ts";
import { aLogEntry } from "../support/builders.ts";
import { type NpmRun, npmRun } from "../support/node/npm-run.ts";
import { createMeter, raw, stripe, unique, WAIT } from "./client.ts";

const operate = (command: string, ...args: string[]): Promise<NpmRun> =>
  npmRun(command, ["--url", inject("url"), ...args]);

/** Runs SQL on test mode's events database of the server. */
const sql = (text: string) => withLocalDatabases(inject("stateDir"), ({ run }) => run("TEST_EVENTS")(text));

/** The series of a meter, in SQL. */
const seriesOf = (meter: { id: string }): string => `series IN (SELECT id FROM series WHERE meter = '${meter.id}')`;

/** A meter with one event of 25, which its summary shows; and what it shows. */
async function aCountedEvent() {
  const meter = await createMeter();
  const customer = unique("cus");
  await stripe.v2.billing.meterEvents.create({
    event_name: meter.event_name,
    payload: { stripe_customer_id: customer, value: "25" },
  });
  // Whole hours, so that it is the rows of sums that answer.
  const end = (Math.floor(Date.now() / 3_600_000) + 2) * 3_600;
  const total = async (): Promise<number | undefined> =>
    (
      await stripe.billing.meters.listEventSummaries(
        meter.id,
        { customer, start_time: end - 10_800, end_time: end },
        WAIT,
      )
    ).data[0]?.aggregated_value;
  expect(await total()).toBe(25);
  return { meter, customer, total };
}

describe("E1 an operator", () => {
  it("E1.1 learns from GET /health that the Worker answers, without a key", async () => {
    const answer = await raw("/health", { key: null });
    expect(answer.status).toBe(200);
    expect(JSON.parse(answer.text)).toEqual({ status: "ok" });
  });

  it("E1.2 sees how far events have come", async () => {
    await aCountedEvent();
    const pipeline = JSON.parse((await raw("/v1/edgemeter/pipeline")).text);
    expect(pipeline).toMatchObject({ object: "edgemeter.pipeline", entries_waiting: expect.any(Number) });
    const sized = { reachable: true, storage_bytes: expect.any(Number), groups_resent: expect.any(Number) };
    expect(pipeline.shards).toMatchObject([{ shard: "test-0", ...sized }]);
    const filled = { reachable: true, bytes: expect.any(Number), live_slices: expect.any(Number) };
    expect(pipeline.databases).toMatchObject([{ database: "TEST_EVENTS", ...filled }]);
    const open = { kept_open_by: "not_over", shard: null };
    const archive = { status: "not_archived", files: 0, bytes: 0, failed_checks: [], oldest_open: open };
    expect(pipeline.databases).toMatchObject([{ archive }]);
    expect(Math.abs(pipeline.aggregator.last_success - Date.now() / 1_000)).toBeLessThan(300);
  });

  it("E1.3 audits: a summary that is wrong is found, repaired and reported", async () => {
    const { meter, total } = await aCountedEvent();
    await sql(`UPDATE sums SET sum_low = 7 WHERE ${seriesOf(meter)}`);
    expect(await total()).toBe(7);
    const found = await operate("audit");
    expect(found.stdout).toMatch(/: 1 differed, repaired/);
    expect(found.code).toBe(1);
    expect(await total()).toBe(25);
    const again = await operate("audit");
    expect(again.stdout).toMatch(/no difference/);
    expect(again.code).toBe(0);
  });

  it("E1.4 redrives a dead letter, which then counts once", async () => {
    const { meter, customer, total } = await aCountedEvent();
    const now = Date.now();
    const entry = writeEvent(aLogEntry({ meter: meter.id, customer, value: 17, timestamp: now, received: now }));
    const id = "dl_1_test-0_0_0";
    await sql(
      `INSERT INTO dead_letters VALUES ('${id}', 'events', ${sliceOf(now)}, '${entry}', 'for a test', ${now}, NULL, NULL)`,
    );
    const letters = JSON.parse((await raw("/v1/edgemeter/dead_letters")).text);
    expect(letters.data).toMatchObject([{ id, object: "edgemeter.dead_letter", reason: "for a test", entry }]);
    const redriven = await operate("redrive", "--key", LOCAL_KEYS.test);
    expect(redriven).toMatchObject({ code: 0, stdout: "1 test dead letters: 1 stored, 0 left\n" });
    expect(await total()).toBe(42);
    const none = { code: 0, stdout: "0 test dead letters: 0 stored, 0 left\n" };
    expect(await operate("redrive", "--key", LOCAL_KEYS.test)).toMatchObject(none);
    expect(await operate("redrive", "--key", LOCAL_KEYS.test, "--id", "dl_2_test-0_0_0")).toMatchObject({ code: 1 });
  });

  it("E1.5 has the logs send again what a restored D1 has lost", async () => {
    const { meter, total } = await aCountedEvent();
    const [slices = []] = await sql("SELECT slice FROM slices");
    const tables = [...slices.map(({ slice }) => `events_${slice}`), "sums"];
    await sql(tables.map((table) => `DELETE FROM ${table} WHERE ${seriesOf(meter)};`).join("\n"));
    expect(await total()).toBeUndefined();
    const resent = await operate("resend");
    expect(resent.stdout).toMatch(/[1-9]\d* groups received since .* are on their way again/);
    expect(resent.code).toBe(0);
    // Nothing of it is confirmed any more until it is back.
    expect(await total()).toBe(25);
  });

  it("E1.6 is told in one line why a command was refused", async () => {
    const refused = await operate("audit", "--key", LOCAL_KEYS.test);
    expect(refused).toMatchObject({ code: 2, stdout: "" });
    expect(refused.stderr).toMatch(/^audit: .*live key.*\n$/);
    const mistyped = await operate("resend", "--since", "yesterday");
    expect(mistyped).toMatchObject({ code: 2, stdout: "" });
    expect(mistyped.stderr).toMatch(/^resend: .*must be a time like/);
  });

  it("E1.7 sees of an event that D1 refuses that it is parked, and why, until it is redriven", async () => {
    const meter = await createMeter();
    const identifier = unique("refused");
    const reason = "CHECK constraint failed: for a test";
    await sql(
      `CREATE TRIGGER refuse BEFORE INSERT ON series WHEN NEW.meter = '${meter.id}' BEGIN SELECT RAISE(ABORT, '${reason}'); END`,
    );
    const payload = { stripe_customer_id: "cus_1", value: "25" };
    await stripe.v2.billing.meterEvents.create({ event_name: meter.event_name, identifier, payload });
    const read = async () => JSON.parse((await raw(`/v1/billing/meter_events/${identifier}`)).text);
    await vi.waitFor(async () => expect((await read()).parked).not.toBeNull(), { timeout: 20_000, interval: 100 });
    const { aggregated, parked } = await read();
    expect({ aggregated, reason: parked.reason }).toEqual({
      aggregated: false,
      reason: expect.stringContaining(reason),
    });
    await sql("DROP TRIGGER refuse");
    const redriven = await operate("redrive", "--key", LOCAL_KEYS.test, "--id", parked.dead_letter);
    expect(redriven.stdout).toBe("1 test dead letters: 1 stored, 0 left\n");
    expect(await read()).toMatchObject({ aggregated: true, parked: null });
  });
});
