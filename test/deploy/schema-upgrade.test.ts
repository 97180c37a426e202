// A new version's deployment, and its `npm start`, on the database of the version before.
import { mkdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { beforeEach, describe, expect, test } from "vitest";
import { selfTest } from "../../scripts/deploy/self-test.ts";
import { execute } from "../../scripts/keys/database.ts";
import { useCloudflare } from "../support/node/cloudflare/fixture.ts";
import { npmRun } from "../support/node/npm-run.ts";
import { freePort, newStateDir, removeStateDir, startServer } from "../support/node/server.ts";

const schema = await readFile(path.join(import.meta.dirname, "../../schema.sql"), "utf8");

/** A schema that today's is reached from by adding: two tables and a column. */
const BEFORE = schema
  .replace(/CREATE INDEX IF NOT EXISTS dead_letters_by_mode [^;]*;/, "")
  .replaceAll(/CREATE TABLE IF NOT EXISTS (dead_letters|audits) [\s\S]*?WITHOUT ROWID;/g, "")
  .replace(/,( --[^\n]*)\n {2}permissions TEXT[^\n]*/, "$1");

const A_KEY = "INSERT INTO api_keys (hash, id, name, livemode, created) VALUES ('h', 'key_1', 'before', 1, 5);";

/** A schema that schema.sql cannot be reached from by adding. */
const OTHER = BEFORE.replace("value INTEGER NOT NULL,", "value TEXT,");

const { cloudflare, command, at } = await useCloudflare();

describe("npm run deploy", () => {
  beforeEach(() => cloudflare.reset());

  /** Gives the account a database of before. */
  function plant(sql: string): DatabaseSync {
    const database = new DatabaseSync(":memory:");
    database.exec(sql);
    const uuid = "00000000-0000-4000-8000-999999999999";
    cloudflare.account.databases.set("edgemeter", {
      ...{ uuid, name: "edgemeter" },
      ...{ location: "weur", jurisdiction: undefined, replicated: true, sql: database },
    });
    return database;
  }

  test("adds what is missing before any code that needs it, and keeps the rows", async () => {
    const database = plant(BEFORE + A_KEY);
    const { code, stdout, changes } = await command("deploy", at("edgemeter"));
    expect({ code, stdout }).toEqual({
      code: 0,
      stdout: expect.stringContaining(
        "tables    add column api_keys.permissions, table dead_letters, table audits, index dead_letters_by_mode\n",
      ),
    });
    expect(changes[0]).toBe("POST /d1/database/ID/query");
    expect(changes.indexOf("PUT /workers/scripts/edgemeter")).toBeGreaterThan(0);
    const keys = database.prepare("SELECT id, permissions FROM api_keys WHERE revoked_at IS NULL");
    expect(keys.all()).toEqual([{ id: "key_1", permissions: "ingest read manage" }]);
    expect(database.prepare("SELECT * FROM dead_letters, audits").all()).toEqual([]);
  });

  test("refuses what is no addition before anything is touched", async () => {
    const database = plant(OTHER + A_KEY);
    const { code, stderr, changes } = await command("deploy", at("edgemeter"));
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: expect.stringContaining("column events.value is 'value TEXT', not 'value INTEGER NOT NULL'"),
    });
    expect(changes).toEqual([]);
    expect(database.prepare("SELECT name FROM sqlite_master WHERE name = 'dead_letters'").all()).toEqual([]);
  });
});

describe("npm start", () => {
  let stateDir: string;
  beforeEach(async () => {
    stateDir = await newStateDir();
    return () => removeStateDir(stateDir);
  });

  /** Prepares the local database as the version before did, with the mark that it left. */
  async function plant(sql: string): Promise<void> {
    const { runWrangler } = await import("../../scripts/wrangler.ts");
    const script = path.join(stateDir, "before.sql");
    await writeFile(script, sql);
    const execute = ["d1", "execute", "DB", "--local", "--yes", "--persist-to", stateDir, "--file", script];
    expect(await runWrangler(execute)).toMatchObject({ ok: true });
    await mkdir(path.join(stateDir, "v3/d1"), { recursive: true });
    await writeFile(path.join(stateDir, "v3/d1/prepared"), "the mark of another version");
  }

  test("brings the data of the version before forward", async () => {
    await plant(BEFORE + A_KEY);
    const server = await startServer(stateDir);
    // A deployment's self-test, on the Worker itself.
    const run = (sql: string) => execute(["--local", "--persist-to", stateDir], [sql]);
    await selfTest(run, server.url, "the fingerprint of this code", 60_000);
    await server.stop();
    const { code, stdout } = await npmRun("keys", ["list"], { STATE_DIR: stateDir });
    expect({ code, stdout }).toEqual({ code: 0, stdout: expect.stringContaining("key_1") });
  });

  test("does not start on data that it cannot bring forward, and says why", async () => {
    await plant(OTHER + A_KEY);
    const { code, stderr } = await npmRun("start", [], { STATE_DIR: stateDir, PORT: String(await freePort()) });
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: expect.stringContaining("column events.value is 'value TEXT'"),
    });
  });
});
