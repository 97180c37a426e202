// A real usage trace through `npm run import` into a server started by `npm start`: every row counted
// exactly once, at the first run, at the second, and across a kill in the middle.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import path from "node:path";
import Stripe from "stripe";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { LOCAL_KEYS } from "../../scripts/local-keys.ts";
import { newStateDir, type RunningServer, removeStateDir, startServer } from "../support/node/server.ts";

const root = path.join(import.meta.dirname, "../..");

/** The Azure LLM inference trace of 2023 (code); not part of this repository. */
const TRACE = path.join(root, "../shared/data/azure_llm_code.csv");
const ROWS = 8_819;
const CONTEXT_TOKENS = 18_059_974;
const CUSTOMERS = 50;

/** A run of `npm run import`; `until` waits for something it prints. */
function startImport(
  url: string,
  ...options: string[]
): { until: (text: RegExp) => Promise<void>; done: Promise<{ code: number | null; output: string }> } {
  const args = ["--event-name", "tokens", "--value-column", "ContextTokens", "--timestamp-column", "TIMESTAMP"];
  const spread = ["--spread-customers", String(CUSTOMERS), "--shift-to-now", "--url", url];
  const child = spawn("npm", ["run", "-s", "import", "--", TRACE, ...args, ...spread, ...options], { cwd: root });
  let output = "";
  const listeners = new Set<() => void>();
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk: Buffer) => {
      output += chunk;
      for (const listener of listeners) listener();
    });
  }
  const until = (text: RegExp): Promise<void> =>
    new Promise((resolve) => {
      const check = (): void => {
        if (text.test(output)) resolve();
      };
      listeners.add(check);
      check();
    });
  return { until, done: new Promise((resolve) => child.on("close", (code) => resolve({ code, output }))) };
}

const runImport = (url: string, ...options: string[]) => startImport(url, ...options).done;

describe.skipIf(!existsSync(TRACE))("a usage trace of 8,819 rows over 50 customers", () => {
  let stateDir: string;
  let server: RunningServer;

  beforeAll(async () => {
    stateDir = await newStateDir();
    server = await startServer(stateDir);
  }, 60_000);

  afterAll(async () => {
    await server.stop();
    await removeStateDir(stateDir);
  });

  /** The sum of the summaries of all customers. */
  async function total(): Promise<number> {
    const stripe = new Stripe(LOCAL_KEYS.test, { host: "127.0.0.1", port: server.port, protocol: "http" });
    const [meter] = (await stripe.billing.meters.list({ status: "active" })).data;
    if (meter === undefined) throw new Error("there is no meter");
    const end = Math.ceil(Date.now() / 60_000) * 60 + 60;
    let sum = 0;
    for (let customer = 1; customer <= CUSTOMERS; customer++) {
      const { data } = await stripe.billing.meters.listEventSummaries(meter.id, {
        customer: `cus_${customer}`,
        start_time: end - 30 * 86_400,
        end_time: end,
      });
      sum += data[0]?.aggregated_value ?? 0;
    }
    return sum;
  }

  it("adds up to the exact total within 30 seconds of its last row", async () => {
    const { code, output } = await runImport(server.url, "--create-meter", "sum");
    expect(output).toMatch(new RegExp(`accepted ${ROWS} +duplicate 0 +rejected 0`));
    expect(code).toBe(0);
    await expect.poll(total, { timeout: 30_000, interval: 500 }).toBe(CONTEXT_TOKENS);
  }, 240_000);

  it("adds nothing when it is imported again", async () => {
    const { code, output } = await runImport(server.url);
    expect(output).toMatch(new RegExp(`accepted 0 +duplicate ${ROWS} +rejected 0`));
    expect(code).toBe(0);
    expect(await total()).toBe(CONTEXT_TOKENS);
  }, 240_000);

  it("adds up to exactly twice the total when the server is killed and restarted in the middle of another import", async () => {
    const { until, done } = startImport(server.url, "--source", "again");
    // The tool says how far it is; a third is well under way.
    await until(/ (3|4|5|6)\d% /);
    await server.kill();
    server = await startServer(stateDir, server.port);
    const { code, output } = await done;
    expect(output).toMatch(new RegExp(`accepted ${ROWS} +duplicate 0 +rejected 0`));
    expect(code).toBe(0);
    await expect.poll(total, { timeout: 30_000, interval: 500 }).toBe(2 * CONTEXT_TOKENS);
  }, 300_000);
});

describe("npm start", () => {
  it("says in one line that its port is in use, and ends with a failure", async () => {
    const stateDir = await newStateDir();
    const server = await startServer(stateDir);
    const second = await startServer(stateDir, server.port).catch((error: unknown) => String(error));
    expect(second).toMatch(/ended with 1:[\s\S]*edgemeter: port \d+ is in use/);
    expect(await server.stop()).toBe(0);
    await removeStateDir(stateDir);
  }, 60_000);

  it("prints the address, the keys and a call to try, and nothing else", async () => {
    const stateDir = await newStateDir();
    const server = await startServer(stateDir);
    for (const text of [server.url, LOCAL_KEYS.test, LOCAL_KEYS.live, "curl "]) expect(server.output()).toContain(text);
    expect(server.output()).not.toMatch(/warn|error|offline|update available| at .*:\d+:\d+/i);
    await server.stop();
    await removeStateDir(stateDir);
  }, 60_000);
});
