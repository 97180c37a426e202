import path from "node:path";
import { cloudflareTest, readD1Migrations } from "@cloudflare/vitest-plugin";
import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";

const root = path.join(import.meta.dirname, "..");

/** What random tests are drawn from: `SEED=1234 npm test` runs them again. */
if (process.env.SEED === undefined) {
  process.env.SEED = String(Math.floor(Math.random() * 2 ** 31));
  console.log(`seed ${process.env.SEED}`);
}
const seed = Number(process.env.SEED);

/** A number from the environment: `npm run soak` draws more of what is random. */
const count = (name: string, usual: number): number => Number(process.env[name] ?? usual);
const crashKills = count("CRASH_KILLS", 4);
const deployFailures = count("DEPLOY_FAILURES", 2);
const counts = {
  modelRuns: count("SOAK_RUNS", 30),
  placementRuns: count("PLACEMENT_RUNS", 40),
  growthRuns: count("GROWTH_RUNS", 40),
  archiveRuns: count("ARCHIVE_RUNS", 6),
  fuzzRequests: count("FUZZ_REQUESTS", 2_000),
  soakDays: count("SOAK_DAYS", 0),
  outageMinutes: count("OUTAGE_MINUTES", 20),
  crashKills,
  // Of the calls of a deployment, of which there are some twenty, each made to fail in two ways.
  deployFailures,
};

const CONSUMER = { maxBatchSize: 100, maxBatchTimeout: 0.05, maxRetries: 0 };

/** What the databases of the tests are made by. */
const migrations = {
  CONTROL_MIGRATIONS: await readD1Migrations(path.join(root, "src/migrations/control")),
  EVENTS_MIGRATIONS: await readD1Migrations(path.join(root, "src/migrations/events")),
};

/** How long a test or a hook may take (ms) before it counts as hanging, however busy the machine is. */
const patience = { testTimeout: 120_000, hookTimeout: 120_000 };

const OPERATIONS = "test/workerd/operations/**/*.test.ts";

/** Tests that run inside workerd, with all that the Worker binds. */
const insideWorkerd = (name: string, files: { readonly include: string[]; readonly exclude?: string[] }) => ({
  root,
  plugins: [
    cloudflareTest({
      wrangler: { configPath: path.join(root, "wrangler.toml") },
      miniflare: {
        bindings: { SESSION_SECRET: "no secret: what the tests sign tokens with", ...migrations },
        // Beside wrangler.toml's EVENTS_0. A test uses them once it has grown its placement.
        d1Databases: { EVENTS_1: "events-1", EVENTS_2: "events-2", EVENTS_3: "events-3" },
        // Nobody waits for a batch to fill up.
        queueConsumers: { "edgemeter-events": CONSUMER, "edgemeter-test-events": CONSUMER },
      },
    }),
  ],
  test: { ...patience, name, ...files, setupFiles: ["test/workerd/setup.ts"] },
});

/** The files that take longest begin first, so that no worker is left with one at the end. */
const LONGEST = [
  "conformance/together",
  "crash/crash",
  "workerd/log/model",
  "workerd/aggregate/hostile",
  "workerd/fuzz",
  "unit/import-tool",
];
const rank = ({ moduleId }: TestSpecification): number =>
  LONGEST.findIndex((name) => moduleId.includes(`/test/${name}`)) >>> 0;

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    return (await super.sort(files)).sort((a, b) => rank(a) - rank(b));
  }
}

/** The files of the conformance suite that the command line names run as they are. */
const namesOne = process.argv.some((argument) => /conformance\/.+\.test/.test(argument));

export default defineConfig({
  test: {
    // Much of it waits: for a server, for a window of time to end.
    maxWorkers: 3,
    provide: { seed, ...counts },
    sequence: { sequencer: LongestFirst },
    teardownTimeout: 60_000,
    projects: [
      // Pure rules, on plain Node.
      { root, test: { ...patience, name: "unit", include: ["test/unit/**/*.test.ts"] } },
      // Durable Objects, D1, queue and alarms, inside workerd.
      insideWorkerd("workerd", { include: ["test/workerd/**/*.test.ts"], exclude: [OPERATIONS] }),
      // What operators do to the archive: erase, restore, export, audit. `npm run test:deploy` has them too.
      insideWorkerd("operations", { include: [OPERATIONS] }),
      // A really running server, from outside, with the official SDK.
      {
        root,
        test: {
          ...patience,
          name: "conformance",
          include: namesOne ? ["test/conformance/*.test.ts"] : ["test/conformance/together.ts"],
          globalSetup: ["test/conformance/server.ts"],
          // They share a server, and some look at its whole list of meters.
          fileParallelism: !namesOne,
        },
      },
      // The same, with other clients than the newest SDK, used as others use them. `npm run test:clients`.
      {
        root,
        test: {
          name: "clients",
          include: ["test/clients/**/*.test.ts"],
          globalSetup: ["test/conformance/server.ts"],
          fileParallelism: false,
          testTimeout: 60_000,
        },
      },
      // A server that is killed under load, again and again.
      {
        root,
        test: {
          ...patience,
          name: "crash",
          include: ["test/crash/**/*.test.ts"],
          // Most of it are starts of the server: some seconds each, more on a busy machine.
          testTimeout: 120_000 + crashKills * 20_000,
        },
      },
      // The deployment's commands with the real wrangler, on a Cloudflare of the tests' own.
      {
        root,
        test: {
          ...patience,
          name: "deploy",
          include: ["test/deploy/**/*.test.ts"],
          testTimeout: 120_000 + deployFailures * 30_000,
        },
      },
      // Slow: whole imports of real usage, with a kill in between. `npm run test:end-to-end`.
      { root, test: { ...patience, name: "end-to-end", include: ["test/end-to-end/**/*.test.ts"] } },
    ],
  },
});
