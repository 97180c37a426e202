import { randomBytes } from "node:crypto";
import { rmSync } from "node:fs";
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { CommandError } from "../command-error.ts";
import { runWrangler } from "../wrangler.ts";
import { configWith, type Found, withConfigFile } from "./config.ts";
import { SECRET } from "./plan.ts";
import type { Target } from "./target.ts";

/**
 * Uploads a Worker with what it is bound to, and attaches its address, crons and queues. The secret
 * goes up in the same step, as a Worker cannot be given one before it exists, and must not run
 * without. Throws a CommandError with wrangler's words.
 */
export async function upload(target: Target, found: Found, withSecret: boolean): Promise<void> {
  await withConfigFile(target.worker, await configWith(target, found), async (config) => {
    const args = ["deploy", "--config", config, "--env", target.env, "--tag", target.fingerprint];
    if (!withSecret) return run(args);
    await withSecretsFile((file) => run([...args, "--secrets-file", file]));
  });
}

async function run(args: readonly string[]): Promise<void> {
  const { ok, stdout, stderr } = await runWrangler(args);
  if (!ok) throw new CommandError(`wrangler could not deploy it.\n${`${stdout}${stderr}`.trim()}`);
}

/** Gives a file with a new secret, for as long as it is used: only its owner can read it, and a signal removes it too. */
async function withSecretsFile(use: (file: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(path.join(tmpdir(), "edgemeter-secret-"));
  const remove = (): void => rmSync(folder, { recursive: true, force: true });
  const end = (): never => process.exit(1);
  process.on("exit", remove);
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, end);
  try {
    const file = path.join(folder, "secrets.json");
    // As JSON: wrangler would look for variables in a .env file.
    const secrets = JSON.stringify({ [SECRET]: randomBytes(32).toString("base64url") });
    await writeFile(file, secrets, { mode: 0o600, flag: "wx" });
    await use(file);
  } finally {
    remove();
    process.off("exit", remove);
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.off(signal, end);
  }
}
