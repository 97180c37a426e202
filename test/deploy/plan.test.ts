// Why a Worker is uploaded, what is refused first, and what is left as it is: on accounts as they are described.
import path from "node:path";
import { expect, test } from "vitest";
import { fingerprintOf } from "../../scripts/deploy/fingerprint.ts";
import { describePlan, planOf, type State } from "../../scripts/deploy/plan.ts";
import { regionOf } from "../../scripts/deploy/region.ts";
import type { Target } from "../../scripts/deploy/target.ts";
import { root } from "../../scripts/wrangler.ts";

const SETTINGS = { batch_size: 100, max_concurrency: 1 };

const TARGET: Target = {
  ...{ file: "wrangler.toml", env: "", account: undefined, worker: "edgemeter" },
  ...{
    locationHint: "",
    jurisdiction: "",
    bucket: { name: "edgemeter-archive", jurisdiction: "" },
    sizes: { databases: 1, event_log_shards: 4, test_event_log_shards: 1 },
    isPublic: true,
    domains: [],
    crons: ["* * * * *"],
  },
  fingerprint: "f",
  databases: [
    { binding: "DB", name: "edgemeter" },
    { binding: "EVENTS_0", name: "edgemeter-events-0" },
  ],
  queues: ["edgemeter-events"],
  consumers: [{ queue: "edgemeter-events", settings: { ...SETTINGS, max_wait_time_ms: 0, max_retries: 0 } }],
};

const DATABASE = { uuid: "d1", name: "edgemeter", running_in_region: "WEUR", read_replication: { mode: "auto" } };
const EVENTS = { ...DATABASE, uuid: "d2", name: "edgemeter-events-0" };
const BOUND = new Map([
  ["DB", "d1"],
  ["EVENTS_0", "d2"],
]);
const VARS = { LOCATION_HINT: "weur", DEPLOYED_VERSION: "f" };
const RECORDED = {
  event_log_shards: "[[2,0],[4,1000]]",
  test_event_log_shards: "[[1,0]]",
  databases: "[[1,0]]",
  jurisdiction: "",
  self_test: "f",
};

const databases = (control: Partial<typeof DATABASE & { jurisdiction: string }> = {}): State["databases"] =>
  new Map(Object.entries({ DB: { ...DATABASE, ...control }, EVENTS_0: EVENTS }));

/** An account that is as it should be, with a change. */
const account = (change: Partial<State> = {}): State => ({
  ...{ databases: databases(), applied: new Map(), domains: new Map(), recorded: new Map(Object.entries(RECORDED)) },
  hasBucket: true,
  worker: {
    ...{ fingerprint: "f", secrets: ["SESSION_SECRET"], crons: ["* * * * *"], isPublic: true },
    ...{ databases: BOUND, bucket: TARGET.bucket, vars: new Map(Object.entries(VARS)) },
  },
  queues: [consumed({ script: "edgemeter" })],
  ...change,
});

type Queue = State["queues"][number];

const consumed = (...consumers: Partial<Queue["consumers"][number]>[]): Queue => ({
  ...{ queue_id: "q", queue_name: "edgemeter-events" },
  consumers: consumers.map((consumer) => ({ consumer_id: "c", settings: SETTINGS, ...consumer })),
});

const queue = (consumer: Parameters<typeof consumed>[0]): State => account({ queues: [consumed(consumer)] });

const worker = (change: Partial<NonNullable<State["worker"]>>, more: Partial<State> = {}): State => {
  const { worker: usual, ...others } = account(more);
  return { ...others, worker: usual && { ...usual, ...change } };
};

const vars = (change: Partial<typeof VARS>): State => worker({ vars: new Map(Object.entries({ ...VARS, ...change })) });

const recorded = (change: Readonly<Record<string, string>>): State =>
  account({ recorded: new Map(Object.entries({ ...RECORDED, ...change })) });

const bucketOf = (name: string, jurisdiction = ""): Pick<Target, "bucket"> => ({ bucket: { name, jurisdiction } });

const sized = (change: Partial<Target["sizes"]>): Partial<Target> => ({ sizes: { ...TARGET.sizes, ...change } });

/** A Worker with a custom domain and without a workers.dev address. */
const OFF: Partial<Target> = { isPublic: false, domains: ["m.example.com"] };

const domainOf = (owner: string): Partial<State> => ({ domains: new Map([["m.example.com", owner]]) });

test.each<[string, State, Partial<Target>?, boolean?]>([
  ["all is as it should be; Cloudflare leaves out settings that are 0", account()],
  ["an address is given that is not workers.dev's", worker({ isPublic: false }), {}, true],
  ["a domain is attached and workers.dev is off", worker({ isPublic: false }, domainOf("edgemeter")), OFF],
  ["the consumer is named as a service", queue({ service: "edgemeter" })],
  ["wrangler.toml has no bucket", worker({ bucket: undefined }, { hasBucket: false }), { bucket: undefined }],
  ["0 is spelt out", queue({ script: "edgemeter", settings: { ...SETTINGS, max_wait_time_ms: 0, max_retries: 0 } })],
])("nothing is uploaded or tested when %s", async (_, state, target = {}, hasAddress = false) => {
  const plan = await planOf({ ...TARGET, ...target }, state, hasAddress);
  expect(plan).toMatchObject({ upload: undefined, selfTest: false });
});

const OTHER_SETTINGS = "its settings are others";
const OTHER_CONSUMER = "it does not take its queues' messages as it should";

test.each<[string, State, Partial<Target>?]>([
  ["it is not there", account({ worker: undefined })],
  ["its database edgemeter is gone", account({ databases: new Map([["EVENTS_0", EVENTS]]) })],
  [
    "EVENTS_0 is another database than edgemeter-events-0",
    worker({ databases: new Map([...BOUND, ["EVENTS_0", "d3"]]) }),
  ],
  ["it is not bound to edgemeter-events-0", worker({ databases: new Map([["DB", "d1"]]) })],
  ["it is not bound to edgemeter-archive", worker({ bucket: undefined })],
  ["its bucket edgemeter-archive is gone", account({ hasBucket: false })],
  ["ARCHIVE is another bucket than renamed", account({ hasBucket: false }), bucketOf("renamed")],
  ["ARCHIVE is another bucket than edgemeter-archive", account(), bucketOf("edgemeter-archive", "eu")],
  ["its code or settings are others", worker({ fingerprint: undefined })],
  [OTHER_SETTINGS, vars({ LOCATION_HINT: "" })],
  [OTHER_SETTINGS, vars({ DEPLOYED_VERSION: "of another" })],
  [OTHER_SETTINGS, account({ databases: databases({ running_in_region: "OC" }) })],
  ["it has no SESSION_SECRET", worker({ secrets: [] })],
  ["it has no address", worker({ isPublic: false })],
  ["it has a workers.dev address", account(domainOf("edgemeter")), OFF],
  ["a domain of it is not attached", worker({ isPublic: false }), OFF],
  ["its crons are others", worker({ crons: [] })],
  [OTHER_CONSUMER, account({ queues: [consumed()] })],
  [OTHER_CONSUMER, queue({ script: "edgemeter", settings: { ...SETTINGS, max_retries: 3 } })],
])("the Worker is uploaded, and tested after it, when %s", async (reason, state, target) => {
  const plan = await planOf({ ...TARGET, ...target }, state, false);
  expect(plan).toMatchObject({ upload: reason, selfTest: true });
});

test.each([account({ recorded: new Map() }), recorded({ self_test: "of the version before" })])(
  "a version that never passed its self-test is tested",
  async (state) => {
    expect(await planOf(TARGET, state, false)).toMatchObject({ upload: undefined, selfTest: true });
  },
);

test.each<[string, State, Partial<Target>?]>([
  ["(the Worker other)", queue({ script: "other" })],
  ["(the Worker other)", queue({ script_name: "other" })],
  ["(http_pull)", queue({ type: "http_pull" })],
  ["leads to the Worker other", account(domainOf("other")), OFF],
  ['the log has 4 shards, and EVENT_LOG_SHARDS = "2": it grows only', account(), sized({ event_log_shards: 2 })],
  ['and EVENT_LOG_SHARDS = "6": it grows only, to a multiple (8, 12, 16 …)', account(), sized({ event_log_shards: 6 })],
  [
    'the log has 2 shards, and TEST_EVENT_LOG_SHARDS = "3"',
    recorded({ test_event_log_shards: "[[2,0]]" }),
    sized({ test_event_log_shards: 3 }),
  ],
  ["events are in 3 databases, and wrangler.toml has 1", recorded({ databases: "[[1,0],[3,1000]]" })],
  ['JURISDICTION = "fedramp", which cannot be changed to ""', recorded({ jurisdiction: "fedramp" })],
  ['cannot be changed to "eu"', account(), { jurisdiction: "eu" }],
  ['cannot be changed to ""', account({ databases: databases({ jurisdiction: "eu" }) })],
])("is refused before anything is changed: %s", async (message, state, target) => {
  await expect(planOf({ ...TARGET, ...target }, state, false)).rejects.toThrow(message);
});

test("databases and logs grow together, and what the first event has not recorded yet does not", async () => {
  const target = { ...TARGET, sizes: { databases: 3, event_log_shards: 16, test_event_log_shards: 3 } };
  const state = account();
  const plan = await planOf(target, state, false);
  const said = describePlan(target, state, plan).slice(-5).join("\n");
  for (const line of [
    "events    go to 3 databases",
    "live log  grows from 4 to 16 shards",
    "test log  grows from 1 to 3",
  ]) {
    expect(said).toContain(line);
  }
  expect(await planOf(target, account({ recorded: new Map() }), false)).toMatchObject({ growths: [] });
});

test("a fingerprint is that of code and settings, wherever their configuration lies, and fits in a version's tag", async () => {
  const settings = { main: path.join(root, "src/index.ts"), vars: { A: "1" } };
  const one = await fingerprintOf({ ...settings, configPath: "/here", userConfigPath: "/here" });
  expect(one).toMatch(/^[0-9a-f]{24}$/);
  expect(await fingerprintOf({ ...settings, configPath: "/there" })).toBe(one);
  expect(await fingerprintOf({ ...settings, vars: { A: "2" } })).not.toBe(one);
});

test.each([
  ["", undefined],
  ["weur", "weur"],
  ["apac", "apac"],
  ["oc", "oc"],
  // Durable Objects go where D1 cannot.
  ["sam", "enam"],
  ["afr", "weur"],
  ["me", "eeur"],
])("a LOCATION_HINT of '%s' puts the database in %s", (hint, region) => {
  expect(regionOf(hint)).toBe(region);
});
