// `npm run deploy` as a process of its own, with the real wrangler.
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { regionOf } from "../../scripts/deploy/region.ts";
import { command, secretsLeftIn } from "../support/node/cloudflare/command.ts";
import { bindingsOf, changesOf, secretsOf } from "../support/node/cloudflare/inspect.ts";
import { type FakeCloudflare, startCloudflare } from "../support/node/cloudflare/server.ts";
import type { NpmRun } from "../support/node/npm-run.ts";

const PATIENCE_MS = 120_000;

const root = path.join(import.meta.dirname, "../..");

let cloudflare: FakeCloudflare;
let folder: string;
/** The first deployment of production, which all tests come after. */
let first: NpmRun & { readonly changes: readonly string[] };
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "edgemeter-deploy-"));
  cloudflare = await startCloudflare();
  const run = await deploy("edgemeter");
  first = { ...run, changes: changesOf(cloudflare) };
}, PATIENCE_MS);
afterEach(() => {
  expect(cloudflare.unknown).toEqual([]);
  expect(secretsLeftIn(folder)).toEqual([]);
});
afterAll(async () => {
  await cloudflare.stop();
  await rm(folder, { recursive: true, force: true });
});

/** Runs it, and shows that it prints no secret. The calls are those of this run alone. */
async function deploy(worker: string, ...args: string[]): Promise<NpmRun> {
  cloudflare.begin(undefined);
  const url = ["--url", cloudflare.addressOf(worker), "--wait", "20"];
  const run = await command(cloudflare, folder, "deploy", [...url, ...args]);
  for (const secret of secretsOf(cloudflare.account)) expect(run.all).not.toContain(secret);
  return run;
}

/** What a first deployment makes, in its order: nothing runs without what it needs. */
const firstDeployment = (worker: string): string[] => [
  "POST /d1/database",
  "PUT /d1/database/ID",
  "POST /d1/database/ID/query",
  "POST /queues",
  `PUT /workers/scripts/${worker}`,
  `PATCH /workers/scripts/${worker}/script-settings`,
  `POST /workers/scripts/${worker}/subdomain`,
  `PUT /workers/scripts/${worker}/schedules`,
  "POST /queues/ID/consumers",
  // The self-test: its key, and that it was passed.
  "POST /d1/database/ID/query",
  "POST /d1/database/ID/query",
];

describe("a first deployment", () => {
  test("makes everything, in its order, and says how to go on", () => {
    const { code, stdout, stderr, changes } = first;
    expect({ code, stderr, changes }).toEqual({ code: 0, stderr: "", changes: firstDeployment("edgemeter") });
    expect(stdout).toContain(`address   ${cloudflare.addressOf("edgemeter")}`);
    expect(stdout).toContain('npm run keys -- create --live --name "My backend" --remote\n');
  });

  test("binds the Worker to its own database, queue and classes, and gives it a secret", () => {
    const { workers, databases, queues } = cloudflare.account;
    expect(databases.get("edgemeter")?.replicated).toBe(true);
    expect(bindingsOf(cloudflare.account, "edgemeter")).toMatchObject({
      DB: { type: "d1", id: databases.get("edgemeter")?.uuid },
      EVENT_QUEUE: { type: "queue", queue_name: "edgemeter-events" },
      CUSTOMER_METER: { type: "durable_object_namespace", class_name: "CustomerMeter" },
      EVENT_LOG: { type: "durable_object_namespace", class_name: "EventLog" },
      SYNC_EVENTS_LIMIT: { type: "ratelimit", namespace_id: "1001" },
      EVENT_LOG_SHARDS: { type: "plain_text" },
      // Beside the database, since no hint is set.
      LOCATION_HINT: { type: "plain_text", text: "weur" },
    });
    const worker = workers.get("edgemeter");
    expect(worker?.secrets.get("SESSION_SECRET")).toMatch(/^[\w-]{43}$/);
    expect(worker?.crons).toEqual(["* * * * *"]);
    expect(worker?.versions[0]?.metadata).toMatchObject({
      observability: { enabled: true, logs: { invocation_logs: false } },
      exports: { EventLog: { storage: "sqlite" }, CustomerMeter: { storage: "sqlite" } },
    });
    expect(queues.get("edgemeter-events")?.consumers).toMatchObject([
      { script: "edgemeter", settings: { batch_size: 100, max_wait_time_ms: 1_000, max_concurrency: 4 } },
    ]);
    const sql = databases.get("edgemeter")?.sql;
    expect(sql?.prepare("SELECT count(*) AS keys FROM api_keys WHERE revoked_at IS NULL").get()).toEqual({ keys: 0 });
  });

  test("passes a self-test before it is a success: an event was counted, and its key is revoked", () => {
    const { workers, databases } = cloudflare.account;
    expect(first.stdout).toContain("self-test passed");
    expect([...(workers.get("edgemeter")?.sums.values() ?? [])]).toEqual([25]);
    const sql = databases.get("edgemeter")?.sql;
    expect(sql?.prepare("SELECT event_name, livemode FROM meters").all()).toEqual([
      { event_name: "edgemeter_self_test", livemode: 0 },
    ]);
    expect(sql?.prepare("SELECT id, livemode FROM api_keys").all()).toEqual([{ id: "key_self_test", livemode: 0 }]);
  });
});

describe("a second deployment", () => {
  test("of the same code and settings changes nothing", { timeout: PATIENCE_MS }, async () => {
    const { code, stdout } = await deploy("edgemeter");
    expect({ code, changes: changesOf(cloudflare) }).toEqual({ code: 0, changes: [] });
    expect(stdout).toContain("Worker    is up to date");
    expect(stdout).toContain("self-test was passed");
    expect(cloudflare.account.workers.get("edgemeter")?.versions).toHaveLength(1);
  });

  test("puts right what others changed, and keeps the secret and the data", { timeout: PATIENCE_MS }, async () => {
    const worker = cloudflare.account.workers.get("edgemeter");
    const database = cloudflare.account.databases.get("edgemeter");
    const secret = worker?.secrets.get("SESSION_SECRET");
    database?.sql.exec("INSERT INTO api_keys (hash, id, name, livemode, created) VALUES ('h', 'key_1', 'n', 1, 0)");
    database?.sql.exec("DROP TABLE dead_letters");
    if (worker !== undefined) worker.crons = [];
    const { code, stdout } = await deploy("edgemeter");
    expect({ code, stdout }).toEqual({ code: 0, stdout: expect.stringContaining("its crons are others") });
    expect(worker?.crons).toEqual(["* * * * *"]);
    expect(worker?.secrets.get("SESSION_SECRET")).toBe(secret);
    expect(database?.sql.prepare("SELECT id FROM api_keys WHERE revoked_at IS NULL").all()).toEqual([{ id: "key_1" }]);
    expect(database?.sql.prepare("SELECT * FROM dead_letters").all()).toEqual([]);
  });

  test("replaces a version that somebody else has put in its place", { timeout: PATIENCE_MS }, async () => {
    const worker = cloudflare.account.workers.get("edgemeter");
    const [running] = worker?.versions ?? [];
    if (running !== undefined) worker?.versions.unshift({ ...running, id: "of-others", annotations: {} });
    const { code, stdout } = await deploy("edgemeter");
    expect({ code, stdout }).toEqual({ code: 0, stdout: expect.stringContaining("its code or settings are others") });
    expect(worker?.versions[0]?.annotations).toEqual(running?.annotations);
  });
});

test("a database that was deleted by hand is made again, and the Worker bound to it", {
  timeout: PATIENCE_MS,
}, async () => {
  const { databases } = cloudflare.account;
  const dead = databases.get("edgemeter")?.uuid;
  databases.delete("edgemeter");
  const { code, stdout } = await deploy("edgemeter");
  expect({ code, stdout }).toEqual({ code: 0, stdout: expect.stringContaining("its database is gone") });
  const made = databases.get("edgemeter")?.uuid;
  expect(made).not.toBe(dead);
  expect(bindingsOf(cloudflare.account, "edgemeter").DB?.id).toBe(made);
});

test("a queue that another Worker consumes is refused before anything is changed", {
  timeout: PATIENCE_MS,
}, async () => {
  const other = await startCloudflare();
  const consumer = { consumer_id: "c", type: "worker", script: "another-worker", settings: {} };
  const queue = { queue_id: "q", queue_name: "edgemeter-events", consumers: [consumer] };
  other.account.queues.set(queue.queue_name, queue);
  for (const args of [["--dry-run"], []]) {
    const { code, stderr } = await command(other, folder, "deploy", args);
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining("(the Worker another-worker)") });
  }
  expect(changesOf(other)).toEqual([]);
  await other.stop();
});

test("--dry-run tells what would be done, and only reads", { timeout: PATIENCE_MS }, async () => {
  const empty = await startCloudflare();
  const { code, stdout } = await command(empty, folder, "deploy", ["--dry-run"]);
  await empty.stop();
  expect(code).toBe(0);
  for (const part of ["make edgemeter", "make edgemeter-events", "make a SESSION_SECRET", "deploy edgemeter"]) {
    expect(stdout).toContain(part);
  }
  expect(stdout).toContain("address   https://edgemeter.example-account.workers.dev");
  expect(stdout).toContain("Nothing was changed.");
  expect(empty.calls.length).toBeGreaterThan(0);
  expect(empty.calls.every(({ method }) => method === "GET")).toBe(true);
});

describe("an environment", () => {
  test("shares nothing with production", { timeout: PATIENCE_MS }, async () => {
    const production = bindingsOf(cloudflare.account, "edgemeter");
    const { code, stdout } = await deploy("edgemeter-staging", "--env", "staging");
    expect(code).toBe(0);
    expect(stdout).toContain("--remote --env staging");
    expect(changesOf(cloudflare)).toEqual(firstDeployment("edgemeter-staging"));
    const staging = bindingsOf(cloudflare.account, "edgemeter-staging");
    expect(Object.keys(staging)).toEqual(Object.keys(production));
    expect(staging.DB?.id).not.toBe(production.DB?.id);
    expect(staging.EVENT_QUEUE?.queue_name).not.toBe(production.EVENT_QUEUE?.queue_name);
    expect(staging.SYNC_EVENTS_LIMIT?.namespace_id).not.toBe(production.SYNC_EVENTS_LIMIT?.namespace_id);
    expect(new Set(secretsOf(cloudflare.account)).size).toBe(2);
  });

  test("that wrangler.toml has not is refused before anything is asked", { timeout: PATIENCE_MS }, async () => {
    const { code, stderr } = await deploy("nowhere", "--env", "nowhere");
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining("no environment 'nowhere'") });
    expect(cloudflare.calls).toEqual([]);
  });
});

test("a Worker that does not answer is no success", { timeout: PATIENCE_MS }, async () => {
  cloudflare.begin(undefined);
  const wrong = ["--url", cloudflare.addressOf("no-such-worker"), "--wait", "1"];
  const { code, stderr } = await command(cloudflare, folder, "deploy", wrong);
  expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringMatching(/does not say that it is well: .*404/) });
});

test("OPERATIONS.md takes down all of production, and nothing else", { timeout: PATIENCE_MS }, async () => {
  cloudflare.begin(undefined);
  const guide = await readFile(path.join(root, "OPERATIONS.md"), "utf8");
  const section = guide.slice(guide.indexOf("## Taking production down"));
  const commands = section.slice(0, section.indexOf("For staging")).matchAll(/^npx wrangler (.*?)(?: +#.*)?$/gm);
  const cli = path.join(root, "node_modules/wrangler/wrangler-dist/cli.js");
  const env = {
    ...process.env,
    ...cloudflare.env,
    CI: "1",
    WRANGLER_SEND_METRICS: "false",
    WRANGLER_HIDE_BANNER: "true",
    WRANGLER_LOG_PATH: folder,
  };
  for (const [, args = ""] of commands) {
    const running = promisify(execFile)(process.execPath, ["--no-warnings", cli, ...args.split(" ")], {
      cwd: root,
      env,
    });
    await expect(running, args).resolves.toBeDefined();
  }
  const { workers, databases, queues } = cloudflare.account;
  expect([...workers.keys()]).toEqual(["edgemeter-staging"]);
  expect([...databases.keys()]).toEqual(["edgemeter-staging"]);
  expect([...queues.keys()]).toEqual(["edgemeter-staging-events"]);
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
