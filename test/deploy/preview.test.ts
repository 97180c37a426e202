// `npm run preview` and `npm run preview:delete` as processes of their own, beside production and staging.
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { previewNames } from "../../scripts/preview/names.ts";
import { hashOf } from "../../src/catalog/key-hash.ts";
import type { Worker } from "../support/node/cloudflare/account.ts";
import { command, secretsLeftIn } from "../support/node/cloudflare/command.ts";
import { bindingsOf, changesOf, describeAccount, secretsOf } from "../support/node/cloudflare/inspect.ts";
import { ACCOUNT_ID, type FakeCloudflare, startCloudflare } from "../support/node/cloudflare/server.ts";

const PATIENCE_MS = 120_000;

/** A slash, letters that no host name has, and more than one may have. */
const AWKWARD = `feature/Größe-日本語 "quoted" $(touch x) ${"x".repeat(100)}`;

const namesOf = (branch: string) => previewNames(branch, "edgemeter", ["staging"]);

let cloudflare: FakeCloudflare;
let folder: string;
/** What was there before: production and staging, which no test may change. */
let others: object;

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "edgemeter-preview-"));
});
beforeEach(async () => {
  cloudflare = await startCloudflare();
  for (const name of ["edgemeter", "edgemeter-staging"]) plant(name);
  others = describeAccount(cloudflare.account);
});
afterEach(async () => {
  expect(cloudflare.unknown).toEqual([]);
  expect(secretsLeftIn(folder)).toEqual([]);
  await cloudflare.stop();
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** Puts a Worker that is no preview on the account. */
function plant(name: string): Worker {
  const worker: Worker = {
    name,
    versions: [{ id: `version-of-${name}`, annotations: {}, bindings: [], metadata: {} }],
    secrets: new Map([["SESSION_SECRET", `the secret of ${name}`]]),
    crons: ["* * * * *"],
    tags: [],
    isPublic: true,
    sums: new Map(),
  };
  cloudflare.account.workers.set(name, worker);
  return worker;
}

async function preview(branch: string, ...args: string[]) {
  cloudflare.begin(undefined);
  const url = cloudflare.addressOf(namesOf(branch).worker);
  const run = await command(
    cloudflare,
    folder,
    "preview",
    ["--branch", branch, "--url", url, "--wait", "20", ...args],
    {
      PREVIEWS: "this-account",
    },
  );
  for (const secret of secretsOf(cloudflare.account)) expect(run.all).not.toContain(secret);
  return { ...run, key: /^key +(\S+)$/m.exec(run.stdout)?.[1] };
}

async function remove(branch: string) {
  cloudflare.begin(undefined);
  return command(cloudflare, folder, "preview-delete", ["--branch", branch]);
}

const isConfigured = (branch: string): boolean =>
  existsSync(path.join(import.meta.dirname, "../../.wrangler/previews", namesOf(branch).worker));

test("a preview is made, updated and deleted, with nothing left over and nothing else touched", {
  timeout: PATIENCE_MS,
}, async () => {
  const { worker, queue } = namesOf(AWKWARD);
  const made = await preview(AWKWARD);
  expect(made).toMatchObject({ code: 0, stderr: "" });
  expect(made.stdout).toMatch(new RegExp(`^address {3}http://127\\.0\\.0\\.1:\\d+/${worker}$`, "m"));
  const { databases, queues, workers } = cloudflare.account;
  expect(bindingsOf(cloudflare.account, worker)).toMatchObject({
    PREVIEW_BRANCH: { text: AWKWARD },
    DB: { id: databases.get(worker)?.uuid },
    EVENT_QUEUE: { queue_name: queue("edgemeter-events") },
    SYNC_EVENTS_LIMIT: { namespace_id: expect.not.stringMatching(/^(1001|2001)$/) },
  });
  expect(queues.get(queue("edgemeter-events"))?.consumers).toMatchObject([{ script: worker }]);
  expect(workers.get(worker)?.secrets.has("SESSION_SECRET")).toBe(true);
  const keys = () =>
    databases.get(worker)?.sql.prepare("SELECT hash, livemode FROM api_keys WHERE revoked_at IS NULL").all();
  expect(made.key).toMatch(/^sk_test_/);
  expect(keys()).toEqual([{ hash: hashOf(made.key ?? ""), livemode: 0 }]);

  const again = await preview(AWKWARD);
  expect(again).toMatchObject({ code: 0, key: undefined });
  expect(changesOf(cloudflare)).toEqual([]);

  const updated = await preview(AWKWARD, "--key", "always");
  expect(updated.key).toMatch(/^sk_test_/);
  expect(keys()).toHaveLength(2);

  const deleted = await remove(AWKWARD);
  expect(deleted).toMatchObject({ code: 0, stderr: "" });
  expect(changesOf(cloudflare)).toEqual([
    "DELETE /queues/ID/consumers/ID",
    `DELETE /workers/services/${worker}`,
    "DELETE /queues/ID",
    "DELETE /d1/database/ID",
  ]);
  expect(describeAccount(cloudflare.account)).toEqual(others);
  expect(isConfigured(AWKWARD)).toBe(false);

  const nothing = await remove(AWKWARD);
  expect(nothing).toMatchObject({ code: 0, stdout: expect.stringContaining("nothing to delete") });
  expect(changesOf(cloudflare)).toEqual([]);
});

test("--key never makes none, for a log that anybody can read", { timeout: PATIENCE_MS }, async () => {
  const run = await preview("ci", "--key", "never");
  expect(run.code).toBe(0);
  expect(run.all).not.toMatch(/sk_test_/);
  const database = cloudflare.account.databases.get(namesOf("ci").worker);
  expect(database?.sql.prepare("SELECT id FROM api_keys WHERE revoked_at IS NULL").all()).toEqual([]);
  expect((await remove("ci")).code).toBe(0);
});

test("on the account of production there is none unless PREVIEWS says so", { timeout: PATIENCE_MS }, async () => {
  for (const PREVIEWS of ["", "yes"]) {
    const { code, stderr } = await command(cloudflare, folder, "preview", ["--branch", "a"], { PREVIEWS });
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: expect.stringMatching(/^.*has production.*PREVIEWS=this-account\.\n$/),
    });
  }
  expect(changesOf(cloudflare)).toEqual([]);
});

test("an account of its own needs no such word", { timeout: PATIENCE_MS }, async () => {
  cloudflare.account.workers.delete("edgemeter");
  const url = ["--url", cloudflare.addressOf(namesOf("a").worker), "--wait", "20"];
  const run = await command(cloudflare, folder, "preview", ["--branch", "a", "--key", "never", ...url], {
    PREVIEWS: "",
  });
  expect(run).toMatchObject({ code: 0 });
  expect(cloudflare.account.workers.has(namesOf("a").worker)).toBe(true);
  expect((await remove("a")).code).toBe(0);
});

test.each(["main", "edgemeter-staging"])(
  "'%s' is neither previewed nor deleted as a preview, and nothing is asked",
  { timeout: PATIENCE_MS },
  async (branch) => {
    for (const script of ["preview", "preview-delete"] as const) {
      const { code, stderr } = await command(cloudflare, folder, script, ["--branch", branch]);
      expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining("is no branch to preview") });
    }
    expect(cloudflare.calls).toEqual([]);
  },
);

describe("what has a preview's name but was not made as one is left alone:", () => {
  const BRANCH = "taken";
  const { worker, queue } = namesOf(BRANCH);

  /** Neither command changes anything, and both say whose name is taken. */
  async function isLeftAlone(reason: string): Promise<void> {
    const before = describeAccount(cloudflare.account);
    for (const run of [await preview(BRANCH), await remove(BRANCH)]) {
      expect(run).toMatchObject({ code: 1, stderr: expect.stringContaining(reason) });
      expect(changesOf(cloudflare)).toEqual([]);
    }
    expect(describeAccount(cloudflare.account)).toEqual(before);
  }

  const post = (to: string, body: object) =>
    fetch(`${cloudflare.env.CLOUDFLARE_API_BASE_URL}/accounts/${ACCOUNT_ID}${to}`, {
      method: "POST",
      body: JSON.stringify(body),
    });

  test("a Worker without the mark", { timeout: PATIENCE_MS }, async () => {
    plant(worker);
    await isLeftAlone(`the Worker ${worker} is no preview of '${BRANCH}'`);
  });

  test("a Worker with another branch's mark", { timeout: PATIENCE_MS }, async () => {
    const { versions } = plant(worker);
    versions.unshift({
      id: "version-2",
      annotations: {},
      bindings: [{ type: "plain_text", name: "PREVIEW_BRANCH", text: "another" }],
      metadata: {},
    });
    await isLeftAlone(`the Worker ${worker} is no preview of '${BRANCH}'`);
  });

  test("a database with tables of others", { timeout: PATIENCE_MS }, async () => {
    await post("/d1/database", { name: worker });
    cloudflare.account.databases.get(worker)?.sql.exec("CREATE TABLE precious (id TEXT)");
    await isLeftAlone(`the database ${worker} is no preview of '${BRANCH}'`);
  });

  test("a queue", { timeout: PATIENCE_MS }, async () => {
    await post("/queues", { queue_name: queue("edgemeter-events") });
    const { code, stderr } = await preview(BRANCH);
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining("was not made by a preview") });
    expect(changesOf(cloudflare)).toEqual([]);
    await remove(BRANCH);
    expect(cloudflare.account.queues.has(queue("edgemeter-events"))).toBe(true);
  });
});
