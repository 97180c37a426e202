// `npm run preview` and `npm run preview:delete` as processes of their own, beside production and staging.
import { beforeEach, describe, expect, test } from "vitest";
import { previewNames } from "../../scripts/preview/names.ts";
import { hashOf } from "../../src/catalog/key-hash.ts";
import { aDatabase, aQueue, aVersion, aWorker } from "../support/node/cloudflare/account.ts";
import { useCloudflare } from "../support/node/cloudflare/fixture.ts";
import { deployed, describeAccount, keysIn } from "../support/node/cloudflare/inspect.ts";

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

test("a preview is made, updated and deleted, with nothing left over and nothing else touched", async () => {
  const { worker, own } = namesOf(AWKWARD);
  const made = await preview(AWKWARD);
  expect(made).toMatchObject({ code: 0, stderr: "" });
  expect(made.stdout).toMatch(new RegExp(`^address {3}http://127\\.0\\.0\\.1:\\d+/${worker}$`, "m"));
  expect(deployed(cloudflare.account, worker).bindings).toMatchObject({
    PREVIEW_BRANCH: { text: AWKWARD },
    DB: { id: databases.get(worker)?.uuid },
    EVENTS_0: { id: databases.get(own("edgemeter-events-0"))?.uuid },
    TEST_EVENTS: { id: databases.get(own("edgemeter-test-events"))?.uuid },
    EVENT_QUEUE: { queue_name: own("edgemeter-events") },
    TEST_EVENT_QUEUE: { queue_name: own("edgemeter-test-events") },
    SYNC_EVENTS_LIMIT: { namespace_id: expect.not.stringMatching(/^(1001|2001)$/) },
  });
  expect(made.stdout).toContain("bucket    none: events stay in D1");
  expect(deployed(cloudflare.account, worker).bindings).not.toHaveProperty("ARCHIVE");
  expect(queues.get(own("edgemeter-test-events"))?.consumers).toMatchObject([{ script: worker }]);
  expect(workers.get(worker)?.secrets.has("SESSION_SECRET")).toBe(true);
  const keys = () => keysIn(deployed(cloudflare.account, worker).database, "hash");
  expect(made.key).toMatch(/^sk_test_/);
  expect(keys()).toEqual([hashOf(made.key ?? "")]);

  const again = await preview(AWKWARD);
  expect(again).toMatchObject({ code: 0, key: undefined, changes: [] });

  const updated = await preview(AWKWARD, "--key", "always");
  expect(updated.key).toMatch(/^sk_test_/);
  expect(keys()).toHaveLength(2);

  const deleted = await remove(AWKWARD);
  expect(deleted).toMatchObject({ code: 0, stderr: "" });
  expect(deleted.changes).toEqual([
    ...["DELETE /queues/ID/consumers/ID", "DELETE /queues/ID/consumers/ID"],
    `DELETE /workers/services/${worker}`,
    ...["DELETE /queues/ID", "DELETE /queues/ID"],
    ...["DELETE /d1/database/ID", "DELETE /d1/database/ID", "DELETE /d1/database/ID"],
  ]);
  expect(describeAccount(cloudflare.account)).toEqual(others);

  const nothing = await remove(AWKWARD);
  expect(nothing).toMatchObject({ code: 0, stdout: expect.stringContaining("nothing to delete"), changes: [] });
});

test("--key never makes none, for a log that anybody can read", async () => {
  const run = await preview("ci", "--key", "never");
  expect(run.code).toBe(0);
  expect(run.all).not.toMatch(/sk_test_/);
  expect(keysIn(deployed(cloudflare.account, namesOf("ci").worker).database)).toEqual([]);
  expect((await remove("ci")).code).toBe(0);
});

test("on the account of production there is none unless PREVIEWS says so", async () => {
  const refusal = expect.stringMatching(/^.*has production.*PREVIEWS=this-account\.\n$/);
  for (const PREVIEWS of ["", "yes"]) {
    const refused = await command("preview", ["--branch", "a"], { PREVIEWS });
    expect(refused).toMatchObject({ code: 1, stderr: refusal, changes: [] });
  }
  // An account of its own needs no such word.
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
  const { worker, own } = namesOf(BRANCH);
  const name = own("edgemeter-events");
  const events = own("edgemeter-events-0");
  const plantDatabase = (taken: string) => () =>
    databases.set(taken, aDatabase(taken, "CREATE TABLE precious (id TEXT)"));

  test.each<[string, string, () => unknown]>([
    ["a Worker without the mark", `the Worker ${worker} is no preview of`, () => plant(worker)],
    ["another branch's Worker", `the Worker ${worker} is no preview of`, () => plant(worker, { PREVIEW_BRANCH: "b" })],
    ["a database with tables of others", `the database ${worker} is no preview of`, plantDatabase(worker)],
    ["an events database", `the database ${events} was not made by a preview`, plantDatabase(events)],
    ["a queue", `the queue ${name} was not made by a preview`, () => queues.set(name, aQueue(name))],
  ])("%s", async (what, problem, take) => {
    take();
    const before = describeAccount(cloudflare.account);
    const refused = { code: 1, stderr: expect.stringContaining(problem), changes: [] };
    expect(await preview(BRANCH)).toMatchObject(refused);
    expect(await remove(BRANCH)).toMatchObject(
      what.startsWith("a queue") || what.startsWith("an events") ? { code: 0, changes: [] } : refused,
    );
    expect(describeAccount(cloudflare.account)).toEqual(before);
  });
});
