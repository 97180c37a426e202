// `npm run keys` as a process of its own, on a folder that no server ever used, and against a Cloudflare of the tests' own.
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { keyTable } from "../../scripts/keys/keys.ts";
import { hashOf } from "../../src/catalog/key-hash.ts";
import { aDatabase } from "../support/node/cloudflare/account.ts";
import { startCloudflare } from "../support/node/cloudflare/server.ts";
import { type KeysRun, runKeys } from "../support/node/keys-tool.ts";

/** A name that would end a statement, open a comment, or be cut in two, wherever it is read as SQL. */
const HOSTILE = `Rob'); DROP TABLE api_keys; -- " \\' /* é 🔑`;

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "edgemeter-keys-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** The cells of a table's line about a key. */
const cellsOf = ({ stdout }: KeysRun, id: string): string[] =>
  (stdout.split("\n").find((line) => line.startsWith(id)) ?? "").split(/ {2,}/);

/** Whether any file under a folder holds a text. */
async function isOnDisk(under: string, searched: string): Promise<boolean> {
  const entries = await readdir(under, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile());
  const bodies = await Promise.all(files.map(({ parentPath, name }) => readFile(path.join(parentPath, name))));
  return bodies.some((body) => body.includes(searched));
}

describe("the keys of a local server", () => {
  let stateDir: string;
  let made: KeysRun;

  beforeAll(async () => {
    stateDir = path.join(folder, "state");
    made = await runKeys(stateDir, ["create", "--name", HOSTILE]);
  });

  test("can be made before a server was ever started", () => {
    expect(made.code).toBe(0);
    expect(made.stdout).toContain(HOSTILE);
    expect(made.secret).toMatch(/^sk_test_[0-9A-Za-z]{44}$/);
    expect(made.id).toMatch(/^key_[0-9A-Za-z]{20}$/);
  });

  test("are on disk as their hash alone", async () => {
    expect(await isOnDisk(stateDir, hashOf(made.secret))).toBe(true);
    expect(await isOnDisk(stateDir, made.secret.slice("sk_test_".length))).toBe(false);
  });

  test("are listed, and stay revoked; what does not exist cannot be revoked", async () => {
    const revoked = await runKeys(stateDir, ["revoke", made.id]);
    expect(revoked).toMatchObject({ code: 0, stdout: expect.stringContaining("is revoked") });
    const [again, unknown] = await Promise.all([
      runKeys(stateDir, ["revoke", made.id]),
      runKeys(stateDir, ["revoke", "' OR 1=1 --"]),
    ]);
    expect(again.code).toBe(0);
    const since = /revoked before, at (\S+)\.$/m.exec(again.stdout)?.[1] ?? "";
    expect(unknown).toMatchObject({ code: 1, stderr: expect.stringContaining("there is no key '' OR 1=1 --'") });

    const listed = await runKeys(stateDir, ["list"]);
    expect(listed.code).toBe(0);
    expect(listed.stdout.trim().split("\n")).toHaveLength(2);
    const created = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
    const before = [made.id, "1", HOSTILE, "test", "ingest read manage", created, "never"];
    expect(cellsOf(listed, made.id)).toEqual([...before, `${since.slice(0, 19)}Z`]);
    for (const secret of [made.secret, hashOf(made.secret)]) expect(listed.stdout).not.toContain(secret);
  });

  test("are made once another process has written to the database, however long that takes", async () => {
    const databases = path.join(stateDir, "v3/d1/miniflare-D1DatabaseObject");
    const files = (await readdir(databases)).filter((name) => /^[0-9a-f]+\.sqlite$/.test(name));
    // That of the keys alone was needed.
    expect(files).toHaveLength(1);
    const other = new DatabaseSync(path.join(databases, files[0] ?? ""));
    other.exec("BEGIN IMMEDIATE");
    let refusals = 0;
    const created = await runKeys(stateDir, ["create", "--name", "patient"], {}, () => {
      if (refusals++ === 0) other.exec("COMMIT");
    });
    other.close();
    expect(created).toMatchObject({ code: 0, stderr: expect.stringContaining("database is busy") });
    const { stdout } = await runKeys(stateDir, ["list"]);
    expect(stdout.match(/patient/g)).toHaveLength(1);
  });
});

describe("a wrong command line", () => {
  test.concurrent.each([
    ["without a command", []],
    ["with an unknown command", ["delete", "key_1"]],
    ["without a name", ["create"]],
    ["with an empty name", ["create", "--name", " "]],
    ["with a name of 101 characters", ["create", "--name", "x".repeat(101)]],
    ["with a name of two lines", ["create", "--name", "a\nb"]],
    ["with a name that drives the terminal", ["create", "--name", "\u{1b}[2J"]],
    ["with an unknown permission", ["create", "--name", "a", "--permission", "write"]],
    ["without an id", ["revoke"]],
    ["with an environment of the local server", ["list", "--env", "staging"]],
  ])("%s is exit code 2, and touches nothing", async (_, args) => {
    const stateDir = path.join(folder, "untouched");
    const { code, stdout, stderr } = await runKeys(stateDir, args);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).not.toBe("");
    await expect(readdir(stateDir)).rejects.toThrow("ENOENT");
  });
});

describe("the keys of a deployment", async () => {
  const cloudflare = await startCloudflare();
  // It has no tables yet.
  const database = aDatabase("edgemeter");
  const { sql } = database;
  const asked = (): string => JSON.stringify(cloudflare.calls);

  beforeAll(() => void cloudflare.account.databases.set("edgemeter", database));
  afterAll(() => cloudflare.stop());

  const run = (...args: string[]): Promise<KeysRun> =>
    runKeys(path.join(folder, "remote"), [...args, "--remote"], cloudflare.env);

  test("are made and revoked with the same words, and only the hash leaves this computer", async () => {
    const { code, id, secret, stderr } = await run("create", "--name", HOSTILE, "--live", "--permission", "read");
    expect({ code, stderr }).toEqual({ code: 0, stderr: expect.stringContaining("not shown again") });
    expect(secret).toMatch(/^rk_live_/);
    const row = { id, number: 1, name: HOSTILE, livemode: 1, hash: hashOf(secret), permissions: "read" };
    expect(sql.prepare("SELECT * FROM api_keys").all()).toEqual([
      { ...row, created: expect.any(Number), revoked_at: null, last_used: null },
    ]);
    expect(await run("revoke", id)).toMatchObject({ code: 0, stdout: expect.stringContaining("is revoked") });
    expect(sql.prepare("SELECT revoked_at FROM api_keys").get()?.revoked_at).toBeGreaterThan(0);
    expect(cloudflare.calls.length).toBeGreaterThanOrEqual(2);
    expect(asked()).not.toContain(secret);
  });

  test("have the greatest number plus one, and are listed with the hour of their last use", async () => {
    sql.exec("UPDATE api_keys SET number = 41");
    const { id } = await run("create", "--name", "next");
    sql.exec(`UPDATE api_keys SET last_used = ${Date.UTC(2026, 10, 25, 9, 59)} WHERE id = '${id}'`);
    const cells = [id, "42", "next", "test", "ingest read manage", expect.any(String), "2026-11-25T09:00Z"];
    expect(cellsOf(await run("list"), id)).toEqual(cells);
  });

  test("are not touched when Cloudflare refuses, and its reason is shown", async () => {
    cloudflare.isAllowed = false;
    const { code, stdout, stderr } = await run("create", "--name", "a");
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toContain("Authentication error");
    expect(stderr).not.toMatch(/[sr]k_(test|live)_/);
  });

  test("are never those of another environment: one that wrangler.toml has not is refused", async () => {
    cloudflare.begin(undefined);
    const { code, stderr } = await run("list", "--env", "nowhere");
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining("no environment 'nowhere'") });
    expect(cloudflare.calls).toEqual([]);
    cloudflare.isAllowed = true;
    expect(await run("list", "--env", "staging")).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("npm run deploy makes it"),
    });
  });
});

describe("the table of keys", () => {
  test("lets no name drive the terminal or begin a line", () => {
    const times = { created: 0, used: undefined, revoked: undefined };
    const key = { id: "key_1", number: 1, livemode: false, permissions: "read", ...times };
    const table = keyTable([{ ...key, name: "a\u{1b}[2J\r\nkey_2\u{2028}" }]);
    expect(table.split("\n")).toHaveLength(2);
    for (const wild of ["\u{1b}", "\r", "\u{2028}"]) expect(table).not.toContain(wild);
  });
});
