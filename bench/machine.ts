// On what the figures were measured.
import { readFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { git, root } from "./sides.ts";

/** What a reader needs to compare runs, by name. */
export async function describeMachine(): Promise<Record<string, string>> {
  const [cpu] = os.cpus();
  const release = await readFile("/etc/os-release", "utf8").catch(() => "");
  const system = /^PRETTY_NAME="(.*)"$/m.exec(release)?.[1] ?? os.platform();
  return {
    date: new Date().toISOString(),
    commit: await commitName(),
    processor: `${cpu?.model ?? "unknown"}, ${os.availableParallelism()} cores`,
    memory: `${Math.round(os.totalmem() / 2 ** 30)} GB`,
    system: `${system}, ${os.type()} ${os.release()}`,
    Node: process.versions.node,
    workerd: await versionOf("workerd"),
    wrangler: await versionOf("wrangler"),
  };
}

/** The commit, and whether anything of the Worker differs from it. */
async function commitName(): Promise<string> {
  const changes = await git(
    "status",
    "--porcelain",
    "--untracked-files=no",
    "--",
    "src",
    "schema.sql",
    "wrangler.toml",
  );
  return (await git("rev-parse", "--short", "HEAD")) + (changes === "" ? "" : ", with changes");
}

async function versionOf(name: string): Promise<string> {
  const manifest = await readFile(path.join(root, "node_modules", name, "package.json"), "utf8");
  return String(JSON.parse(manifest).version);
}
