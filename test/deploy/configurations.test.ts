// What wrangler.toml says, and what a user may change in it before the first deployment, with the real wrangler.
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { afterAll, beforeEach, describe, expect, test } from "vitest";
import { unstable_readConfig as readConfig, experimental_readRawConfig as readRawConfig } from "wrangler";
import { CommandError } from "../../scripts/command-error.ts";
import { READ_SIZES } from "../../scripts/growth.ts";
import { readSteps } from "../../src/catalog/deployment.ts";
import { aQueue } from "../support/node/cloudflare/account.ts";
import { useCloudflare } from "../support/node/cloudflare/fixture.ts";
import { changesOf, deployed } from "../support/node/cloudflare/inspect.ts";
import { operationsOn } from "../support/node/cloudflare/operations.ts";
import { ACCOUNT_ID } from "../support/node/cloudflare/server.ts";

const root = path.join(import.meta.dirname, "../..");
const CONFIG = await readFile(path.join(root, "wrangler.toml"), "utf8");
const DOMAIN = 'workers_dev = false\nroutes = [{ pattern = "meter.example.com", custom_domain = true }]\n';

const { cloudflare, folder, command, at } = await useCloudflare();
const operations = await operationsOn(cloudflare, folder);
// wrangler.ts keeps the environment that it is loaded in: the one that `operationsOn` has prepared.
const { runWrangler } = await import("../../scripts/wrangler.ts");
const { growTo } = await import("../../scripts/deploy/grow.ts");
const { targetOf } = await import("../../scripts/deploy/target.ts");
const files = path.join(root, ".wrangler/tests", path.basename(folder));
await mkdir(files, { recursive: true });

beforeEach(() => {
  cloudflare.reset();
  cloudflare.hasR2 = true;
});
afterAll(() => rm(files, { recursive: true, force: true }));

/** Deploys wrangler.toml, with a change as its comments offer it; gives what was said. */
const deploy = async (...change: Parameters<typeof configuration>): Promise<readonly string[]> => {
  cloudflare.begin(undefined);
  return operations.deployFile(await configuration(...change));
};

/** Writes wrangler.toml with other `vars`, and lines at the beginning of its top level or of [env.staging]. */
async function configuration(vars: Record<string, string> = {}, top = "", staging = ""): Promise<string> {
  const file = path.join(files, "wrangler.toml");
  const main = `main = ${JSON.stringify(path.join(root, "src/index.ts"))}`;
  let text = CONFIG.replace('main = "src/index.ts"', `${main}\n${top}`);
  text = text.replace("[env.staging]\n", `[env.staging]\n${staging}\n`);
  for (const [name, value] of Object.entries(vars)) {
    text = text.replace(new RegExp(`^${name} = ".*"`, "m"), `${name} = "${value}"`);
  }
  await writeFile(file, text);
  return file;
}

test("staging has all that production has, with the same settings: it inherits nothing of it", () => {
  const { rawConfig } = readRawConfig({ config: path.join(root, "wrangler.toml") });
  const { staging, ...others } = rawConfig.env ?? {};
  expect(others).toEqual({});
  const own = ["vars", "d1_databases", "r2_buckets", "durable_objects", "queues", "ratelimits"] as const;
  expect(Object.keys(staging ?? {}).sort()).toEqual(["name", ...own].sort());
  const mayDiffer = [
    "database_name",
    "bucket_name",
    "queue",
    "namespace_id",
    "LOCATION_HINT",
    "EVENT_LOG_SHARDS",
    "TEST_EVENT_LOG_SHARDS",
  ];
  const shape = (part: unknown) => JSON.stringify(part, (key, value) => (mayDiffer.includes(key) ? "…" : value), 2);
  for (const part of own) expect(shape(staging?.[part]), part).toEqual(shape(rawConfig[part]));
});

describe("a custom domain without workers.dev", () => {
  test("is attached by the deployment, and a second run changes nothing", async () => {
    await deploy({}, DOMAIN);
    const { domains, workers } = cloudflare.account;
    expect([...domains]).toEqual([["meter.example.com", "edgemeter"]]);
    expect(workers.get("edgemeter")?.isPublic).toBe(false);
    await deploy({}, DOMAIN);
    expect(changesOf(cloudflare)).toEqual([]);

    domains.clear();
    expect(await deploy({}, DOMAIN)).toContain("Worker    deploy edgemeter: a domain of it is not attached");
    expect(domains.size).toBe(1);
  });

  test("is not handed to an environment, which would inherit it", async () => {
    const problem = targetOf("staging", await configuration({}, DOMAIN));
    await expect(problem).rejects.toThrow("would take production's domain meter.example.com");
  });
});

describe("databases, queues and Worker are on one account:", () => {
  const other = ACCOUNT_ID.replace("1", "2");

  test("CLOUDFLARE_ACCOUNT_ID's, though wrangler by itself takes the file's first", async () => {
    await deploy({}, `account_id = "${other}"`);
    expect(cloudflare.calls.filter(({ path: called }) => called.includes(other))).toEqual([]);
    expect(cloudflare.account.workers.size).toBe(1);
  });

  test("CLOUDFLARE_ACCOUNT_ID's, though an environment has an account of its own", async () => {
    const { configWith, withConfigFile } = await import("../../scripts/deploy/config.ts");
    const target = await targetOf("staging", await configuration({}, "", `account_id = "${other}"`));
    expect(target.account).toBe(other);
    const config = await configWith(target, { account: ACCOUNT_ID, databases: new Map(), vars: {} });
    await withConfigFile("test", config, async (file) => {
      expect(readConfig({ config: file, env: "staging" }, { hideWarnings: true }).account_id).toBe(ACCOUNT_ID);
    });
  });

  test("the only one of the credentials, which wrangler is told", async () => {
    const { code, stdout } = await command("deploy", at("edgemeter"), { CLOUDFLARE_ACCOUNT_ID: "" });
    expect({ code, stdout }).toEqual({ code: 0, stdout: expect.stringContaining(`on account ${ACCOUNT_ID}`) });
    expect(cloudflare.calls.filter(({ path: called }) => called === "/accounts")).toHaveLength(1);
  });
});

test("JURISDICTION keeps the databases and the objects within it", async () => {
  await deploy({ JURISDICTION: "eu" });
  const { bindings } = deployed(cloudflare.account);
  const { databases, buckets } = cloudflare.account;
  expect([...databases.values()].map(({ jurisdiction }) => jurisdiction)).toEqual(["eu", "eu", "eu"]);
  expect([...buckets.values()]).toEqual([{ name: "edgemeter-archive", location: undefined, jurisdiction: "eu" }]);
  expect(bindings.ARCHIVE).toMatchObject({ bucket_name: "edgemeter-archive", jurisdiction: "eu" });
  expect(bindings.JURISDICTION?.text).toBe("eu");
  await deploy({ JURISDICTION: "eu" });
  expect(changesOf(cloudflare)).toEqual([]);
});

describe("the archive's bucket", () => {
  const BLOCK = /^\[\[r2_buckets\]\]\nbinding = "ARCHIVE"\nbucket_name = "edgemeter-archive"\n/m;

  /** Deploys wrangler.toml with other lines instead of the bucket's block. */
  async function deployWith(block: string, vars: Record<string, string> = {}): Promise<readonly string[]> {
    const file = await configuration(vars);
    await writeFile(file, (await readFile(file, "utf8")).replace(BLOCK, block));
    cloudflare.begin(undefined);
    return operations.deployFile(file);
  }
  const named = (name: string, more = ""): string =>
    `[[r2_buckets]]\nbinding = "ARCHIVE"\nbucket_name = "${name}"\n${more}`;

  test("is made in the region of LOCATION_HINT, once", async () => {
    const said = await deploy({ LOCATION_HINT: "sam" });
    expect(said).toContain("bucket    make edgemeter-archive, in enam");
    expect(cloudflare.account.buckets.get("edgemeter-archive")?.location).toBe("enam");
    expect(await deploy({ LOCATION_HINT: "sam" })).toContain("bucket    is there");
    expect(changesOf(cloudflare)).toEqual([]);
  });

  test("of another name is made, and the Worker bound to it; the one before is left", async () => {
    await deploy();
    const said = await deployWith(named("renamed"));
    expect(said).toContain("bucket    make renamed");
    expect(said).toContain("Worker    deploy edgemeter: ARCHIVE is another bucket than renamed");
    expect([...cloudflare.account.buckets.keys()]).toEqual(["edgemeter-archive", "renamed"]);
    expect(deployed(cloudflare.account).bindings.ARCHIVE?.bucket_name).toBe("renamed");
  });

  test("that is there already is used, whoever made it", async () => {
    const bucket = { name: "edgemeter-archive", location: "oc", jurisdiction: "default" };
    cloudflare.account.buckets.set(bucket.name, bucket);
    expect(await deploy()).toContain("bucket    is there");
    expect([...cloudflare.account.buckets.values()]).toEqual([bucket]);
    expect(deployed(cloudflare.account).bindings.ARCHIVE?.bucket_name).toBe(bucket.name);
  });

  test("without its block is none: events stay in D1, also on an account without R2", async () => {
    cloudflare.hasR2 = false;
    const said = await deployWith("");
    expect(said.filter((line) => line.includes("bucket"))).toEqual(["bucket    none: events stay in D1"]);
    expect(deployed(cloudflare.account).bindings).not.toHaveProperty("ARCHIVE");
    expect(cloudflare.calls.filter(({ path: called }) => called.startsWith("/r2/"))).toEqual([]);
  });

  test("whose block was deleted is unbound and left", async () => {
    await deploy();
    await deployWith("");
    expect(deployed(cloudflare.account).bindings).not.toHaveProperty("ARCHIVE");
    expect(cloudflare.account.buckets.size).toBe(1);
  });

  test.each([[["--dry-run"]], [[]]])(
    "on an account without R2 is refused, and nothing is changed: %j",
    async (args) => {
      cloudflare.hasR2 = false;
      const { code, stderr, changes } = await command("deploy", args);
      const where = `enable it at https://dash.cloudflare.com/${ACCOUNT_ID}/r2/overview, or delete the block of ARCHIVE`;
      expect({ code, stderr, changes }).toEqual({ code: 1, stderr: expect.stringContaining(where), changes: [] });
      expect(stderr.trim().split("\n")).toHaveLength(1);
    },
  );

  test("may have a jurisdiction of its own, but none outside of JURISDICTION", async () => {
    const own = named("edgemeter-archive", 'jurisdiction = "us"\n');
    await deployWith(own);
    expect(cloudflare.account.buckets.get("edgemeter-archive")?.jurisdiction).toBe("us");
    await deployWith(own);
    expect(changesOf(cloudflare)).toEqual([]);
    const outside = 'the bucket edgemeter-archive with jurisdiction = "us" is outside of JURISDICTION = "eu"';
    await expect(deployWith(own, { JURISDICTION: "eu" })).rejects.toThrow(outside);
    expect(cloudflare.calls).toEqual([]);
  });
});

test.each<[string, Record<string, string>, Record<string, string>]>([
  ['made with JURISDICTION = "eu", which cannot be changed to ""', { JURISDICTION: "eu" }, {}],
  ['LOCATION_HINT = "wnam" is outside of JURISDICTION = "eu"', {}, { JURISDICTION: "eu", LOCATION_HINT: "wnam" }],
  ['has 4 shards, and EVENT_LOG_SHARDS = "2": it grows only', {}, { EVENT_LOG_SHARDS: "2" }],
])("is refused before anything is changed: %s", async (problem, before, after) => {
  await deploy(before);
  // As the Worker does with its first event.
  const { sql } = deployed(cloudflare.account);
  sql.exec("INSERT INTO deployment (name, value) VALUES ('event_log_shards', '[[4,0]]')");
  await deploy(before);
  await expect(deploy(after)).rejects.toThrow(problem);
  expect(changesOf(cloudflare)).toEqual([]);
});

describe("more events databases", () => {
  const header = (env: string): string => `[[${env === "" ? "" : `env.${env}.`}d1_databases]]`;

  test.each(["", "staging"])("are written after the last one of '%s', and nothing else is changed", async (env) => {
    const file = await configuration({}, "# EVENTS_9");
    const before = (await readFile(file, "utf8")).split("\n");
    expect(await growTo(4, env, file)).toBe(3);
    const after = (await readFile(file, "utf8")).split("\n");
    const at = after.indexOf('binding = "EVENTS_1"') - 1;
    const { worker, databases } = await targetOf(env, file);
    const added = [1, 2, 3].flatMap((place) => [
      ...[header(env), `binding = "EVENTS_${place}"`, `database_name = "${worker}-events-${place}"`],
      ...['migrations_dir = "src/migrations/events"', ""],
    ]);
    expect(after.slice(at, at + added.length)).toEqual(added);
    expect(after.toSpliced(at, added.length)).toEqual(before);
    const bound = ["DB", "EVENTS_0", "EVENTS_1", "EVENTS_2", "EVENTS_3", "TEST_EVENTS"];
    expect(databases.map(({ binding }) => binding)).toEqual(bound);

    expect(await growTo(4, env, file)).toBe(0);
    expect(await readFile(file, "utf8")).toBe(after.join("\n"));
    await expect(growTo(3, env, file)).rejects.toThrow("there are 4 already");
  });

  test("and shards are recorded by the deployment that passed its self-test, once; fewer are refused", async () => {
    await deploy();
    const { sql } = deployed(cloudflare.account);
    // As the Worker does with its first event.
    const FIRST = "('databases', '[[1,0]]'), ('event_log_shards', '[[4,0]]')";
    sql.exec(`INSERT INTO deployment (name, value) VALUES ${FIRST}`);
    const recorded = () =>
      sql
        .prepare(READ_SIZES)
        .all()
        .map(({ value }) => readSteps(String(value)));
    const counts = () =>
      recorded()
        .map((steps) => steps.map(([count]) => count).join())
        .join("; ");
    const file = await configuration({ EVENT_LOG_SHARDS: "16" });
    await growTo(3, "", file);
    cloudflare.countsEvents = false;
    await expect(operations.deployFile(file)).rejects.toThrow("the self-test failed");
    expect(counts()).toBe("1; 4");

    cloudflare.countsEvents = true;
    const begin = Date.now();
    cloudflare.begin(undefined);
    const said = await operations.deployFile(file);
    expect(said).toContain("events    go to 3 databases, 15 minutes after that");
    expect(said).toContain("live log  grows from 4 to 16 shards after that, and cannot shrink again");
    expect(counts()).toBe("1,3; 4,16");
    const [databases, shards] = recorded();
    expect(databases?.at(-1)?.[1]).toBeGreaterThanOrEqual(begin + 15 * 60_000);
    expect(shards?.at(-1)?.[1]).toBeLessThanOrEqual(Date.now());
    const { bindings } = deployed(cloudflare.account);
    for (const place of [1, 2]) {
      const database = cloudflare.account.databases.get(`edgemeter-events-${place}`);
      expect(database?.sql.prepare("SELECT * FROM sums").all()).toEqual([]);
      expect(bindings[`EVENTS_${place}`]?.id).toBe(database?.uuid);
    }

    // The last call is that of the record. It is made once, whatever comes of it.
    const last = cloudflare.calls.length - 1;
    for (const kind of ["refused", "unanswered"] as const) {
      sql.exec(`REPLACE INTO deployment (name, value) VALUES ${FIRST}, ('self_test', 'another')`);
      cloudflare.begin({ from: last, kind });
      await expect(operations.deployFile(file)).rejects.toThrow(CommandError);
      expect(counts()).toBe(kind === "refused" ? "1; 4" : "1,3; 4,16");
      cloudflare.begin(undefined);
      await operations.deployFile(file);
      expect(counts()).toBe("1,3; 4,16");
    }
    await expect(deploy({ EVENT_LOG_SHARDS: "16" })).rejects.toThrow(
      "events are in 3 databases, and wrangler.toml has 1: write EVENTS_1 to EVENTS_2",
    );
    expect(changesOf(cloudflare)).toEqual([]);
  });

  test.each([
    ["a gap", "EVENTS_0", "EVENTS_1"],
    ["one without a binding of ours", "TEST_EVENTS", "OTHER"],
    ["two bindings of one database", "edgemeter-events-0", "edgemeter-test-events"],
  ])("with %s are refused before anything is asked", async (_, there, instead) => {
    const file = await configuration();
    await writeFile(file, (await readFile(file, "utf8")).replace(`"${there}"`, `"${instead}"`));
    cloudflare.begin(undefined);
    await expect(operations.deployFile(file)).rejects.toThrow(
      /^wrangler\.toml: d1_databases: there must be DB, EVENTS_0, /,
    );
    expect(cloudflare.calls).toEqual([]);
  });
});

test.each([
  ["JURISDICTION", "us"],
  ["LOCATION_HINT", "mars"],
  ["EVENT_LOG_SHARDS", "0"],
  ["TEST_EVENT_LOG_SHARDS", "1.5"],
])("a wrong value of %s is refused in one line, before anything is asked", async (name, value) => {
  const problem = deploy({ [name]: value });
  await expect(problem).rejects.toThrow(CommandError);
  await expect(problem).rejects.toThrow(new RegExp(`^wrangler\\.toml: vars\\.${name}: .+$`));
  expect(cloudflare.calls).toEqual([]);
});

test.each(["", "staging"])("wrangler deploys '%s' of it without a warning", async (env) => {
  const { ok, stdout, stderr } = await runWrangler(["deploy", "--dry-run", "--env", env]);
  expect({ ok, stderr }).toEqual({ ok: true, stderr: "" });
  for (const binding of [
    "DB",
    "EVENTS_0",
    "TEST_EVENTS",
    "ARCHIVE",
    "EVENT_QUEUE",
    "TEST_EVENT_QUEUE",
    "CUSTOMER_METER",
    "EVENT_LOG",
    "SYNC_EVENTS_LIMIT",
  ]) {
    expect(stdout).toContain(`env.${binding}`);
  }
});

test.each([[["--dry-run"]], [[]]])(
  "a queue that another Worker consumes is refused before anything is changed: %j",
  async (args) => {
    cloudflare.account.queues.set("edgemeter-events", aQueue("edgemeter-events", "another-worker"));
    const { code, stderr, changes } = await command("deploy", args);
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining("(the Worker another-worker)") });
    expect(changes).toEqual([]);
  },
);

test("a D1 without jsonb_each is deployed to, which is said once", async () => {
  await deploy();
  const events = cloudflare.account.databases.get("edgemeter-events-0");
  if (events !== undefined) events.lacks = ["jsonb_each"];
  const said = await deploy();
  expect(said.filter((line) => line.includes("jsonb_each"))).toHaveLength(1);
});

test("--dry-run tells what would be done, and only reads", async () => {
  const { code, stdout } = await command("deploy", ["--dry-run"]);
  expect(code).toBe(0);
  const databases = "make edgemeter, edgemeter-events-0, edgemeter-test-events";
  const tables = "apply control/0001_initial.sql, events/0001_initial.sql";
  const made = [
    databases,
    tables,
    "make edgemeter-archive",
    "make edgemeter-events, edgemeter-test-events",
    "make a SESSION_SECRET",
    "deploy edgemeter",
  ];
  const address = "address   https://edgemeter.example-account.workers.dev";
  for (const part of [...made, address, "Nothing was changed."]) expect(stdout).toContain(part);
  expect(new Set(cloudflare.calls.map(({ method }) => method))).toEqual(new Set(["GET"]));
});
