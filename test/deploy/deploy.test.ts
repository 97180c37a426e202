// `npm run deploy` as a process of its own, with the real wrangler.
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { regionOf } from "../../scripts/deploy/region.ts";
import { useCloudflare } from "../support/node/cloudflare/fixture.ts";
import { bindingsOf, secretsOf } from "../support/node/cloudflare/inspect.ts";

const root = path.join(import.meta.dirname, "../..");

const { cloudflare, folder, command, at } = await useCloudflare();
const { workers, databases, queues } = cloudflare.account;

const deploy = (worker: string, ...args: string[]) => command("deploy", [...at(worker), ...args]);

/** The first deployment of production, which all tests come after. */
const first = await deploy("edgemeter");

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
  test("of the same code and settings changes nothing", async () => {
    const { code, stdout, changes } = await deploy("edgemeter");
    expect({ code, changes }).toEqual({ code: 0, changes: [] });
    expect(stdout).toContain("Worker    is up to date");
    expect(stdout).toContain("self-test was passed");
    expect(workers.get("edgemeter")?.versions).toHaveLength(1);
  });

  test("puts right what others changed, and keeps the secret and the data", async () => {
    const worker = workers.get("edgemeter");
    const database = databases.get("edgemeter");
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

  test("replaces a version that somebody else has put in its place", async () => {
    const worker = workers.get("edgemeter");
    const [running] = worker?.versions ?? [];
    if (running !== undefined) worker?.versions.unshift({ ...running, id: "of-others", annotations: {} });
    const { code, stdout } = await deploy("edgemeter");
    expect({ code, stdout }).toEqual({ code: 0, stdout: expect.stringContaining("its code or settings are others") });
    expect(worker?.versions[0]?.annotations).toEqual(running?.annotations);
  });
});

test("a database that was deleted by hand is made again, and the Worker bound to it", async () => {
  const dead = databases.get("edgemeter")?.uuid;
  databases.delete("edgemeter");
  const { code, stdout } = await deploy("edgemeter");
  expect({ code, stdout }).toEqual({ code: 0, stdout: expect.stringContaining("its database is gone") });
  const made = databases.get("edgemeter")?.uuid;
  expect(made).not.toBe(dead);
  expect(bindingsOf(cloudflare.account, "edgemeter").DB?.id).toBe(made);
});

describe("an environment", () => {
  test("shares nothing with production", async () => {
    const production = bindingsOf(cloudflare.account, "edgemeter");
    const { code, stdout, changes } = await deploy("edgemeter-staging", "--env", "staging");
    expect(code).toBe(0);
    expect(stdout).toContain("--remote --env staging");
    expect(changes).toEqual(firstDeployment("edgemeter-staging"));
    const staging = bindingsOf(cloudflare.account, "edgemeter-staging");
    expect(Object.keys(staging)).toEqual(Object.keys(production));
    expect(staging.DB?.id).not.toBe(production.DB?.id);
    expect(staging.EVENT_QUEUE?.queue_name).not.toBe(production.EVENT_QUEUE?.queue_name);
    expect(staging.SYNC_EVENTS_LIMIT?.namespace_id).not.toBe(production.SYNC_EVENTS_LIMIT?.namespace_id);
    expect(new Set(secretsOf(cloudflare.account)).size).toBe(2);
  });

  test("that wrangler.toml has not is refused before anything is asked", async () => {
    const { code, stderr } = await deploy("nowhere", "--env", "nowhere");
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining("no environment 'nowhere'") });
    expect(cloudflare.calls).toEqual([]);
  });
});

test("a Worker that does not answer is no success", async () => {
  const { code, stderr } = await deploy("no-such-worker", "--wait", "1");
  expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringMatching(/does not say that it is well: .*404/) });
});

test("OPERATIONS.md takes down all of production, and nothing else", async () => {
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
