import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, afterEach, expect, vi } from "vitest";
import { npmRun } from "../npm-run.ts";
import { changesOf, secretsOf } from "./inspect.ts";
import { startCloudflare } from "./server.ts";

/**
 * A Cloudflare for the tests of one file, with a folder for temporary files. Shows after each test that it was asked
 * nothing unknown, and that no file with a secret is left.
 */
export async function useCloudflare() {
  const cloudflare = await startCloudflare();
  const folder = await mkdtemp(path.join(tmpdir(), "edgemeter-deploy-"));
  afterEach(async () => {
    expect(cloudflare.unknown).toEqual([]);
    expect(await secretsLeftIn(folder)).toEqual([]);
  });
  afterAll(async () => {
    vi.unstubAllEnvs();
    await cloudflare.stop();
    await rm(folder, { recursive: true, force: true });
  });
  return {
    cloudflare,
    folder,
    /** Runs a command of package.json, and shows that it prints no secret. The calls are then those of this run alone. */
    command: async (script: string, args: readonly string[], env?: NodeJS.ProcessEnv) => {
      cloudflare.begin(undefined);
      const own = { CLOUDFLARE_ENV: "", STATE_DIR: folder, TMPDIR: folder };
      const run = await npmRun(script, args, { ...cloudflare.env, ...own, ...env });
      const all = run.stdout + run.stderr;
      for (const secret of secretsOf(cloudflare.account)) expect(all).not.toContain(secret);
      return { ...run, all, changes: changesOf(cloudflare) };
    },
    /** The arguments that say where a Worker is reached, and that it is not waited for long. */
    at: (worker: string): string[] => ["--url", cloudflare.addressOf(worker), "--wait", "20"],
  };
}

/** Files that were to hold a secret for a moment, and still do. */
export const secretsLeftIn = async (folder: string): Promise<string[]> =>
  (await readdir(folder)).filter((name) => name.startsWith("edgemeter-secret-"));
