// `npm run deploy` as a process of its own, with the real wrangler.
import { readFile } from "node:fs/promises";
import path from "node:path";
import { describe, expect, test, vi } from "vitest";
import { useCloudflare } from "../support/node/cloudflare/fixture.ts";
import { deployed, keysIn, secretsOf } from "../support/node/cloudflare/inspect.ts";

const { cloudflare, folder, command, at } = await useCloudflare();
const { workers, databases, buckets, queues } = cloudflare.account;

const deploy = (worker: string, ...args: string[]) => command("deploy", [...at(worker), ...args]);

const production = () => deployed(cloudflare.account);

/** The first deployment of production, which all tests come after. */
const first = await deploy("edgemeter");

/** What a first deployment makes, in its order: nothing runs without what it needs. */
const firstDeployment = (worker: string): string[] => [
  // The control database, with replicas and its tables; then live mode's and test mode's.
  ...["POST /d1/database", "PUT /d1/database/ID", "POST /d1/database/ID/query"],
  ...["POST /d1/database", "POST /d1/database/ID/query"],
  ...["POST /d1/database", "POST /d1/database/ID/query"],
  "POST /r2/buckets",
  ...["POST /queues", "POST /queues"],
  `PUT /workers/scripts/${worker}`,
  `PATCH /workers/scripts/${worker}/script-settings`,
  `POST /workers/scripts/${worker}/subdomain`,
  `PUT /workers/scripts/${worker}/schedules`,
  ...["POST /queues/ID/consumers", "POST /queues/ID/consumers"],
  // The self-test: its key, and that it was passed.
  ...["POST /d1/database/ID/query", "POST /d1/database/ID/query"],
];

describe("a first deployment", () => {
  test("makes everything, in its order, and says how to go on", () => {
    const { code, stdout, stderr, changes } = first;
    expect({ code, stderr, changes }).toEqual({ code: 0, stderr: "", changes: firstDeployment("edgemeter") });
    expect(stdout).toContain(`address   ${cloudflare.addressOf("edgemeter")}`);
    expect(stdout).toContain('npm run keys -- create --live --name "My backend" --remote\n');
  });

  test("binds the Worker to its own databases, bucket, queues and classes, and gives it a secret", () => {
    const { worker, running, database, bindings } = production();
    const [events, testEvents] = [databases.get("edgemeter-events-0"), databases.get("edgemeter-test-events")];
    expect([database, events, testEvents].map((found) => found?.replicated)).toEqual([true, false, false]);
    expect(bindings).toMatchObject({
      DB: { type: "d1", id: database.uuid },
      EVENTS_0: { type: "d1", id: events?.uuid },
      TEST_EVENTS: { type: "d1", id: testEvents?.uuid },
      ARCHIVE: { type: "r2_bucket", bucket_name: "edgemeter-archive" },
      EVENT_QUEUE: { type: "queue", queue_name: "edgemeter-events" },
      TEST_EVENT_QUEUE: { type: "queue", queue_name: "edgemeter-test-events" },
      CUSTOMER_METER: { type: "durable_object_namespace", class_name: "CustomerMeter" },
      EVENT_LOG: { type: "durable_object_namespace", class_name: "EventLog" },
      SYNC_EVENTS_LIMIT: { type: "ratelimit", namespace_id: "1001" },
      EVENT_LOG_SHARDS: { type: "plain_text" },
      // Beside the control database, since no hint is set.
      LOCATION_HINT: { type: "plain_text", text: "weur" },
    });
    // As is the bucket.
    expect([...buckets.values()]).toEqual([{ name: "edgemeter-archive", location: "weur", jurisdiction: "default" }]);
    expect(worker.secrets.get("SESSION_SECRET")).toMatch(/^[\w-]{43}$/);
    expect(worker.crons).toEqual(["* * * * *"]);
    expect(running.metadata).toMatchObject({
      observability: { enabled: true, logs: { invocation_logs: false } },
      exports: { EventLog: { storage: "sqlite" }, CustomerMeter: { storage: "sqlite" } },
    });
    // Cloudflare leaves out what is 0: retries, and the wait for a full batch.
    const consumer = { script: "edgemeter", settings: { batch_size: 100, max_concurrency: 1 } };
    for (const queue of ["edgemeter-events", "edgemeter-test-events"]) {
      expect(queues.get(queue)?.consumers).toEqual([expect.objectContaining(consumer)]);
    }
  });

  test("passes a self-test before it is a success: an event was counted, and its key is revoked", () => {
    const { worker, database, sql } = production();
    expect(first.stdout).toContain("self-test passed");
    expect([...worker.sums.values()]).toEqual([25]);
    expect(sql.prepare("SELECT event_name, livemode FROM meters").all()).toEqual([
      { event_name: "edgemeter_self_test", livemode: 0 },
    ]);
    expect(sql.prepare("SELECT id, livemode FROM api_keys").all()).toEqual([{ id: "key_self_test", livemode: 0 }]);
    expect(keysIn(database)).toEqual([]);
  });
});

test("a second deployment of the same code and settings changes nothing", async () => {
  const { code, stdout, changes } = await deploy("edgemeter");
  expect({ code, changes }).toEqual({ code: 0, changes: [] });
  expect(stdout).toContain("Worker    is up to date");
  expect(stdout).toContain("self-test was passed");
  expect(production().worker.versions).toHaveLength(1);
});

describe("the next deployment", () => {
  async function repairs(reason: string): Promise<void> {
    const { code, stdout } = await deploy("edgemeter");
    expect({ code, stdout }).toEqual({ code: 0, stdout: expect.stringContaining(reason) });
  }

  test("puts right what others changed, and keeps the secret and the data", async () => {
    const { worker, database, sql } = production();
    const secrets = secretsOf(cloudflare.account);
    sql.exec("INSERT INTO api_keys (hash, id, number, name, livemode, created) VALUES ('h', 'key_1', 7, 'n', 1, 0)");
    worker.crons = [];
    await repairs("its crons are others");
    expect(worker.crons).toEqual(["* * * * *"]);
    expect(secretsOf(cloudflare.account)).toEqual(secrets);
    expect(keysIn(database)).toEqual(["key_1"]);
  });

  test("replaces a version that somebody else has put in its place", async () => {
    const { worker, running } = production();
    worker.versions.unshift({ ...running, id: "of-others", annotations: {} });
    await repairs("its code or settings are others");
    expect(production().running.annotations).toEqual(running.annotations);
  });

  test("makes a database that was deleted by hand again, and binds the Worker to it", async () => {
    const uuid = databases.get("edgemeter-events-0")?.uuid;
    databases.delete("edgemeter-events-0");
    await repairs("its database edgemeter-events-0 is gone");
    const database = databases.get("edgemeter-events-0");
    expect(database?.uuid).not.toBe(uuid);
    expect(production().bindings.EVENTS_0?.id).toBe(database?.uuid);
    expect(database?.sql.prepare("SELECT * FROM sums").all()).toEqual([]);
  });

  test("makes a bucket that was deleted by hand again, once", async () => {
    buckets.delete("edgemeter-archive");
    await repairs("its bucket edgemeter-archive is gone");
    expect(buckets.has("edgemeter-archive")).toBe(true);
    expect((await deploy("edgemeter")).changes).toEqual([]);
  });

  test("binds the Worker to its bucket again, when it is bound to another", async () => {
    const { worker, running } = production();
    const bindings = running.bindings.map((binding) =>
      binding.name === "ARCHIVE" ? { ...binding, bucket_name: "another" } : binding,
    );
    worker.versions[0] = { ...running, bindings };
    await repairs("ARCHIVE is another bucket than edgemeter-archive");
    expect(production().bindings.ARCHIVE).toMatchObject({ bucket_name: "edgemeter-archive" });
  });
});

describe("an environment", () => {
  test("shares nothing with production", async () => {
    const { code, stdout, changes } = await deploy("edgemeter-staging", "--env", "staging");
    expect({ code, changes }).toEqual({ code: 0, changes: firstDeployment("edgemeter-staging") });
    expect(stdout).toContain("--remote --env staging");
    const { bindings } = production();
    const staging = deployed(cloudflare.account, "edgemeter-staging").bindings;
    expect(Object.keys(staging)).toEqual(Object.keys(bindings));
    for (const name of ["DB", "EVENTS_0", "TEST_EVENTS"]) expect(staging[name]?.id).not.toBe(bindings[name]?.id);
    expect(staging.ARCHIVE?.bucket_name).toBe("edgemeter-staging-archive");
    for (const name of ["EVENT_QUEUE", "TEST_EVENT_QUEUE"]) {
      expect(staging[name]?.queue_name).not.toBe(bindings[name]?.queue_name);
    }
    expect(staging.SYNC_EVENTS_LIMIT?.namespace_id).not.toBe(bindings.SYNC_EVENTS_LIMIT?.namespace_id);
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
  for (const [name, value] of Object.entries({ ...cloudflare.env, STATE_DIR: folder })) vi.stubEnv(name, value);
  const { root, runWrangler } = await import("../../scripts/wrangler.ts");
  const guide = await readFile(path.join(root, "OPERATIONS.md"), "utf8");
  const section = guide.slice(guide.indexOf("## Taking production down"));
  const commands = section.slice(0, section.indexOf("For staging")).matchAll(/^npx wrangler (.*?)(?: +#.*)?$/gm);
  for (const [, args = ""] of commands) expect(await runWrangler(args.split(" ")), args).toMatchObject({ ok: true });
  expect([...workers.keys()]).toEqual(["edgemeter-staging"]);
  const [, events, testEvents] = ["edgemeter-staging", "edgemeter-staging-events", "edgemeter-staging-test-events"];
  expect([...databases.keys()]).toEqual(["edgemeter-staging", `${events}-0`, testEvents]);
  expect([...buckets.keys()]).toEqual(["edgemeter-staging-archive"]);
  expect([...queues.keys()]).toEqual([events, testEvents]);
});
