// What an earlier version left behind is served by this one: a shard of the log, and the database of its events. Each
// layout has its files here, which never change; a new layout adds its own, and its rows to the table below.
import { applyD1Migrations, evictDurableObject, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, expect, it, vi } from "vitest";
import { consume } from "../../../src/aggregate/consumer.ts";
import { identifierOfKey, uniqueKey } from "../../../src/domain/identifiers.ts";
import { aMeter, resultOf } from "../../support/builders.ts";
import { readSummaries } from "../../support/summaries.ts";
import { aBatch, aContext, again, aNewEvent, FUTURE, storedIn } from "../support.ts";
import events0001 from "./events-0001.sql?raw";
import log1 from "./log-1.sql?raw";

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

const METER = "mtr_test_state";

const statementsOf = (sql: string): string[] => sql.split("\n").filter((line) => line !== "" && !line.startsWith("--"));

/** Empties test mode's database, fills it with what was left, and applies the migrations since. */
async function restoreDatabase(sql: string): Promise<void> {
  const db = env.TEST_EVENTS;
  const { results } = await db
    .prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT GLOB '_cf*' AND name NOT GLOB 'sqlite*'")
    .all<{ name: string }>();
  await db.batch(results.map(({ name }) => db.prepare(`DROP TABLE ${name}`)));
  await db.batch(statementsOf(sql).map((statement) => db.prepare(statement)));
  await applyD1Migrations(db, env.EVENTS_MIGRATIONS);
}

/** Gives a shard the tables and values that were left, and starts it again. */
async function restoreLog(sql: string) {
  const log = () => env.EVENT_LOG.getByName("test-0");
  const values = /^-- (\[\[.*)$/m.exec(sql)?.[1] ?? "[]";
  await runInDurableObject(log(), (_, { storage }) => {
    storage.sql.exec("DROP TABLE layout");
    for (const statement of statementsOf(sql)) storage.sql.exec(statement);
    for (const [name, value] of JSON.parse(values)) storage.kv.put(name, value);
  });
  await evictDurableObject(log());
  return log();
}

it.each([["the first", log1, events0001]])(
  "data of %s layout is served: what it knew, and what it had not sent",
  async (_, log, events) => {
    vi.useFakeTimers({ toFake: ["Date"], now: FUTURE + 60_000 });
    const sent: unknown[] = [];
    vi.spyOn(env.TEST_EVENT_QUEUE, "sendBatch").mockImplementation(async (batch) => {
      for (const { body } of batch) sent.push(body);
      return {} as QueueSendBatchResponse;
    });
    await restoreDatabase(events);
    const shard = await restoreLog(log);
    const context = aContext({ shards: [1] });

    // What was not confirmed is sent, and counts beside what was stored.
    await shard.nudge(context);
    await consume(aBatch(sent), env);
    expect(
      (await storedIn(env.TEST_EVENTS, METER)).map(({ identifier, value, cancelled_by }) => [
        identifier,
        value,
        cancelled_by,
      ]),
    ).toEqual([
      ["0f8fad5b-d9cb-469f-a165-70867728950e", 25, null],
      ["order-1", 25, 2],
      [identifierOfKey(false, "a key"), 25, null],
      ["order-2", 7, null],
    ]);
    const range = { start: 0, end: Date.UTC(2100, 0) };
    const query = {
      meter: { ...aMeter(), id: METER },
      customer: "cus_1",
      range,
      windowLength: range.end,
      limit: 1,
    } as const;
    expect(resultOf(await readSummaries(env, { ...query, order: "newest_first" }))).toMatchObject([{ value: 57n }]);

    // Identifiers, retries, claims and cancellations are remembered.
    const report = (identifier: string, changes = {}) =>
      aNewEvent({
        meter: METER,
        identifier,
        key: uniqueKey(false, identifier),
        reportDigest: "0123456789abcdef",
        ...changes,
      });
    const outcomes = await shard.append(
      [
        again(report("0f8fad5b-d9cb-469f-a165-70867728950e")),
        again(report("order-1", { keyDigest: "abcdefghijklmnop" })),
        again(report(identifierOfKey(false, "a key"), { claims: true })),
        {
          kind: "claim",
          key: uniqueKey(false, identifierOfKey(false, "claimed")),
          reportDigest: "another",
          claims: true,
        },
      ],
      context,
    );
    expect(outcomes).toMatchObject([
      { outcome: "duplicate", sameReport: true },
      { outcome: "accepted", id: "0sde0f6o003text--------", received: FUTURE, timestamp: FUTURE - 1_000 },
      { outcome: "accepted", id: "0sde0f6o005derived-----" },
      { outcome: "key_reused" },
    ]);
    const cancellation = {
      key: uniqueKey(false, "order-1"),
      meters: [METER],
      apiKey: 2,
      requestDigest: "1111111111111111",
    };
    expect(await shard.cancel({ ...cancellation, id: "another", keyDigest: "ponmlkjihgfedcba" }, context)).toEqual({
      outcome: "cancelled",
      id: "mtr_event_adj_1",
      at: FUTURE,
    });
    expect(await shard.retrieve(uniqueKey(false, "order-2"), context)).toMatchObject({
      event: { value: 7, payload: { model: "large" } },
      aggregated: true,
    });
  },
);
