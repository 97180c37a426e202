// Runs a script of this project on a fresh clone: installs from the lock file what is missing, then
// hands over to the Node that the project brings along (wrangler needs 22, this file 20).
import { spawn, spawnSync } from "node:child_process";
import { statSync } from "node:fs";
import path from "node:path";

const root = path.join(import.meta.dirname, "..");

/** When a file was last written (ms), or never. */
const writtenAt = (name) => statSync(path.join(root, name), { throwIfNoEntry: false })?.mtimeMs ?? 0;

// npm writes its own copy of the lock file at the end of every installation.
if (writtenAt("node_modules/.package-lock.json") < writtenAt("package-lock.json")) {
  const { status } = spawnSync("npm", ["ci", "--no-audit", "--no-fund", "--loglevel=error"], {
    cwd: root,
    stdio: ["ignore", 2, 2],
  });
  if (status !== 0) process.exit(status ?? 1);
}

const child = spawn(path.join(root, "node_modules/.bin/node"), process.argv.slice(2), { stdio: "inherit" });
// A terminal sends Ctrl-C to the whole group, others only to this process; the child exits on either.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
// npm's shell does not pass a signal on, but it ends; whoever is left without it ends too.
const parent = process.ppid;
setInterval(() => process.ppid !== parent && child.kill("SIGTERM"), 200).unref();
child.on("exit", (code, signal) => process.exit(signal === null ? code : 1));
