// `npm start`: a local edgemeter on workerd, with its data on disk. PORT and STATE_DIR are honoured.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import path from "node:path";
import { hashOf } from "../src/catalog/key-hash.ts";
import { LOCAL_KEYS, SEED_LOCAL_KEYS } from "./local-keys.ts";
import { CONTROL, migrationsOf } from "./migrations.ts";
import { exitOf, root, stateDir, wrangler } from "./wrangler.ts";

const port = Number(process.env.PORT ?? 8787);
const address = `http://127.0.0.1:${port}`;

/** Ends the program with one line, when it cannot start. */
function fail(message: string): never {
  console.error(`edgemeter: ${message}`);
  process.exit(1);
}

async function portIsFree(): Promise<boolean> {
  const server = createServer();
  return new Promise((resolve) => {
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}

/** Brings the local databases to the newest migration, and puts the local keys in. */
async function prepareDatabases(): Promise<void> {
  const prepared = await preparedMark(await Promise.all([migrationsOf(CONTROL), migrationsOf("EVENTS_0")]));
  if (await prepared.isThere()) return;
  const preparing = spawn(process.execPath, [path.join(root, "scripts/prepare.ts")], { stdio: "inherit" });
  if ((await exitOf(preparing)) !== 0) process.exit(1);
  await prepared.leave();
}

/**
 * A restart need not prepare the databases again, which takes as long as starting the server. The mark
 * lies in the databases' own folder, so that it goes when they go, and says what they were prepared
 * with: the migrations, the keys, and what decides which databases those were.
 */
async function preparedMark(
  migrations: readonly object[],
): Promise<{ isThere(): Promise<boolean>; leave(): Promise<void> }> {
  const file = path.join(stateDir, "v3/d1/prepared");
  const config = ["wrangler.toml", "node_modules/wrangler/package.json"];
  const parts = await Promise.all(config.map((name) => readFile(path.join(root, name), "utf8")));
  const mark = hashOf(JSON.stringify([migrations, SEED_LOCAL_KEYS, ...parts]));
  return {
    isThere: async () => (await readFile(file, "utf8").catch(() => "")) === mark,
    // Without the folder there is no mark: then the next start prepares it again.
    leave: () => writeFile(file, mark).catch(() => {}),
  };
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

/** Whether the Worker answers within two minutes, and before `server` ends. */
async function isReady(server: ChildProcess): Promise<boolean> {
  const deadline = Date.now() + 120_000;
  while (Date.now() < deadline && server.exitCode === null && server.signalCode === null) {
    const answer = await fetch(`${address}/health`).catch(() => undefined);
    if (answer?.ok) return true;
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
await prepareDatabases();

const options = ["--port", String(port), "--ip", "127.0.0.1", "--inspector-port", "0", "--persist-to", stateDir];
// A local workerd knows no jurisdictions.
options.push("--var", "JURISDICTION:", "--env-file", await sessionSecret());
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
