// Runs a script of this project on a fresh clone: installs from the lock file what is missing, then
// hands over to the Node that the project brings along (wrangler needs 22, this file 20.11).
import { spawn, spawnSync } from "node:child_process";
import { statSync } from "node:fs";
import path from "node:path";
import { fail } from "./supported.mjs";

const root = path.join(import.meta.dirname, "..");
const node = path.join(root, "node_modules/.bin/node");

/** When a file was last written (ms), or never. */
const writtenAt = (name) => statSync(path.join(root, name), { throwIfNoEntry: false })?.mtimeMs ?? 0;

/**
 * Whether everything is installed. npm writes its own copy of the lock file at the end of every
 * installation. The Node comes from an install script, which npm may have skipped.
 */
const isInstalled = () =>
  writtenAt("node_modules/.package-lock.json") >= writtenAt("package-lock.json") &&
  spawnSync(node, ["--version"]).status === 0;

if (!isInstalled()) {
  // Whatever the user's npm leaves out by its settings: all of it is needed.
  const options = ["--include=dev", "--include=optional", "--ignore-scripts=false", "--loglevel=error"];
  const { status, error } = spawnSync("npm", ["ci", "--no-audit", "--no-fund", ...options], {
    cwd: root,
    stdio: ["ignore", 2, 2],
  });
  if (error !== undefined) fail(`npm could not be run: ${error.message}`);
  if (status !== 0) process.exit(status ?? 1);
  if (!isInstalled())
    fail("npm ci ended well, but node_modules/.bin/node does not run; it comes from the package node.");
}

const child = spawn(node, process.argv.slice(2), { stdio: "inherit" });
// A terminal sends Ctrl-C to the whole group, others only to this process; the child exits on either.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
// npm's shell does not pass a signal on, but it ends; whoever is left without it ends too.
const parent = process.ppid;
setInterval(() => process.ppid !== parent && child.kill("SIGTERM"), 200).unref();
child.on("exit", (code, signal) => process.exit(signal === null ? code : 1));
