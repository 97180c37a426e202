// `npm run preview` and `npm run preview:delete` as processes of their own, beside production and staging.
import { existsSync } from "node:fs";
import path from "node:path";
import { beforeEach, describe, expect, test } from "vitest";
import { previewNames } from "../../scripts/preview/names.ts";
import { hashOf } from "../../src/catalog/key-hash.ts";
import { aQueue, aVersion, aWorker } from "../support/node/cloudflare/account.ts";
import { useCloudflare } from "../support/node/cloudflare/fixture.ts";
import { bindingsOf, describeAccount } from "../support/node/cloudflare/inspect.ts";
import { ACCOUNT_ID } from "../support/node/cloudflare/server.ts";

/** A slash, letters that no host name has, and more than one may have. */
const AWKWARD = `feature/Größe-日本語 "quoted" $(touch x) ${"x".repeat(100)}`;

const namesOf = (branch: string) => previewNames(branch, "edgemeter", ["staging"]);

const { cloudflare, command, at } = await useCloudflare();
const { databases, queues, workers } = cloudflare.account;

/** What was there before: production and staging, which no test may change. */
let others: object;
beforeEach(() => {
  cloudflare.reset();
  for (const name of ["edgemeter", "edgemeter-staging"]) plant(name);
  others = describeAccount(cloudflare.account);
});

/** Puts a Worker on the account that `npm run preview` did not make. */
function plant(name: string, vars: Readonly<Record<string, string>> = {}): void {
  const secrets = new Map([["SESSION_SECRET", `the secret of ${name}`]]);
  workers.set(name, aWorker(name, { versions: [aVersion(vars)], secrets, isPublic: true }));
}

async function preview(branch: string, ...args: string[]) {
  const options = ["--branch", branch, ...at(namesOf(branch).worker), ...args];
  const run = await command("preview", options, { PREVIEWS: "this-account" });
  return { ...run, key: /^key +(\S+)$/m.exec(run.stdout)?.[1] };
}

const remove = (branch: string) => command("preview:delete", ["--branch", branch]);

const isConfigured = (branch: string): boolean =>
  existsSync(path.join(import.meta.dirname, "../../.wrangler/previews", namesOf(branch).worker));

test("a preview is made, updated and deleted, with nothing left over and nothing else touched", async () => {
  const { worker, queue } = namesOf(AWKWARD);
  const made = await preview(AWKWARD);
  expect(made).toMatchObject({ code: 0, stderr: "" });
  expect(made.stdout).toMatch(new RegExp(`^address {3}http://127\\.0\\.0\\.1:\\d+/${worker}$`, "m"));
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
  expect(again).toMatchObject({ code: 0, key: undefined, changes: [] });

  const updated = await preview(AWKWARD, "--key", "always");
  expect(updated.key).toMatch(/^sk_test_/);
  expect(keys()).toHaveLength(2);

  const deleted = await remove(AWKWARD);
  expect(deleted).toMatchObject({ code: 0, stderr: "" });
  expect(deleted.changes).toEqual([
    "DELETE /queues/ID/consumers/ID",
    `DELETE /workers/services/${worker}`,
    "DELETE /queues/ID",
    "DELETE /d1/database/ID",
  ]);
  expect(describeAccount(cloudflare.account)).toEqual(others);
  expect(isConfigured(AWKWARD)).toBe(false);

  const nothing = await remove(AWKWARD);
  expect(nothing).toMatchObject({ code: 0, stdout: expect.stringContaining("nothing to delete"), changes: [] });
});

test("--key never makes none, for a log that anybody can read", async () => {
  const run = await preview("ci", "--key", "never");
  expect(run.code).toBe(0);
  expect(run.all).not.toMatch(/sk_test_/);
  const database = databases.get(namesOf("ci").worker);
  expect(database?.sql.prepare("SELECT id FROM api_keys WHERE revoked_at IS NULL").all()).toEqual([]);
  expect((await remove("ci")).code).toBe(0);
});

test("on the account of production there is none unless PREVIEWS says so", async () => {
  for (const PREVIEWS of ["", "yes"]) {
    const { code, stderr, changes } = await command("preview", ["--branch", "a"], { PREVIEWS });
    const refusal = expect.stringMatching(/^.*has production.*PREVIEWS=this-account\.\n$/);
    expect({ code, stderr, changes }).toEqual({ code: 1, stderr: refusal, changes: [] });
  }
});

test("an account of its own needs no such word", async () => {
  workers.delete("edgemeter");
  const options = ["--branch", "a", "--key", "never", ...at(namesOf("a").worker)];
  expect(await command("preview", options, { PREVIEWS: "" })).toMatchObject({ code: 0 });
  expect(workers.has(namesOf("a").worker)).toBe(true);
  expect((await remove("a")).code).toBe(0);
});

test.each(["main", "edgemeter-staging"])(
  "'%s' is neither previewed nor deleted as a preview, and nothing is asked",
  async (branch) => {
    for (const script of ["preview", "preview:delete"]) {
      const { code, stderr } = await command(script, ["--branch", branch]);
      expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining("is no branch to preview") });
    }
    expect(cloudflare.calls).toEqual([]);
  },
);

describe("what has a preview's name but was not made as one is left alone:", () => {
  const BRANCH = "taken";
  const { worker, queue } = namesOf(BRANCH);

  const makeDatabase = () =>
    fetch(`${cloudflare.env.CLOUDFLARE_API_BASE_URL}/accounts/${ACCOUNT_ID}/d1/database`, {
      method: "POST",
      body: JSON.stringify({ name: worker }),
    });

  test.each<[string, string, () => unknown]>([
    ["a Worker without the mark", "Worker", () => plant(worker)],
    ["a Worker with another branch's mark", "Worker", () => plant(worker, { PREVIEW_BRANCH: "another" })],
    [
      "a database with tables of others",
      "database",
      async () => {
        await makeDatabase();
        databases.get(worker)?.sql.exec("CREATE TABLE precious (id TEXT)");
      },
    ],
  ])("%s", async (_, kind, take) => {
    await take();
    const before = describeAccount(cloudflare.account);
    const stderr = expect.stringContaining(`the ${kind} ${worker} is no preview of '${BRANCH}'`);
    for (const run of [await preview(BRANCH), await remove(BRANCH)]) {
      expect(run).toMatchObject({ code: 1, stderr, changes: [] });
    }
    expect(describeAccount(cloudflare.account)).toEqual(before);
  });

  test("a queue", async () => {
    const name = queue("edgemeter-events");
    queues.set(name, { ...aQueue(name, worker), consumers: [] });
    const stderr = expect.stringContaining("was not made by a preview");
    expect(await preview(BRANCH)).toMatchObject({ code: 1, stderr, changes: [] });
    await remove(BRANCH);
    expect(queues.has(name)).toBe(true);
  });
});
