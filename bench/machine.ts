// On what the figures were measured.
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";

const root = path.join(import.meta.dirname, "..");

/** What a reader needs to compare runs, by name. */
export async function describeMachine(): Promise<Record<string, string>> {
  const [cpu] = os.cpus();
  const [system, commit, workerd, wrangler] = await Promise.all([
    systemName(),
    commitName(),
    versionOf("workerd"),
    versionOf("wrangler"),
  ]);
  return {
    date: new Date().toISOString(),
    commit,
    processor: `${cpu?.model ?? "unknown"}, ${os.availableParallelism()} cores`,
    memory: `${Math.round(os.totalmem() / 2 ** 30)} GB`,
    system: `${system}, ${os.type()} ${os.release()}`,
    Node: process.versions.node,
    workerd,
    wrangler,
  };
}

async function systemName(): Promise<string> {
  const release = await readFile("/etc/os-release", "utf8").catch(() => "");
  return /^PRETTY_NAME="(.*)"$/m.exec(release)?.[1] ?? os.platform();
}

/** The commit, and whether anything differs from it. */
async function commitName(): Promise<string> {
  const git = async (...args: string[]): Promise<string> =>
    (await promisify(execFile)("git", args, { cwd: root })).stdout.trim();
  try {
    const changed =
      (await git("status", "--porcelain", "--untracked-files=no", "--", "src", "schema.sql", "wrangler.toml")) !== "";
    return (await git("rev-parse", "--short", "HEAD")) + (changed ? ", with changes" : "");
  } catch {
    return "unknown";
  }
}

async function versionOf(name: string): Promise<string> {
  const manifest = await readFile(path.join(root, "node_modules", name, "package.json"), "utf8");
  return String(JSON.parse(manifest).version);
}
