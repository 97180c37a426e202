// scripts/bootstrap.mjs in a folder of its own, with an npm that only notes that it was called.
import { spawn } from "node:child_process";
import { chmod, cp, mkdir, mkdtemp, readFile, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { text } from "node:stream/consumers";
import { describe, expect, it, onTestFinished } from "vitest";

const scripts = path.join(import.meta.dirname, "../../scripts");

const NODE = "node_modules/.bin/node";
const LOCK_COPY = "node_modules/.package-lock.json";

/** What an npm does when it installs: all of it, or all but what comes from an install script. */
const INSTALLS = `mkdir -p node_modules/.bin; ln -sf '${process.execPath}' ${NODE}; touch ${LOCK_COPY}`;
const SKIPS_SCRIPTS = `mkdir -p node_modules/.bin; touch ${LOCK_COPY}`;

/** A clone without an installation, whose npm does as told. */
async function aClone(npm: string) {
  const root = await mkdtemp(path.join(tmpdir(), "edgemeter-clone-"));
  onTestFinished(() => rm(root, { recursive: true, force: true }));
  const at = (name: string): string => path.join(root, name);
  for (const folder of ["bin", "scripts", "node_modules/.bin"]) await mkdir(at(folder), { recursive: true });
  for (const name of ["bootstrap.mjs", "supported.mjs"]) await cp(path.join(scripts, name), at(`scripts/${name}`));
  await writeFile(at("package-lock.json"), "{}");
  await writeFile(at("scripts/run.mjs"), 'console.log("it runs");');
  await writeFile(at("bin/npm"), `#!/bin/sh\necho "$@" >>calls\n${npm}\n`);
  await chmod(at("bin/npm"), 0o755);
  return {
    at,
    /** Runs the script, on a system that claims to be something else after `pretence`. */
    async run(pretence = ""): Promise<{ code: number | null; stdout: string; stderr: string; installations: number }> {
      const args = ["--import", `data:text/javascript,${pretence}`, at("scripts/bootstrap.mjs"), at("scripts/run.mjs")];
      const child = spawn(process.execPath, args, { env: { PATH: `${at("bin")}:/usr/bin:/bin` } });
      const ended = new Promise<number | null>((resolve) => child.on("close", resolve));
      const [code, stdout, stderr] = await Promise.all([ended, text(child.stdout), text(child.stderr)]);
      const calls = await readFile(at("calls"), "utf8").catch(() => "");
      return { code, stdout, stderr, installations: calls.split("\n").length - 1 };
    },
  };
}

type Clone = Awaited<ReturnType<typeof aClone>>;

/** What may be there of an installation, beside the lock file. */
const HALVES: Record<string, (clone: Clone) => Promise<void>> = {
  "nothing was ever installed": async ({ at }) => rm(at("node_modules"), { recursive: true }),
  "npm ci was interrupted": async ({ at }) => symlink(process.execPath, at(NODE)),
  "npm skipped the install scripts": async ({ at }) => writeFile(at(LOCK_COPY), "{}"),
  "the Node is for another system": async ({ at }) => {
    await writeFile(at(LOCK_COPY), "{}");
    await writeFile(at(NODE), "\u{7f}ELF", { mode: 0o755 });
  },
  "the lock file is newer": async ({ at }) => {
    await symlink(process.execPath, at(NODE));
    await writeFile(at(LOCK_COPY), "{}");
    await utimes(at(LOCK_COPY), 1, 1);
  },
};

describe("a script of a clone", () => {
  it.each(Object.entries(HALVES))("installs once where %s, and runs", async (_, leave) => {
    const clone = await aClone(INSTALLS);
    await leave(clone);
    expect(await clone.run()).toEqual({ code: 0, stdout: "it runs\n", stderr: "", installations: 1 });
    expect(await clone.run()).toMatchObject({ code: 0, installations: 1 });
  });

  it("says that the installation has no Node when npm ends well without one", async () => {
    const clone = await aClone(SKIPS_SCRIPTS);
    expect(await clone.run()).toEqual({
      code: 1,
      stdout: "",
      stderr: expect.stringMatching(/^edgemeter: .*node_modules\/\.bin\/node does not run.*\n$/),
      installations: 1,
    });
  });

  it("ends as npm does when npm cannot install", async () => {
    expect(await (await aClone("exit 7")).run()).toMatchObject({ code: 7, stdout: "" });
  });

  it.each([
    ["Windows", 'Object.defineProperty(process,"platform",{value:"win32"})', /WSL/],
    ["another processor", 'Object.defineProperty(process,"arch",{value:"ppc64"})', /ppc64/],
    [
      "musl",
      'process.report.getReport=()=>({header:{}});Object.defineProperty(process,"platform",{value:"linux"})',
      /musl/,
    ],
    [
      "an old glibc",
      'process.report.getReport=()=>({header:{glibcVersionRuntime:"2.31"}});Object.defineProperty(process,"platform",{value:"linux"})',
      /glibc 2\.35 .* 2\.31/,
    ],
    ["an old Node", 'Object.defineProperty(process.versions,"node",{value:"20.10.0"})', /Node 20\.11 .* 20\.10\.0/],
  ])("says in one line that %s is not supported", async (_, pretence, why) => {
    const { stderr, ...run } = await (await aClone(INSTALLS)).run(pretence);
    expect(run).toEqual({ code: 1, stdout: "", installations: 0 });
    expect(stderr).toMatch(why);
    expect(stderr).toMatch(/^edgemeter: .*\n$/);
  });
});
