import path from "node:path";
import { cloudflareTest } from "@cloudflare/vitest-plugin";
import { defineConfig } from "vitest/config";

const root = path.join(import.meta.dirname, "..");

/** What random tests are drawn from: `SEED=1234 npm test` runs them again. */
if (process.env.SEED === undefined) {
  process.env.SEED = String(Math.floor(Math.random() * 2 ** 31));
  console.log(`seed ${process.env.SEED}`);
}
const seed = Number(process.env.SEED);

/** Stories of the model test; `npm run soak` plays more. */
const modelRuns = Number(process.env.SOAK_RUNS ?? 300);

/** Requests of the fuzz test. */
const fuzzRequests = Number(process.env.FUZZ_REQUESTS ?? 10_000);

/** How often the crash test kills its server. */
const crashKills = Number(process.env.CRASH_KILLS ?? 10);

/** How many of the calls of a deployment are made to fail; there are some twenty, each in two ways. */
const deployFailures = Number(process.env.DEPLOY_FAILURES ?? 2);

export default defineConfig({
  test: {
    // Much of it waits: for a server, for a window of time to end.
    maxWorkers: 3,
    provide: { seed, modelRuns, fuzzRequests, crashKills, deployFailures },
    projects: [
      // Pure rules, on plain Node.
      { root, test: { name: "domain", include: ["test/domain/**/*.test.ts"] } },
      // Durable Objects, D1, queue and alarms, inside workerd.
      {
        root,
        plugins: [
          cloudflareTest({
            wrangler: { configPath: path.join(root, "wrangler.toml") },
            miniflare: {
              bindings: { SESSION_SECRET: "no secret: what the tests sign tokens with" },
              // Nobody waits for a batch to fill up.
              queueConsumers: { "meter-events": { maxBatchSize: 100, maxBatchTimeout: 0.05, maxRetries: 0 } },
            },
          }),
        ],
        test: {
          name: "worker",
          include: ["test/worker/**/*.test.ts"],
          setupFiles: ["test/worker/setup.ts"],
          testTimeout: 30_000,
        },
      },
      // A really running server, from outside, with the official SDK.
      {
        root,
        test: {
          name: "conformance",
          include: ["test/conformance/**/*.test.ts"],
          globalSetup: ["test/conformance/server.ts"],
          // They share a server, and some look at its whole list of meters.
          fileParallelism: false,
          testTimeout: 30_000,
        },
      },
      // A server that is killed under load, again and again.
      {
        root,
        test: {
          name: "crash",
          include: ["test/crash/**/*.test.ts"],
          fileParallelism: false,
          // Most of it are starts of the server: some seconds each, more on a busy machine.
          testTimeout: 120_000 + crashKills * 20_000,
        },
      },
      // The deployment's commands with the real wrangler, on a Cloudflare of the tests' own.
      {
        root,
        test: { name: "deploy", include: ["test/deploy/**/*.test.ts"], testTimeout: 120_000 + deployFailures * 30_000 },
      },
      // Slow: whole imports of real usage, with a kill in between. `npm run test:end-to-end`.
      { root, test: { name: "end-to-end", include: ["test/end-to-end/**/*.test.ts"] } },
    ],
  },
});
