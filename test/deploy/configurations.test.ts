// What a user may change in wrangler.toml before the first deployment, with the real wrangler.
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { afterAll, beforeEach, describe, expect, test } from "vitest";
import { CommandError } from "../../scripts/command-error.ts";
import { aQueue } from "../support/node/cloudflare/account.ts";
import { useCloudflare } from "../support/node/cloudflare/fixture.ts";
import { bindingsOf, changesOf } from "../support/node/cloudflare/inspect.ts";
import { operationsOn } from "../support/node/cloudflare/operations.ts";
import { ACCOUNT_ID } from "../support/node/cloudflare/server.ts";

const root = path.join(import.meta.dirname, "../..");
const CONFIG = await readFile(path.join(root, "wrangler.toml"), "utf8");
const DOMAIN = 'workers_dev = false\nroutes = [{ pattern = "meter.example.com", custom_domain = true }]\n';

const { cloudflare, folder, command, at } = await useCloudflare();
const operations = await operationsOn(cloudflare, folder);
const files = path.join(root, ".wrangler/tests", path.basename(folder));
await mkdir(files, { recursive: true });

beforeEach(() => cloudflare.reset());
afterAll(() => rm(files, { recursive: true, force: true }));

/** wrangler.toml with a change, as a user makes it: what the comments of it offer. */
async function configuration(changes: {
  top?: string;
  staging?: string;
  vars?: Record<string, string>;
}): Promise<string> {
  const file = path.join(files, "wrangler.toml");
  const main = `main = ${JSON.stringify(path.join(root, "src/index.ts"))}`;
  let text = CONFIG.replace('main = "src/index.ts"', `${main}\n${changes.top ?? ""}`);
  text = text.replace("[env.staging]\n", `[env.staging]\n${changes.staging ?? ""}\n`);
  for (const [name, value] of Object.entries(changes.vars ?? {})) {
    text = text.replace(new RegExp(`^${name} = ".*"`, "m"), `${name} = "${value}"`);
  }
  await writeFile(file, text);
  return file;
}

describe("a custom domain without workers.dev", () => {
  test("is attached by the deployment, and a second run changes nothing", async () => {
    const file = await configuration({ top: DOMAIN });
    await operations.deployFile(file);
    const { domains, workers } = cloudflare.account;
    expect([...domains]).toEqual([["meter.example.com", "edgemeter"]]);
    expect(workers.get("edgemeter")?.isPublic).toBe(false);
    cloudflare.begin(undefined);
    await operations.deployFile(file);
    expect(changesOf(cloudflare)).toEqual([]);

    domains.clear();
    expect(await operations.deployFile(file)).toContain("Worker    deploy edgemeter: a domain of it is not attached");
    expect(domains.size).toBe(1);
  });

  test("is not handed to an environment, which would inherit it", async () => {
    const file = await configuration({ top: DOMAIN });
    const { targetOf } = await import("../../scripts/deploy/target.ts");
    await expect(targetOf("staging", file)).rejects.toThrow("would take production's domain meter.example.com");
  });
});

describe("database, queue and Worker are on one account:", () => {
  test("CLOUDFLARE_ACCOUNT_ID's, though wrangler by itself takes the file's first", async () => {
    const other = ACCOUNT_ID.replace("1", "2");
    await operations.deployFile(await configuration({ top: `account_id = "${other}"` }));
    expect(cloudflare.calls.filter(({ path: called }) => called.includes(other))).toEqual([]);
    expect(cloudflare.account.workers.size).toBe(1);
  });

  test("CLOUDFLARE_ACCOUNT_ID's, though an environment has an account of its own", async () => {
    const other = ACCOUNT_ID.replace("1", "2");
    const { targetOf } = await import("../../scripts/deploy/target.ts");
    const { withConfig } = await import("../../scripts/deploy/config.ts");
    const target = await targetOf("staging", await configuration({ staging: `account_id = "${other}"` }));
    expect(target.account).toBe(other);
    const found = { account: ACCOUNT_ID, database: "d1", vars: {} };
    await withConfig(target, found, async (config) => {
      const { unstable_readConfig: readConfig } = await import("wrangler");
      const { account_id } = readConfig({ config, env: "staging" }, { hideWarnings: true });
      expect(account_id).toBe(ACCOUNT_ID);
    });
  });

  test("the only one of the credentials, which wrangler is told", async () => {
    const { code, stdout } = await command("deploy", at("edgemeter"), { CLOUDFLARE_ACCOUNT_ID: "" });
    expect({ code, stdout }).toEqual({ code: 0, stdout: expect.stringContaining(`on account ${ACCOUNT_ID}`) });
    expect(cloudflare.calls.filter(({ path: called }) => called === "/accounts")).toHaveLength(1);
  });
});

test("JURISDICTION keeps the database and the objects within it, and cannot be changed later", async () => {
  await operations.deployFile(await configuration({ vars: { JURISDICTION: "eu" } }));
  const { databases } = cloudflare.account;
  expect(databases.get("edgemeter")?.jurisdiction).toBe("eu");
  expect(bindingsOf(cloudflare.account, "edgemeter").JURISDICTION?.text).toBe("eu");
  cloudflare.begin(undefined);
  const changed = operations.deployFile(await configuration({}));
  await expect(changed).rejects.toThrow('was made with JURISDICTION = "eu", which cannot be changed to ""');
  const outside = operations.deployFile(await configuration({ vars: { JURISDICTION: "eu", LOCATION_HINT: "wnam" } }));
  await expect(outside).rejects.toThrow('LOCATION_HINT = "wnam" is outside of JURISDICTION = "eu"');
  expect(changesOf(cloudflare)).toEqual([]);
});

test("another EVENT_LOG_SHARDS than the data was started with is refused before anything is changed", async () => {
  await operations.deployFile(await configuration({}));
  // As the Worker does with its first event.
  const { sql } = cloudflare.account.databases.get("edgemeter") ?? {};
  sql?.exec("INSERT INTO deployment (name, value) VALUES ('event_log_shards', '4'), ('jurisdiction', '')");
  cloudflare.begin(undefined);
  await operations.deployFile(await configuration({}));
  const changed = operations.deployFile(await configuration({ vars: { EVENT_LOG_SHARDS: "8" } }));
  await expect(changed).rejects.toThrow('started with EVENT_LOG_SHARDS = "4", which cannot be changed to "8"');
  expect(changesOf(cloudflare)).toEqual([]);
});

test.each([
  ["JURISDICTION", "us"],
  ["LOCATION_HINT", "mars"],
  ["EVENT_LOG_SHARDS", "0"],
])("a wrong value of %s is refused in one line, before anything is asked", async (name, value) => {
  const problem = operations.deployFile(await configuration({ vars: { [name]: value } }));
  await expect(problem).rejects.toThrow(CommandError);
  await expect(problem).rejects.toThrow(new RegExp(`^wrangler\\.toml: vars\\.${name}: .+$`));
  expect(cloudflare.calls).toEqual([]);
});

test("a D1 without jsonb_each is deployed to, which is said once", async () => {
  const file = await configuration({});
  await operations.deployFile(file);
  const database = cloudflare.account.databases.get("edgemeter");
  if (database !== undefined) database.lacks = ["jsonb_each"];
  const said = await operations.deployFile(file);
  expect(said.filter((line) => line.includes("jsonb_each"))).toHaveLength(1);
});

test("a queue that another Worker consumes is refused before anything is changed", async () => {
  cloudflare.account.queues.set("edgemeter-events", aQueue("edgemeter-events", "another-worker"));
  for (const args of [["--dry-run"], []]) {
    const { code, stderr, changes } = await command("deploy", args);
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining("(the Worker another-worker)") });
    expect(changes).toEqual([]);
  }
});

test("--dry-run tells what would be done, and only reads", async () => {
  const { code, stdout } = await command("deploy", ["--dry-run"]);
  expect(code).toBe(0);
  for (const part of [
    ...["make edgemeter", "make edgemeter-events", "make a SESSION_SECRET", "deploy edgemeter", "Nothing was changed."],
    "address   https://edgemeter.example-account.workers.dev",
  ]) {
    expect(stdout).toContain(part);
  }
  expect(new Set(cloudflare.calls.map(({ method }) => method))).toEqual(new Set(["GET"]));
});
