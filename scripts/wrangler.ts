// How the scripts run wrangler: the one of this project, and on local data without the network.
import { type ChildProcess, spawn } from "node:child_process";
import path from "node:path";
import { text } from "node:stream/consumers";

/** The project's folder, where wrangler.toml lies. */
export const root = path.join(import.meta.dirname, "..");

/** Where a local server keeps its data. */
export const stateDir = path.resolve(process.env.STATE_DIR ?? path.join(root, ".edgemeter"));

const WRANGLER_ENV = {
  ...process.env,
  // Nothing of a local server needs the network.
  WRANGLER_SEND_METRICS: "false",
  WRANGLER_SEND_ERROR_REPORTS: "false",
  WRANGLER_LOG_PATH: path.join(stateDir, "logs"),
  WRANGLER_HIDE_BANNER: "true",
  CLOUDFLARE_CF_FETCH_ENABLED: "false",
  // Traces of every request and a page to browse them would take most of the time of a request.
  X_LOCAL_OBSERVABILITY: "false",
  X_LOCAL_EXPLORER: "false",
};

export function wrangler(args: readonly string[], stdio: "inherit" | "pipe"): ChildProcess {
  // Not its launcher in bin/, which would stand between a signal and the process that it is for.
  const cli = path.join(root, "node_modules/wrangler/wrangler-dist/cli.js");
  return spawn(process.execPath, ["--no-warnings", cli, ...args], {
    cwd: root,
    env: WRANGLER_ENV,
    stdio: ["ignore", stdio, stdio],
  });
}

export const exitOf = (child: ChildProcess): Promise<number | null> =>
  new Promise((resolve) => (child.exitCode === null ? child.on("exit", resolve) : resolve(child.exitCode)));

type Ran = { readonly ok: boolean; readonly stdout: string; readonly stderr: string };

/** Runs wrangler to its end, and gives what it printed. */
export async function runWrangler(args: readonly string[]): Promise<Ran> {
  const child = wrangler(args, "pipe");
  const [stdout, stderr, code] = await Promise.all([printed(child.stdout), printed(child.stderr), exitOf(child)]);
  return { ok: code === 0, stdout, stderr };
}

const printed = async (stream: ChildProcess["stdout"]): Promise<string> => (stream === null ? "" : text(stream));
