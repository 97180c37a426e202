import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { promisify } from "node:util";
import { CommandError } from "../command-error.ts";
import { root } from "../wrangler.ts";

/** What a branch's preview is called on the account. */
export type PreviewNames = {
  readonly branch: string;
  /** The Worker, and its control database. */
  readonly worker: string;
  /** A queue or database of its own for each of wrangler.toml's. */
  readonly own: (name: string) => string;
  /** Counts of rate limits are shared by all that name the same. */
  readonly rateLimit: (namespace: string) => string;
};

/** The longest label of a host name, and the longest name of a queue. */
const LONGEST_NAME = 63;

const READABLE_LENGTH = 24;
const HASH_LENGTH = 12;

/** Branches that a preview would be mistaken for. */
const RESERVED = ["main", "master", "production"];

/**
 * The part of the names that is the branch's: what of it is readable in a host name, and a hash of all
 * of it, so that branches which read alike stay apart. A branch keeps its name, since
 * a preview is found again by it.
 */
export function slugOf(branch: string): string {
  const readable = branch
    .normalize("NFKD")
    .replaceAll(/\p{M}/gu, "")
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "-")
    .replace(/^-/, "")
    .slice(0, READABLE_LENGTH)
    .replace(/-$/, "");
  const hash = digest(branch).toString("hex").slice(0, HASH_LENGTH);
  return readable === "" ? hash : `${readable}-${hash}`;
}

/** Throws a CommandError for a branch that has no preview. `worker` is production's name. */
export function previewNames(branch: string, worker: string, environments: readonly string[]): PreviewNames {
  if (branch === "" || branch.length > 250 || !branch.isWellFormed() || /\p{Cc}/u.test(branch)) {
    throw new CommandError("a branch's name is 1 to 250 characters on one line.");
  }
  const reserved = [...RESERVED, ...environments, worker, ...environments.map((name) => `${worker}-${name}`)];
  if (reserved.includes(branch.trim().toLowerCase())) {
    throw new CommandError(`'${branch}' is no branch to preview: npm run deploy is for what it names.`);
  }
  const name = `${worker}-${slugOf(branch)}`;
  return {
    branch,
    worker: fitting(name),
    // What is named after production's Worker is named after the preview's instead.
    own: (theirs) => fitting(`${name}-${theirs.replace(`${worker}-`, "")}`),
    rateLimit: (namespace) => String(2 ** 30 + (digest(`${namespace} ${branch}`).readUInt32BE() >>> 2)),
  };
}

const digest = (text: string): Buffer => createHash("sha256").update(text).digest();

function fitting(name: string): string {
  if (name.length > LONGEST_NAME) throw new CommandError(`'${name}' is longer than ${LONGEST_NAME} characters.`);
  return name;
}

/** The branch that is checked out. Throws a CommandError when there is none. */
export async function currentBranch(): Promise<string> {
  const git = promisify(execFile)("git", ["branch", "--show-current"], { cwd: root });
  const branch = await git.then(({ stdout }) => stdout.replace(/\n$/, "")).catch(() => "");
  if (branch === "") throw new CommandError("no branch is checked out here; name one with --branch.");
  return branch;
}
