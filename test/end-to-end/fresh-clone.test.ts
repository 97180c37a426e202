// `npm start` as on a new computer: a clone of the last commit, with nothing installed.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { removeStateDir, startServer } from "../support/node/server.ts";

const root = path.join(import.meta.dirname, "../..");

let clone: string;

/** What a command printed in the clone. Throws when it fails. */
function run(command: string, ...args: string[]): string {
  const { status, stdout, stderr } = spawnSync(command, args, { cwd: clone, encoding: "utf8" });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")} ended with ${status}:\n${stdout}${stderr}`);
  return stdout.trim();
}

beforeAll(async () => {
  clone = await mkdtemp(path.join(tmpdir(), "edgemeter-clone-"));
  run("git", "clone", "--quiet", "--depth=1", `file://${root}`, ".");
}, 60_000);
afterAll(() => rm(clone, { recursive: true, force: true }));

// npm 12 runs no install script that package.json does not allow.
it.each(["12", "10"])(
  "npm %s installs what is missing, starts a server, and ends it",
  { timeout: 180_000 },
  async (major) => {
    const stateDir = path.join(clone, `state-${major}`);
    // Not npx itself, which passes no signal on.
    const npm = run("npx", "--yes", `--package=npm@${major}`, "--call=command -v npm");
    const server = await startServer(stateDir, { cwd: clone, npm });
    try {
      expect((await fetch(`${server.url}/health`)).status).toBe(200);
    } finally {
      expect(await server.stop()).toBe(0);
      await removeStateDir(stateDir);
    }
    await expect(fetch(`${server.url}/health`)).rejects.toThrow("fetch failed");
    // What an npm leaves that skipped the install scripts, for the next one to complete.
    await rm(path.join(clone, "node_modules/node/bin"), { recursive: true });
    expect(existsSync(path.join(clone, "node_modules/.bin/node"))).toBe(false);
  },
);
