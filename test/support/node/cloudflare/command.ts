import { spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import path from "node:path";
import { text } from "node:stream/consumers";
import type { NpmRun } from "../npm-run.ts";
import type { FakeCloudflare } from "./server.ts";

const root = path.join(import.meta.dirname, "../../../..");

/** Runs a command of scripts/ as npm does, without npm: against a Cloudflare, with a folder for its temporary files. */
export async function command(
  cloudflare: FakeCloudflare,
  folder: string,
  script: "deploy" | "preview" | "preview-delete",
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
): Promise<NpmRun & { readonly all: string }> {
  const child = spawn(process.execPath, [path.join(root, `scripts/${script}.ts`), ...args], {
    cwd: root,
    env: { ...process.env, ...cloudflare.env, CLOUDFLARE_ENV: "", STATE_DIR: folder, TMPDIR: folder, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const ended = new Promise<number | null>((resolve) => child.on("close", resolve));
  const [stdout, stderr, code] = await Promise.all([text(child.stdout), text(child.stderr), ended]);
  return { code, stdout, stderr, all: stdout + stderr };
}

/** Files that were to hold a secret for a moment, and still do. */
export const secretsLeftIn = (folder: string): string[] =>
  readdirSync(folder).filter((name) => name.startsWith("edgemeter-secret-"));
