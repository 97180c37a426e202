import { spawn } from "node:child_process";
import path from "node:path";
import { text } from "node:stream/consumers";

const root = path.join(import.meta.dirname, "../../..");

/** What a command came to. */
export type NpmRun = { readonly code: number | null; readonly stdout: string; readonly stderr: string };

/** Runs `npm run SCRIPT -- …` as a user does, to its end. */
export async function npmRun(
  script: string,
  args: readonly string[] = [],
  env: NodeJS.ProcessEnv = {},
): Promise<NpmRun> {
  const child = spawn("npm", ["run", "-s", script, "--", ...args], {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const ended = new Promise<number | null>((resolve) => child.on("close", resolve));
  const [stdout, stderr, code] = await Promise.all([text(child.stdout), text(child.stderr), ended]);
  return { code, stdout, stderr };
}
