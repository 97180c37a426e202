// A PostgreSQL of its own for one run: a new cluster in a temporary folder, reached by a Unix socket
// there, durable as it is by default (fsync and synchronous_commit on), gone at the end.
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { constants } from "node:fs";
import { access, chown, mkdtemp, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import pg from "pg";

const run = promisify(execFile);

/** How long the server may take to answer its first query (ms). */
const START_MS = 60_000;

const USER = "peer";

// What anyone would set on a machine with some memory; nothing of durability is touched.
const SETTINGS = { shared_buffers: "512MB", max_wal_size: "4GB" };

// $1: where the binaries are, $2: the folder, the rest: settings. Ends the server and its folder once
// the pipe to it closes, so also when the bench is killed. A server that has only begun to start heeds
// TERM alone; one that runs would wait for its clients then, and ends at once by INT.
const SUPERVISE = `
  binaries=$1 folder=$2
  shift 2
  "$binaries/initdb" -D "$folder/data" -U ${USER} --auth=trust --encoding=UTF8 --no-locale >"$folder/log" 2>&1
  "$binaries/postgres" -D "$folder/data" -k "$folder" "$@" >>"$folder/log" 2>&1 &
  server=$!
  cat >/dev/null
  kill -TERM $server
  kill -INT $server
  wait $server
  rm -rf "$folder"`;

export type Postgres = {
  /** The settings that connect a client to it, for its environment. */
  readonly env: { readonly PGHOST: string; readonly PGUSER: string; readonly PGDATABASE: string };
  readonly version: string;
  readonly stop: () => Promise<void>;
};

/** Starts PostgreSQL; nothing when it is not installed, or no user is there that it would run as. */
export async function startPostgres(): Promise<Postgres | undefined> {
  const binaries = await findBinaries();
  const user = await serverUser();
  if (binaries === undefined || user === undefined) return undefined;
  const folder = await mkdtemp(path.join(tmpdir(), "edgemeter-peer-"));
  if (user.uid !== undefined && user.gid !== undefined) await chown(folder, user.uid, user.gid);
  const settings = Object.entries(SETTINGS).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
  const child = spawn("sh", ["-c", SUPERVISE, "sh", binaries, folder, ...settings], {
    ...user,
    cwd: "/",
    // A group of its own: a Ctrl-C meant for the bench reaches it by the pipe, in order.
    detached: true,
    stdio: ["pipe", "ignore", "ignore"],
  });
  const stop = () => end(child);
  try {
    const env = { PGHOST: folder, PGUSER: USER, PGDATABASE: "postgres" };
    return { env, version: await firstAnswer(folder), stop };
  } catch (cause) {
    const log = await readFile(path.join(folder, "log"), "utf8").catch(() => "");
    await stop();
    throw new Error(`PostgreSQL did not start.\n${log}`, { cause });
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = once(child, "exit");
  child.stdin?.end();
  await exit;
}

/** Waits until it answers; gives its version. */
async function firstAnswer(folder: string): Promise<string> {
  for (const started = Date.now(); ; await sleep(100)) {
    const client = new pg.Client({ host: folder, user: USER, database: "postgres" });
    try {
      await client.connect();
      const { rows } = await client.query<{ server_version: string }>("SHOW server_version");
      return rows[0]?.server_version.split(" ")[0] ?? "";
    } catch (error) {
      if (Date.now() - started > START_MS) throw error;
    } finally {
      await client.end();
    }
  }
}

/** The folder of PostgreSQL's server programs, which Debian keeps out of the PATH. */
async function findBinaries(): Promise<string | undefined> {
  const configured = await run("pg_config", ["--bindir"]).catch(() => undefined);
  const folders = [
    "/usr/lib/postgresql/15/bin",
    ...(configured === undefined ? [] : [configured.stdout.trim()]),
    ...(process.env.PATH ?? "").split(path.delimiter),
  ];
  for (const folder of folders) {
    const programs = ["initdb", "postgres"].map((name) => access(path.join(folder, name), constants.X_OK));
    if ((await Promise.allSettled(programs)).every(({ status }) => status === "fulfilled")) return folder;
  }
  return undefined;
}

/** Whom it runs as: PostgreSQL refuses to be root, so root hands it to the user of its package. */
async function serverUser(): Promise<{ uid?: number; gid?: number } | undefined> {
  if (process.getuid?.() !== 0) return {};
  const ids = await Promise.all(["-u", "-g"].map((flag) => run("id", [flag, "postgres"]))).catch(() => undefined);
  const [uid, gid] = ids?.map(({ stdout }) => Number(stdout)) ?? [];
  return uid === undefined || gid === undefined ? undefined : { uid, gid };
}
