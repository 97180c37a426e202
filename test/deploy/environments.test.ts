// wrangler.toml: an environment inherits little, so it can forget much.
import { spawnSync } from "node:child_process";
import path from "node:path";
import { describe, expect, test } from "vitest";
import { experimental_readRawConfig as readRawConfig, type Unstable_RawEnvironment } from "wrangler";

const root = path.join(import.meta.dirname, "../..");
const { rawConfig } = readRawConfig({ config: path.join(root, "wrangler.toml") });
const environments = Object.entries<Unstable_RawEnvironment>(rawConfig.env ?? {});

/** Every setting's place, and what stands there unless it is a name that has to differ. */
function shape(value: unknown, key = ""): unknown {
  if (["database_name", "queue", "namespace_id", "LOCATION_HINT", "EVENT_LOG_SHARDS"].includes(key)) return "…";
  if (Array.isArray(value)) return value.map((item) => shape(item));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, shape(item, name)]));
}

/** What an environment has to repeat. */
const REPEATED = ["vars", "d1_databases", "durable_objects", "queues", "ratelimits"] as const;

test("there are environments", () => expect(environments.map(([name]) => name)).toEqual(["staging"]));

describe.each(environments)("%s", (_, environment) => {
  test("has all that production has, with the same settings", () => {
    for (const part of REPEATED) expect(shape(environment[part]), part).toEqual(shape(rawConfig[part]));
    expect(Object.keys(environment).sort()).toEqual(["name", ...REPEATED].sort());
  });
});

test.each(["", ...environments.map(([name]) => name)])("wrangler would deploy '%s'", { timeout: 60_000 }, (env) => {
  const cli = path.join(root, "node_modules/wrangler/wrangler-dist/cli.js");
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ["--no-warnings", cli, "deploy", "--dry-run", "--env", env],
    { cwd: root, encoding: "utf8", env: { ...process.env, CI: "1", WRANGLER_SEND_METRICS: "false" } },
  );
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  for (const binding of ["DB", "EVENT_QUEUE", "CUSTOMER_METER", "EVENT_LOG", "SYNC_EVENTS_LIMIT"]) {
    expect(stdout).toContain(`env.${binding}`);
  }
});
