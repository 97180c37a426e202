import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { CommandError } from "../command-error.ts";
import { root } from "../wrangler.ts";

/** The branch that is checked out. Throws a CommandError when there is none. */
export async function currentBranch(): Promise<string> {
  const git = promisify(execFile)("git", ["branch", "--show-current"], { cwd: root });
  const branch = await git.then(({ stdout }) => stdout.replace(/\n$/, "")).catch(() => "");
  if (branch === "") throw new CommandError("no branch is checked out here; name one with --branch.");
  return branch;
}
