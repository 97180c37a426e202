// `npm start`: a local edgemeter on workerd, with its data on disk. PORT and STATE_DIR are honoured.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import path from "node:path";
import { LOCAL_KEYS, SEED_LOCAL_KEYS } from "./local-keys.ts";

const root = path.join(import.meta.dirname, "..");
const port = Number(process.env.PORT ?? 8787);
const stateDir = path.resolve(process.env.STATE_DIR ?? path.join(root, ".edgemeter"));
const address = `http://127.0.0.1:${port}`;

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

/** Ends the program with one line, when it cannot start. */
function fail(message: string): never {
  console.error(`edgemeter: ${message}`);
  process.exit(1);
}

function wrangler(args: readonly string[], stdio: "inherit" | "pipe"): ChildProcess {
  // Not its launcher in bin/, which would stand between a signal and the process that it is for.
  const cli = path.join(root, "node_modules/wrangler/wrangler-dist/cli.js");
  return spawn(process.execPath, ["--no-warnings", cli, ...args], {
    cwd: root,
    env: WRANGLER_ENV,
    stdio: ["ignore", stdio, stdio],
  });
}

const exitOf = (child: ChildProcess): Promise<number | null> =>
  new Promise((resolve) => (child.exitCode === null ? child.on("exit", resolve) : resolve(child.exitCode)));

async function portIsFree(): Promise<boolean> {
  const server = createServer();
  return new Promise((resolve) => {
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}

/** Brings the local database to the schema, and puts the local keys in. */
async function prepareDatabase(): Promise<void> {
  await mkdir(stateDir, { recursive: true });
  const script = path.join(stateDir, "prepare.sql");
  await writeFile(script, (await readFile(path.join(root, "schema.sql"), "utf8")) + SEED_LOCAL_KEYS);
  const child = wrangler(
    ["d1", "execute", "edgemeter", "--local", "--yes", "--persist-to", stateDir, "--file", script],
    "pipe",
  );
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream?.on("data", (chunk: Buffer) => (output += chunk));
  if ((await exitOf(child)) !== 0) fail(`the local database could not be prepared.\n${output}`);
}

/** The file with the secret that signs the tokens of streams, made once, so that they outlive a restart. */
async function sessionSecret(): Promise<string> {
  const file = path.join(stateDir, "secrets.env");
  const line = `SESSION_SECRET="${randomBytes(32).toString("base64url")}"\n`;
  await writeFile(file, line, { flag: "wx", mode: 0o600 }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "EEXIST") throw error;
  });
  return file;
}

/** Whether the Worker answers within a minute, and before `server` ends. */
async function isReady(server: ChildProcess): Promise<boolean> {
  const deadline = Date.now() + 60_000;
  while (Date.now() < deadline && server.exitCode === null && server.signalCode === null) {
    const answer = await fetch(`${address}/v1/billing/meters`).catch(() => undefined);
    if (answer?.status === 401) return true;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return false;
}

const WELCOME = `
  edgemeter is listening on ${address}        (Ctrl-C ends it)

  test key   ${LOCAL_KEYS.test}
  live key   ${LOCAL_KEYS.live}
  data       ${path.relative(process.cwd(), stateDir) || "."}
  API        ${address}/docs

  Try it: a meter, then an event.

  curl ${address}/v1/billing/meters -u ${LOCAL_KEYS.test}: \\
    -d display_name=Tokens -d event_name=tokens -d "default_aggregation[formula]=sum"

  curl ${address}/v2/billing/meter_events -H "Authorization: Bearer ${LOCAL_KEYS.test}" --json \\
    '{"event_name":"tokens","payload":{"stripe_customer_id":"cus_1","value":"25"}}'
`;

if (!Number.isInteger(port) || port < 1 || port > 65_535)
  fail(`PORT must be a port number, not '${process.env.PORT}'.`);
if (!(await portIsFree())) fail(`port ${port} is in use. Choose another one: PORT=8788 npm start`);
await prepareDatabase();

const options = ["--port", String(port), "--ip", "127.0.0.1", "--inspector-port", "0", "--persist-to", stateDir];
options.push("--env-file", await sessionSecret());
const server = wrangler(["dev", ...options, "--log-level", "error", "--show-interactive-dev-session=false"], "inherit");

let stopping = false;
const stop = (): void => {
  if (stopping) return;
  stopping = true;
  server.kill("SIGTERM");
  // What does not end when asked is ended, its workerd first: that would live on without it.
  setTimeout(() => {
    spawnSync("pkill", ["-KILL", "-P", String(server.pid)]);
    server.kill("SIGKILL");
  }, 3_000).unref();
};
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, stop);

const parent = process.ppid;
setInterval(() => process.ppid !== parent && stop(), 200).unref();

if (await isReady(server)) {
  console.log(WELCOME);
  // Cron triggers do not fire by themselves in `wrangler dev`.
  setInterval(() => void fetch(`${address}/cdn-cgi/local/scheduled`).catch(() => undefined), 60_000).unref();
} else if (!stopping) {
  server.kill("SIGTERM");
  fail("the server did not start.");
}
const code = await exitOf(server);
process.exit(stopping ? 0 : (code ?? 1));
