import { spawn } from "node:child_process";
import path from "node:path";
import { text } from "node:stream/consumers";
import manifest from "../../../package.json" with { type: "json" };

const root = path.join(import.meta.dirname, "../../..");

/** What a command came to. */
export type NpmRun = { readonly code: number | null; readonly stdout: string; readonly stderr: string };

/** Runs what `npm run SCRIPT -- …` runs, without npm and the bootstrap before it, to its end. */
export async function npmRun(
  script: string,
  args: readonly string[] = [],
  env: NodeJS.ProcessEnv = {},
  onStderr: (printed: string) => void = () => {},
): Promise<NpmRun> {
  const [, command = ""] = new Map(Object.entries(manifest.scripts)).get(script)?.split("scripts/bootstrap.mjs ") ?? [];
  const child = spawn(process.execPath, [...command.split(" "), ...args], {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  child.stderr.on("data", (chunk: Buffer) => onStderr(String(chunk)));
  const ended = new Promise<number | null>((resolve) => child.on("close", resolve));
  const [stdout, stderr, code] = await Promise.all([text(child.stdout), text(child.stderr), ended]);
  return { code, stdout, stderr };
}
