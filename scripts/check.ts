// Format, lint, types, unused code and the order of imports, side by side. Prints what is wrong and exits non-zero when
// anything is. An argument selects the checks whose name has it: `npm run lint`, `npm run typecheck`.
import { spawn } from "node:child_process";
import path from "node:path";

const vitest = ["vitest", "run", "--config", "test/vitest.config.ts", "--project", "unit", "--reporter", "minimal"];

const checks = {
  "format and lint": ["biome", "check", "."],
  "types of the Worker": ["tsc", "-p", "."],
  "types of its tests": ["tsc", "-p", "test/workerd"],
  "types of the bench's bare Worker": ["tsc", "-p", "bench/bare"],
  "types of its counting Worker": ["tsc", "-p", "bench/counted"],
  "types of scripts and other tests": ["tsc", "-p", "scripts"],
  "unused files, exports and dependencies": ["knip", "--no-progress"],
  "order of imports": [...vitest, "test/unit/imports.test.ts"],
};

// The commands run on the Node of this process, whatever `node` is outside.
const env = { ...process.env, PATH: [path.dirname(process.execPath), process.env.PATH].join(path.delimiter) };
const selected = process.argv[2] ?? "";

const results = await Promise.all(
  Object.entries(checks)
    .filter(([name]) => name.includes(selected))
    .map(async ([name, [command = "", ...args]]) => {
      const child = spawn(`node_modules/.bin/${command}`, args, { stdio: "inherit", env });
      const code = await new Promise((resolve) => child.on("exit", resolve));
      return { name, passed: code === 0 };
    }),
);

for (const { name, passed } of results) console.log(`${passed ? "ok    " : "FAILED"} ${name}`);
process.exitCode = results.length > 0 && results.every(({ passed }) => passed) ? 0 : 1;
