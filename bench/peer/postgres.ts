// A PostgreSQL of its own for one run: a new cluster in a temporary folder, reached by a Unix socket there, durable as
// it is by default (fsync and synchronous_commit on), gone at the end.
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { chown, mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";

/** What a program prints, or nothing when there is no such program. */
const output = async (program: string, ...args: string[]): Promise<string | undefined> =>
  (await promisify(execFile)(program, args).catch(() => undefined))?.stdout.trim();

// $1: where the programs are, $2: the folder. Once the pipe to it closes, so also when the bench is killed, it ends the
// server and removes the folder.
const SUPERVISE = `
  "$1/initdb" -D "$2/data" -U peer --auth=trust --encoding=UTF8 --no-locale >"$2/log" 2>&1 &&
  "$1/pg_ctl" start -w -D "$2/data" -l "$2/log" -o "-h '' -k $2 -c shared_buffers=512MB -c max_wal_size=4GB" >/dev/null &&
  echo ready
  cat >/dev/null
  "$1/pg_ctl" stop -w -m immediate -D "$2/data" >/dev/null
  rm -rf "$2"`;

export type Postgres = { readonly socket: string; readonly version: string; readonly stop: () => Promise<void> };

/** Starts PostgreSQL; nothing where its server is not installed, or as root the user that it would run as. */
export async function startPostgres(): Promise<Postgres | undefined> {
  const programs = await output("pg_config", "--bindir");
  const version = programs && (await output(path.join(programs, "postgres"), "--version"));
  const asRoot = process.getuid?.() === 0;
  const ids = asRoot ? [await output("id", "-u", "postgres"), await output("id", "-g", "postgres")].map(Number) : [];
  if (!version || ids.some(Number.isNaN)) return undefined;
  const socket = await mkdtemp(path.join(tmpdir(), "edgemeter-peer-"));
  const [uid, gid] = ids;
  if (uid !== undefined && gid !== undefined) await chown(socket, uid, gid);
  // A group of its own: a Ctrl-C meant for the bench reaches it by the pipe, in order.
  const user = asRoot ? { uid, gid } : {};
  const child = spawn("sh", ["-c", SUPERVISE, "sh", programs, socket], { ...user, cwd: "/", detached: true });
  const exit = once(child, "exit");
  const stop = async (): Promise<void> => {
    child.stdin.end();
    await exit;
  };
  const started = await Promise.race([once(child.stdout, "data"), once(child.stdout, "end")]);
  if (started.length > 0) return { socket, version, stop };
  await stop();
  throw new Error("PostgreSQL did not start");
}
