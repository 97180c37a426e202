// One of four databases takes nothing for three days, while the logs are evicted and die: the others' sums stay fresh,
// the pipeline says which one it is and since when, and nothing is lost or doubled once it is back.
import { env } from "cloudflare:workers";
import { afterEach, beforeAll, expect, it, vi } from "vitest";
import { LOCAL_KEYS } from "../../../scripts/local-keys.ts";
import { eventsDatabase } from "../../../src/catalog/databases.ts";
import { DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS } from "../../../src/domain/window.ts";
import { settingsOf } from "../../../src/env.ts";
import { decodeMessage } from "../../../src/log/message.ts";
import { maintain } from "../../../src/scheduled.ts";
import { D1, HostileD1 } from "../hostile-d1.ts";
import { answerOf, FUTURE, growTo, recordPlacement } from "../support.ts";
import { end } from "./faults.ts";
import { aPlainClient, Story } from "./story.ts";

const STEP_MS = 6 * HOUR_MS;
const STEPS = (3 * DAY_MS) / STEP_MS;
const DEAD = 2;

beforeAll(() => growTo(4, 0));
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

/** Past the high water that wrangler.toml has. */
const TOO_MANY_BYTES = 8_500_000_000;

/** What a database answers, as if it had no room. */
const isFull: HostileD1["fate"] = async (call) => {
  const answer = await call();
  for (const each of [answer].flat() as Partial<D1Result>[]) {
    if (each?.meta !== undefined) each.meta.size_after = TOO_MANY_BYTES;
  }
  return answer;
};

async function databasesOfPipeline(): Promise<Record<string, unknown>[]> {
  const { body } = await answerOf("/v1/edgemeter/pipeline", { key: LOCAL_KEYS.live });
  return (body.databases as Record<string, unknown>[]).slice(0, 4);
}

const FINE = { reachable: true, oldest_wait_seconds: null };

it.each([
  // A database that is full has said so with the first share, which it stored.
  { name: "away", fate: D1.isAway, waits: STEPS, says: { reachable: false, bytes: null }, reads: 503 },
  { name: "unheard", fate: D1.losesItsAnswer, waits: STEPS, says: { reachable: false, bytes: null }, reads: 503 },
  { name: "full", fate: isFull, waits: STEPS - 1, says: { reachable: true, bytes: TOO_MANY_BYTES }, reads: 200 },
])("a database that is $name for three days delays its own events alone", async ({ fate, waits, says, reads }) => {
  const story = await Story.begin();
  const customers = [0, 1, 2, 3].map((database) => story.customerIn(database));
  const others = customers.toSpliced(DEAD, 1);
  const sent = new Map<string, number>();
  const d1 = new HostileD1([eventsDatabase(env, true, DEAD)]);
  d1.fate = fate;
  for (let step = 1; step <= STEPS; step++) {
    const shard = step % settingsOf(env).EVENT_LOG_SHARDS;
    expect(await story.reportTogether(customers, shard)).toMatchObject({ status: 200 });
    story.pass(MINUTE_MS);
    await story.ringDue();
    await maintain(env, Date.now());
    for (const { group, database } of story.queue.flatMap(decodeMessage)) {
      if (database !== DEAD) sent.set(`${group}:${database}`, (sent.get(`${group}:${database}`) ?? 0) + 1);
    }
    await story.deliver();
    for (const customer of others) expect(await story.counted(customer)).toBe(step);
    if (step % 3 > 0) await end(story.logOfShard(shard), step % 3 === 1 ? "eviction" : "abort");
    story.pass(STEP_MS - MINUTE_MS);
  }
  // A share that was confirmed is sent again at most once, by a log that had not written it down yet.
  expect(Math.max(...sent.values())).toBeLessThanOrEqual(2);
  const seconds = (waits * STEP_MS) / SECOND_MS;
  const pipeline = await databasesOfPipeline();
  expect(pipeline[DEAD]).toMatchObject({ database: "EVENTS_2", ...says, oldest_wait_seconds: seconds });
  expect(pipeline.toSpliced(DEAD, 1)).toMatchObject(others.map(() => FINE));
  expect(await story.read(customers[DEAD])).toMatchObject({ status: reads });
  d1.fate = D1.works;
  await story.comesTo(STEPS, ...customers);
  expect(await databasesOfPipeline()).toMatchObject(customers.map(() => FINE));
});

it("while fewer databases are bound than recorded, nothing is taken, changed or summed up", async () => {
  const story = await Story.begin();
  const [client, other] = [aPlainClient(), aPlainClient()];
  expect(await story.report(client)).toMatchObject({ status: 200 });
  await story.rest();
  // Later than anything that this isolate remembers.
  story.pass(5 * DAY_MS);
  await recordPlacement([{ databases: 5, since: 0 }]);
  const report = (customer = "cus_1", from = other) => story.report(from, customer, new Date(FUTURE).toISOString());
  const refused = { status: 503, body: { error: { code: "databases_changed" } } };
  expect(await report()).toMatchObject(refused);
  expect(await story.reportTogether(["cus_1"])).toMatchObject(refused);
  expect(await story.cancel(client)).toMatchObject(refused);
  expect(await story.read()).toMatchObject({ status: 503 });
  // Who has nothing in the databases that are bound may have something in another one.
  const unknown = "/v1/billing/analytics/meter_usage?customer=cus_none&starts_at=0&ends_at=60";
  expect(await answerOf(unknown, { key: LOCAL_KEYS.live })).toMatchObject({ status: 503 });
  expect([await story.knows(other), await story.ring()]).toEqual([false, false]);
  await growTo(4, 0);
  story.pass();
  expect(await report()).toMatchObject({ status: 200 });
  await story.comesTo(2);
  // No log has heard of the fifth database: it takes none of these.
  const many = Array.from({ length: 30 }, (_, i) => `cus_many_${i}`);
  for (const customer of many) expect(await report(customer, aPlainClient())).toMatchObject({ status: 200 });
  await story.comesTo(1, ...many);
});
