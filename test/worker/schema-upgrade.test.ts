// The Worker of today on the database of the version before, brought forward with its rows in place, while
// the code of before is still running.
import { env } from "cloudflare:workers";
import { beforeAll, expect, it } from "vitest";
import { READ_OBJECTS, type StoredObject, toObjects } from "../../scripts/schema/objects.ts";
import { type Step, stepsTo } from "../../scripts/schema/steps.ts";
import { hashOf } from "../../src/storage/key-hash.ts";
import schemaBefore from "../deploy/schema-before.sql?raw";
import * as before from "./statements-before.ts";
import { answerOf, eventually, storedEvents } from "./support.ts";

const METER = "mtr_test_before";
const KEY = "sk_test_from_the_version_before";
const HOUR_MS = 3_600_000;
const NOW = Date.now();

const run = (sqls: readonly string[]): Promise<unknown> => env.DB.batch(sqls.map((sql) => env.DB.prepare(sql)));

const objects = async (): Promise<StoredObject[]> => toObjects((await env.DB.prepare(READ_OBJECTS).all()).results);

/** An event as the aggregator of before was given it. */
const anOldEvent = (id: string, value: number): string =>
  JSON.stringify([
    {
      meter: METER,
      customer: "cus_1",
      timestamp: NOW,
      id,
      identifier: id,
      value,
      received: NOW,
      aggregation: "additive",
    },
  ]);

/** What the aggregator of before does with events. */
const aggregateAsBefore = (events: string): Promise<unknown> =>
  env.DB.batch([before.ADD_TO_HOURLY_SUMMARIES, before.INSERT_EVENTS].map((sql) => env.DB.prepare(sql).bind(events)));

const insertKey = (secret: string, id: string): Promise<unknown> =>
  env.DB.prepare(before.INSERT_KEY).bind(hashOf(secret), id, 0).run();

const insertMeter = (id: string, eventName: string): Promise<unknown> =>
  env.DB.prepare(before.INSERT_METER)
    .bind(id, 0, eventName, "Tokens", "sum", null, "stripe_customer_id", "value", "active", NOW, NOW, null)
    .run();

/** What a customer used, as the Worker of today says. */
async function used(): Promise<unknown> {
  const start = Math.floor((NOW - HOUR_MS) / 60_000) * 60;
  const query = new URLSearchParams({ customer: "cus_1", start_time: String(start), end_time: String(start + 10_800) });
  const { body } = await answerOf(`/v1/billing/meters/${METER}/event_summaries?${query}`, { key: KEY });
  return (body as { data?: { aggregated_value: number }[] }).data?.[0]?.aggregated_value;
}

let desired: StoredObject[];
let steps: Step[];
beforeAll(async () => {
  // What the set-up has made of schema.sql; nothing here reads SQL as well as SQLite.
  desired = await objects();
  await run(desired.filter(({ type }) => type === "table").map(({ name }) => `DROP TABLE ${name}`));
  await run(
    schemaBefore
      .replaceAll(/--.*$/gm, "")
      .split(";")
      .filter((statement) => statement.trim() !== ""),
  );
  await insertKey(KEY, "key_before");
  await insertMeter(METER, "tokens_before");
  await aggregateAsBefore(anOldEvent("mev_old_1", 25));
  steps = stepsTo(desired, await objects());
  await run(steps.map(({ sql }) => sql));
});

it("a database of before is brought forward once", async () => {
  expect(steps.map(({ makes }) => makes)).toContain("column api_keys.permission");
  expect(stepsTo(desired, await objects())).toEqual([]);
});

it("the Worker of today knows its keys, meters and events, and adds to its summaries", async () => {
  expect(await used()).toBe(25);
  const event = { event_name: "tokens_before", payload: { stripe_customer_id: "cus_1", value: "17" } };
  expect(await answerOf("/v2/billing/meter_events", { key: KEY, body: event })).toMatchObject({ status: 200 });
  await eventually(async () => expect(await used()).toBe(42));
  expect(await storedEvents(METER)).toBe(2);
  const pipeline = await answerOf("/v1/edgemeter/pipeline", { key: KEY });
  expect(pipeline.body).toMatchObject({ dead_letters: { live: 0, test: 0 }, audits: [] });
});

it("the code of before goes on reading and writing, and the Worker of today counts that too", async () => {
  const usedBefore = Number(await used());
  await aggregateAsBefore(anOldEvent("mev_old_2", 100));
  await aggregateAsBefore(anOldEvent("mev_old_2", 100));
  await eventually(async () => expect(await used()).toBe(usedBefore + 100));

  const secret = "sk_test_made_by_the_version_before";
  await insertKey(secret, "key_made_meanwhile");
  const keys = await env.DB.prepare(before.VALID_KEYS)
    .bind(JSON.stringify([hashOf(secret)]))
    .all();
  expect(keys.results).toEqual([{ hash: hashOf(secret), id: "key_made_meanwhile", livemode: 0 }]);
  expect(await answerOf("/v1/billing/meters", { key: secret })).toMatchObject({ status: 200 });

  await insertMeter("mtr_test_meanwhile", "tokens_meanwhile");
  const meters = await env.DB.prepare(before.ACTIVE_METERS).bind('[[0, "tokens_meanwhile"]]').all();
  expect(meters.results).toMatchObject([{ id: "mtr_test_meanwhile", created: NOW, deactivated_at: null }]);
  await expect(insertMeter("mtr_test_another", "tokens_meanwhile")).rejects.toThrow("UNIQUE");
});
