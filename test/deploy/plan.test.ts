// Why a Worker is uploaded, what is refused first, and what is left as it is: on accounts as they are described.
import path from "node:path";
import { expect, test } from "vitest";
import { fingerprintOf } from "../../scripts/deploy/fingerprint.ts";
import { planOf, type State } from "../../scripts/deploy/plan.ts";
import type { Target } from "../../scripts/deploy/target.ts";
import { root } from "../../scripts/wrangler.ts";

const TARGET: Target = {
  ...{ file: "wrangler.toml", env: "", account: undefined, worker: "edgemeter", database: "edgemeter" },
  ...{
    locationHint: "",
    jurisdiction: "",
    shards: 4,
    isPublic: true,
    domains: [],
    crons: ["* * * * *"],
    fingerprint: "f",
  },
  queues: ["edgemeter-events"],
  consumers: [
    {
      queue: "edgemeter-events",
      settings: { batch_size: 100, max_retries: 0, max_wait_time_ms: 1_000, max_concurrency: 4 },
    },
  ],
};

type Worker = NonNullable<State["worker"]>;
type Queue = State["queues"][number];

const varsWith = (change: Record<string, string>): Worker["vars"] =>
  new Map(Object.entries({ LOCATION_HINT: "weur", DEPLOYED_VERSION: "f", ...change }));

const WORKER: Worker = {
  ...{ fingerprint: "f", database: "d1", secrets: ["SESSION_SECRET"], crons: ["* * * * *"], isPublic: true },
  vars: varsWith({}),
};

const SETTINGS = { batch_size: 100, max_wait_time_ms: 1_000, max_concurrency: 4 };

const queueOf = (...consumers: Partial<Queue["consumers"][number]>[]): Queue => ({
  ...{ queue_id: "q", queue_name: "edgemeter-events" },
  consumers: consumers.map((consumer) => ({ consumer_id: "c", settings: SETTINGS, ...consumer })),
});

const DATABASE = { uuid: "d1", name: "edgemeter", running_in_region: "WEUR", read_replication: { mode: "auto" } };

/** What its database records, with a change. */
const recorded = (change: Record<string, string>): State["recorded"] =>
  new Map(Object.entries({ event_log_shards: "4", jurisdiction: "", self_test: "f", ...change }));

/** An account that is as it should be, with a change. */
const stateOf = (change: Partial<State> = {}): State => ({
  ...{ database: DATABASE, objects: [], worker: WORKER, domains: new Map() },
  recorded: recorded({}),
  queues: [queueOf({ script: "edgemeter" })],
  ...change,
});

const workerWith = (change: Partial<Worker>): State => stateOf({ worker: { ...WORKER, ...change } });

const OFF: Partial<Target> = { isPublic: false, domains: ["m.example.com"] };
const ATTACHED = new Map([["m.example.com", "edgemeter"]]);

test.each<[string, State, Partial<Target>, boolean]>([
  ["all is as it should be; Cloudflare leaves out settings that are 0", stateOf(), {}, false],
  ["an address is given that is not workers.dev's", workerWith({ isPublic: false }), {}, true],
  [
    "a domain is attached and workers.dev is off",
    { ...workerWith({ isPublic: false }), domains: ATTACHED },
    OFF,
    false,
  ],
  ["the consumer is named as a service", stateOf({ queues: [queueOf({ service: "edgemeter" })] }), {}, false],
  [
    "0 is spelt out",
    stateOf({ queues: [queueOf({ script: "edgemeter", settings: { ...SETTINGS, max_retries: 0 } })] }),
    {},
    false,
  ],
])("nothing is uploaded or tested when %s", async (_, state, target, hasAddress) => {
  const plan = await planOf({ ...TARGET, ...target }, state, hasAddress);
  expect({ upload: plan.upload, selfTest: plan.selfTest }).toEqual({ upload: undefined, selfTest: false });
});

test.each<[string, State, Partial<Target>]>([
  ["it is not there", stateOf({ worker: undefined }), {}],
  ["its database is gone", stateOf({ database: undefined }), {}],
  ["it is bound to another database", workerWith({ database: "dead" }), {}],
  ["it is bound to another database", workerWith({ database: undefined }), {}],
  ["its code or settings are others", workerWith({ fingerprint: undefined }), {}],
  ["its settings are others", workerWith({ vars: varsWith({ LOCATION_HINT: "" }) }), {}],
  ["its settings are others", workerWith({ vars: varsWith({ DEPLOYED_VERSION: "of another" }) }), {}],
  ["its settings are others", stateOf({ database: { ...DATABASE, running_in_region: "OC" } }), {}],
  ["it has no SESSION_SECRET", workerWith({ secrets: [] }), {}],
  ["it has no address", workerWith({ isPublic: false }), {}],
  ["it has a workers.dev address", stateOf({ domains: ATTACHED }), OFF],
  ["a domain of it is not attached", workerWith({ isPublic: false }), OFF],
  ["its crons are others", workerWith({ crons: [] }), {}],
  ["it does not take its queue's messages as it should", stateOf({ queues: [queueOf()] }), {}],
  [
    "it does not take its queue's messages as it should",
    stateOf({ queues: [queueOf({ script: "edgemeter", settings: { ...SETTINGS, max_retries: 3 } })] }),
    {},
  ],
])("the Worker is uploaded, and tested after it, when %s", async (reason, state, target) => {
  const plan = await planOf({ ...TARGET, ...target }, state, false);
  expect({ upload: plan.upload, selfTest: plan.selfTest }).toEqual({ upload: reason, selfTest: true });
});

test.each([new Map(), recorded({ self_test: "of the version before" })])(
  "a version that never passed its self-test is tested (%s)",
  async (records) => {
    const state = stateOf({ recorded: records });
    expect(await planOf(TARGET, state, false)).toMatchObject({ upload: undefined, selfTest: true });
  },
);

test.each<[string, State, Partial<Target>]>([
  ["(the Worker other)", stateOf({ queues: [queueOf({ script: "other" })] }), {}],
  ["(the Worker other)", stateOf({ queues: [queueOf({ script_name: "other" })] }), {}],
  ["(http_pull)", stateOf({ queues: [queueOf({ type: "http_pull" })] }), {}],
  ["leads to the Worker other", stateOf({ domains: new Map([["m.example.com", "other"]]) }), OFF],
  ['EVENT_LOG_SHARDS = "4", which cannot be changed to "8"', stateOf(), { shards: 8 }],
  [
    'JURISDICTION = "fedramp", which cannot be changed to ""',
    stateOf({ recorded: recorded({ jurisdiction: "fedramp" }) }),
    {},
  ],
  ['cannot be changed to "eu"', stateOf(), { jurisdiction: "eu" }],
  ['cannot be changed to ""', stateOf({ database: { ...DATABASE, jurisdiction: "eu" } as State["database"] }), {}],
])("is refused before anything is changed: %s", async (message, state, target) => {
  await expect(planOf({ ...TARGET, ...target }, state, false)).rejects.toThrow(message);
});

test("the same code and settings have one fingerprint, wherever their configuration lies", async () => {
  const settings = { main: path.join(root, "src/index.ts"), vars: { A: "1" } };
  const one = await fingerprintOf({ ...settings, configPath: "/here", userConfigPath: "/here" });
  expect(await fingerprintOf({ ...settings, configPath: "/there" })).toBe(one);
});

test("another setting has another fingerprint", async () => {
  expect(await fingerprintOf({ vars: { A: "1" } })).not.toBe(await fingerprintOf({ vars: { A: "2" } }));
});

test("a fingerprint fits in the tag of a version, which has 25 characters", async () => {
  expect(await fingerprintOf({})).toMatch(/^[0-9a-f]{24}$/);
});
