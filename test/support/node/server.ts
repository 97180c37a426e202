import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";

const root = path.join(import.meta.dirname, "../../..");

/** A server started by `npm start`, as a user starts it. */
export type RunningServer = {
  readonly port: number;
  readonly url: string;
  /** What it has printed so far. */
  readonly output: () => string;
  /** Asks it to end, and waits until it has; gives its exit code. */
  readonly stop: () => Promise<number | null>;
  /** Ends all its processes at once, without asking. */
  readonly kill: () => Promise<void>;
};

/** A port that nobody listens on now. */
export async function freePort(): Promise<number> {
  const server = createServer();
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address !== null ? address.port : 0));
    });
  });
}

/** A new folder for a server's data. */
export const newStateDir = (): Promise<string> => mkdtemp(path.join(tmpdir(), "edgemeter-state-"));

export const removeStateDir = (folder: string): Promise<void> => rm(folder, { recursive: true, force: true });

/** How a server is started, where not as usual: on a free port, from this project, by the npm on the PATH. */
type Start = { readonly port?: number; readonly cwd?: string; readonly npm?: string };

/** Runs `npm start`, and waits until it says that it listens. Throws with its output when it ends before. */
export async function startServer(stateDir: string, { port, ...start }: Start = {}): Promise<RunningServer> {
  if (port !== undefined) return startOn(port, stateDir, start);
  for (;;) {
    try {
      return await startOn(await freePort(), stateDir, start);
    } catch (error) {
      // Another program may have taken the port meanwhile.
      if (!/port \d+ is in use/.test(String(error))) throw error;
    }
  }
}

async function startOn(
  port: number,
  stateDir: string,
  { cwd = root, npm = "npm" }: Omit<Start, "port">,
): Promise<RunningServer> {
  // A process group of its own, so that all of it can be killed at once.
  const child = spawn(npm, ["start"], {
    cwd,
    env: { ...process.env, PORT: String(port), STATE_DIR: stateDir },
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  const ready = new Promise<void>((resolve, reject) => {
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on("data", (chunk: Buffer) => {
        output += chunk;
        if (output.includes("edgemeter is listening")) resolve();
      });
    }
    child.on("exit", (code) => reject(new Error(`npm start ended with ${code}:\n${output}`)));
  });
  const killGroup = (): void => {
    if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
  };
  // Whoever ends without stopping it leaves no server behind.
  process.on("exit", killGroup);
  let hasEnded = false;
  const ended = new Promise<number | null>((resolve) =>
    child.on("close", (code) => {
      process.off("exit", killGroup);
      hasEnded = true;
      resolve(code);
    }),
  );
  await ready;
  return {
    port,
    url: `http://127.0.0.1:${port}`,
    output: () => output,
    stop: () => {
      child.kill("SIGTERM");
      return ended;
    },
    kill: async () => {
      if (!hasEnded) killGroup();
      await ended;
    },
  };
}
