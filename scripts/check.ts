// Format, lint and types, side by side. Prints what is wrong and exits non-zero when anything is.
import { spawn } from "node:child_process";

const checks = {
  "format and lint": ["biome", "check", "."],
  "types of the Worker": ["tsc", "-p", "."],
  "types of its tests": ["tsc", "-p", "test/workerd"],
  "types of the bench's bare Worker": ["tsc", "-p", "bench/bare"],
  "types of its counting Worker": ["tsc", "-p", "bench/counted"],
  "types of scripts and other tests": ["tsc", "-p", "scripts"],
};

const results = await Promise.all(
  Object.entries(checks).map(async ([name, [command = "", ...args]]) => {
    const child = spawn(`node_modules/.bin/${command}`, args, { stdio: "inherit" });
    const code = await new Promise((resolve) => child.on("exit", resolve));
    return { name, passed: code === 0 };
  }),
);

for (const { name, passed } of results) console.log(`${passed ? "ok    " : "FAILED"} ${name}`);
process.exitCode = results.every(({ passed }) => passed) ? 0 : 1;
