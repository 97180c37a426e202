// `npm run soak -- --minutes 30`: crashes, random stories, logs that grow, archivers, an hour without D1 and hostile requests,
// over and over, with another seed each time. `npm run soak -- --days 60`: weeks of usage at a compressed clock, through the
// archive. Sums up at the end; exits with 1 when anything failed.
import { spawn } from "node:child_process";
import path from "node:path";
import { text } from "node:stream/consumers";
import { Option } from "commander";
import { crash } from "../test/support/node/crash/harness.ts";
import { lineOf } from "../test/support/node/crash/report.ts";
import { commandLine, matching } from "./command.ts";

const root = path.join(import.meta.dirname, "..");

/** What a round does of each; a round takes some minutes. */
const KILLS = 15;
const STORIES = 1_000;
const LONG_STORIES = 1_000;
const GROWING_STORIES = 1_000;
const PAIRS_OF_ARCHIVERS = 500;
const REQUESTS = 10_000;

const { minutes, days, seed } = commandLine(
  "soak",
  "Runs the random tests in rounds, each with a seed of its own, and sums up.",
  "Exit code: 0 all passed, 1 something failed, 2 the command line is wrong.",
)
  .addOption(
    new Option("--minutes <n>", "how long; nothing is begun later")
      .default(10)
      .argParser(matching(/^(?=.*[1-9])\d+(\.\d+)?$/, "It must be a positive number.", Number)),
  )
  .addOption(
    new Option("--days <n>", "plays so many days of usage through the archive, and nothing else")
      .conflicts("minutes")
      .argParser(matching(/^[1-9]\d{0,2}$/, "It must be a whole number.", Number)),
  )
  .addOption(
    new Option("--seed <n>", "of the first round; each next one has the next")
      .env("SEED")
      .default(Math.floor(Math.random() * 2 ** 31), "random")
      .argParser(matching(/^\d{1,10}$/, "It must be a whole number.", Number)),
  )
  .parse()
  .opts<{ minutes: number; days?: number; seed: number }>();

// The servers under test run in groups of their own; they end with this process, if it ends by `exit`.
const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => {
    stop.abort();
    process.exit(130);
  });
}

const total = { acknowledged: 0, kills: 0, lost: 0, doubled: 0, wrong: 0, stories: 0, requests: 0 };
const failures: string[] = [];

/** What the days of the archive tell: a line of counts, and a table. */
const DAYS_TOLD = /^\d+ days: .*\n(?:\|.*\n)+/m;

/** The parts of a round; each says whether it passed. */
const PARTS: Readonly<Record<string, (seed: number) => Promise<boolean>>> = {
  crash: async (seed) => {
    const report = await crash({ kills: KILLS, seed });
    for (const name of ["acknowledged", "kills", "lost", "doubled", "wrong"] as const) total[name] += report[name];
    for (const line of [lineOf(report), ...report.problems]) console.log(line);
    return report.problems.length === 0;
  },
  model: async (seed) => {
    const runs = {
      SOAK_RUNS: String(STORIES),
      PLACEMENT_RUNS: String(LONG_STORIES),
      GROWTH_RUNS: String(GROWING_STORIES),
    };
    const passed = await runTests("test/workerd/log/model.test.ts", { SEED: String(seed), ...runs });
    if (passed) total.stories += STORIES + LONG_STORIES + GROWING_STORIES;
    return passed;
  },
  archivers: async (seed) => {
    const runs = { SEED: String(seed), ARCHIVE_RUNS: String(PAIRS_OF_ARCHIVERS) };
    const passed = await runTests("test/workerd/archive/two-archivers.test.ts", runs);
    if (passed) total.stories += PAIRS_OF_ARCHIVERS;
    return passed;
  },
  outage: (seed) => runTests("test/workerd/aggregate/hostile.test.ts", { SEED: String(seed), OUTAGE_MINUTES: "60" }),
  fuzz: async (seed) => {
    const passed = await runTests("test/workerd/fuzz/fuzz.test.ts", {
      SEED: String(seed),
      FUZZ_REQUESTS: String(REQUESTS),
    });
    if (passed) total.requests += REQUESTS;
    return passed;
  },
};

/** Runs one file of tests, and prints what it printed when it fails, or a part of it. */
async function runTests(file: string, env: Readonly<Record<string, string>>, told?: RegExp): Promise<boolean> {
  const vitest = ["node_modules/vitest/vitest.mjs", "run", "--config", "test/vitest.config.ts", "--project", "workerd"];
  const child = spawn(process.execPath, [...vitest, file], {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
    signal: stop.signal,
  });
  const [code, ...printed] = await Promise.all([
    new Promise((resolve) => child.on("exit", resolve)),
    text(child.stdout),
    text(child.stderr),
  ]);
  if (code !== 0) console.log(printed.join("\n"));
  else if (told !== undefined) console.log(told.exec(printed.join("\n"))?.[0]);
  return code === 0;
}

if (days !== undefined) {
  const env = { SEED: String(seed), SOAK_DAYS: String(days) };
  process.exit((await runTests("test/workerd/archive/days.test.ts", env, DAYS_TOLD)) ? 0 : 1);
}

const begin = Date.now();
const minutesPassed = (): number => (Date.now() - begin) / 60_000;

let rounds = 0;
for (; rounds === 0 || minutesPassed() < minutes; rounds++) {
  for (const [name, run] of Object.entries(PARTS)) {
    // The first round is always whole.
    if (rounds > 0 && minutesPassed() >= minutes) break;
    const partSeed = seed + rounds;
    const passed = await run(partSeed).catch((error: unknown) => {
      console.log(error);
      return false;
    });
    if (!passed) failures.push(`${name} with seed ${partSeed}`);
    console.log(`${minutesPassed().toFixed(1)} min: ${name} with seed ${partSeed} ${passed ? "passed" : "FAILED"}`);
  }
}

const { acknowledged, kills, lost, doubled, wrong, stories, requests } = total;
console.log(
  [
    `soak: ${rounds} ${rounds === 1 ? "round" : "rounds"} in ${minutesPassed().toFixed(1)} minutes`,
    `${acknowledged} events acknowledged, ${kills} kills, ${lost} lost, ${doubled} doubled, ${wrong} otherwise wrong`,
    `${stories} stories, ${requests} fuzz requests`,
    failures.length === 0 ? "all passed" : `FAILED: ${failures.join(", ")}`,
  ].join("; "),
);
process.exitCode = failures.length === 0 ? 0 : 1;
