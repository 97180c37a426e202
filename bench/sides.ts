// The Workers that are measured: the present one, and that of a commit, each with the settings of its own wrangler.toml.
import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { unstable_readConfig } from "wrangler";
import { intervalAt } from "../src/log/throttle.ts";

/** A Worker to run, with Durable Objects, databases and queues of its own. */
export type Worker = {
  /** Also its host: `name.test`. */
  readonly name: string;
  /** The path of its wrangler.toml. */
  readonly config: string;
  readonly vars?: Readonly<Record<string, string>>;
  /** SQL that makes each of its databases, by binding. */
  readonly databases: Readonly<Record<string, string>>;
  /** Whether everything is counted that Cloudflare bills, see bench/counted. */
  readonly counted?: boolean;
};

/** What the bench needs to know of wrangler.toml. */
export type Settings = {
  readonly shards: number;
  readonly groupCommitMs: number;
  /** How long a shard waits between two sends (ms), by how many events a second it takes. */
  readonly sendIntervalMs: (perSecond: number) => number;
};

/** A version of edgemeter. */
export type Side = Worker & {
  /** Whether it is the commit that the present is compared with. */
  readonly base: boolean;
  /** A live key that its databases know. */
  readonly key: string;
  readonly settings: Settings;
};

type D1Block = { readonly binding: string; readonly migrations_dir?: string };

export const root: string = path.join(import.meta.dirname, "..");

/** A folder for what one run makes, gone when the process ends. Its disk should be one that syncs (TMPDIR). */
export const scratch: string = mkdtempSync(path.join(tmpdir(), "edgemeter-bench-"));
process.once("exit", () => {
  try {
    rmSync(scratch, { recursive: true, force: true });
  } catch {
    // A workerd that has not ended yet may write; what ends it comes after this.
  }
});
// A second signal while it tidies up must not end it at once.
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => process.exit(1));

export const git = async (...args: string[]): Promise<string> =>
  (await promisify(execFile)("git", args, { cwd: root })).stdout.trim();

export const presentSide = (): Promise<Side> => sideOf("edgemeter", root, false);

/** A commit's Worker. It is built with packages of its own, by the tools that are installed for the present. */
export async function sideAt(commit: string): Promise<Side> {
  const folder = path.join(scratch, commit);
  mkdirSync(folder);
  await git("archive", "--output", `${folder}.tar`, commit);
  await promisify(execFile)("tar", ["-xf", `${folder}.tar`, "-C", folder]);
  const options = ["--omit=dev", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund"];
  await promisify(execFile)("npm", ["ci", ...options], { cwd: folder });
  return sideOf("base", folder, true);
}

/** The SQL that makes a database: its migrations, or `schema.sql` of a commit from before there were any. */
function schemaOf(folder: string, migrations: string | undefined): string {
  const files =
    migrations === undefined
      ? ["schema.sql"]
      : readdirSync(path.join(folder, migrations))
          .sort()
          .map((name) => path.join(migrations, name));
  return files.map((file) => readFileSync(path.join(folder, file), "utf8")).join("\n");
}

async function sideOf(name: string, folder: string, base: boolean): Promise<Side> {
  const config = path.join(folder, "wrangler.toml");
  const { vars, d1_databases } = unstable_readConfig({ config });
  const setting = (name: string): number => Number(vars[name]);
  const keys: typeof import("../scripts/local-keys.ts") = await import(path.join(folder, "scripts/local-keys.ts"));
  return {
    name,
    base,
    config,
    databases: Object.fromEntries(
      (d1_databases as D1Block[]).map(({ binding, migrations_dir }) => [
        binding,
        schemaOf(folder, migrations_dir) + (binding === "DB" ? keys.SEED_LOCAL_KEYS : ""),
      ]),
    ),
    key: keys.LOCAL_KEYS.live,
    settings: {
      shards: setting("EVENT_LOG_SHARDS"),
      groupCommitMs: setting("GROUP_COMMIT_MS"),
      // Before there was an interval, there was a delay.
      sendIntervalMs: (perSecond) =>
        "SEND_DELAY_MS" in vars ? setting("SEND_DELAY_MS") : intervalAt(perSecond, setting("SEND_INTERVAL_MS")),
    },
  };
}
