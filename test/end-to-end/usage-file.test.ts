// A real usage trace through `npm run import` into a server started by `npm start`: every row counted
// exactly once, at the first run, at the second, and across a kill in the middle.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import path from "node:path";
import fc from "fast-check";
import Stripe from "stripe";
import { afterAll, beforeAll, describe, expect, inject, it, onTestFinished } from "vitest";
import { LOCAL_KEYS } from "../../scripts/local-keys.ts";
import { newStateDir, type RunningServer, removeStateDir, startServer } from "../support/node/server.ts";

const root = path.join(import.meta.dirname, "../..");

/** The Azure LLM inference trace of 2023 (code): 8,819 rows. Not part of this repository. */
const TRACE = path.join(root, "../shared/data/azure_llm_code.csv");
const TRACE_ROWS = 8_819;
const TRACE_TOKENS = 18_059_974;

const CUSTOMERS = 50;

type Usage = { readonly file: string; readonly rows: number; readonly tokens: number };

/** The trace, or without it a file of as many rows, drawn from the run's seed. */
async function usageFile(folder: string): Promise<Usage> {
  if (existsSync(TRACE)) return { file: TRACE, rows: TRACE_ROWS, tokens: TRACE_TOKENS };
  const values = fc.sample(fc.integer({ min: 1, max: 8_000 }), { seed: inject("seed"), numRuns: TRACE_ROWS });
  const lines = values.map((value, row) => `${new Date(Date.UTC(2023, 10, 16) + row * 400).toISOString()},${value}`);
  const file = path.join(folder, "usage.csv");
  await writeFile(file, ["TIMESTAMP,ContextTokens", ...lines].join("\n"));
  return { file, rows: values.length, tokens: values.reduce((sum, value) => sum + value, 0) };
}

/** Runs `npm run import` with a file of usage to its end. */
function runImport(file: string, url: string, ...options: string[]): Promise<{ code: number | null; output: string }> {
  const args = ["--event-name", "tokens", "--value-column", "ContextTokens", "--timestamp-column", "TIMESTAMP"];
  const spread = ["--spread-customers", String(CUSTOMERS), "--shift-to-now", "--url", url];
  return runTool("import", file, ...args, ...spread, ...options);
}

/** Runs `npm run` with a tool and its arguments to its end. */
function runTool(tool: string, ...args: string[]): Promise<{ code: number | null; output: string }> {
  const child = spawn("npm", ["run", "-s", tool, "--", ...args], { cwd: root });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk: Buffer) => {
      output += chunk;
    });
  }
  return new Promise((resolve) => child.on("close", (code) => resolve({ code, output })));
}

describe("a usage file of 8,819 rows over 50 customers", () => {
  let stateDir: string;
  let server: RunningServer;
  let usage: Usage;

  beforeAll(async () => {
    stateDir = await newStateDir();
    usage = await usageFile(stateDir);
    server = await startServer(stateDir);
  }, 60_000);

  afterAll(async () => {
    await server.stop();
    await removeStateDir(stateDir);
  });

  const stripeOf = ({ port }: RunningServer): Stripe =>
    new Stripe(LOCAL_KEYS.test, { host: "127.0.0.1", port, protocol: "http" });

  const total = (): Promise<number> => totalOf(server);

  /** The sum of the summaries of all customers, or of the first few. */
  async function totalOf(of: RunningServer, customers = CUSTOMERS): Promise<number> {
    const stripe = stripeOf(of);
    const [meter] = (await stripe.billing.meters.list({ status: "active" })).data;
    if (meter === undefined) throw new Error("there is no meter");
    const end = Math.ceil(Date.now() / 60_000) * 60 + 60;
    let sum = 0;
    for (let customer = 1; customer <= customers; customer++) {
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
    const { code, output } = await runImport(usage.file, server.url, "--create-meter", "sum");
    expect(output).toMatch(new RegExp(`accepted ${usage.rows} +duplicate 0 +rejected 0`));
    expect(code).toBe(0);
    await expect.poll(total, { timeout: 60_000, interval: 500 }).toBe(usage.tokens);
  }, 240_000);

  it("adds nothing when it is imported again", async () => {
    const { code, output } = await runImport(usage.file, server.url);
    expect(output).toMatch(new RegExp(`accepted 0 +duplicate ${usage.rows} +rejected 0`));
    expect(code).toBe(0);
    expect(await total()).toBe(usage.tokens);
  }, 240_000);

  it("adds up to exactly twice the total when the server is killed and restarted in the middle of another import", async () => {
    const before = await totalOf(server, 1);
    // One request after another, so that there is time for a kill.
    const done = runImport(usage.file, server.url, "--source", "again", "--concurrency", "1");
    const first = (): Promise<number> => totalOf(server, 1);
    await expect.poll(first, { timeout: 120_000, interval: 50 }).toBeGreaterThan(1.1 * before);
    await server.kill();
    server = await startServer(stateDir, { port: server.port });
    expect(await total()).toBeLessThan(2 * usage.tokens);
    const { code, output } = await done;
    expect(output).toMatch(new RegExp(`accepted ${usage.rows} +duplicate 0 +rejected 0`));
    expect(code).toBe(0);
    await expect.poll(total, { timeout: 60_000, interval: 500 }).toBe(2 * usage.tokens);
  }, 300_000);

  it("adds up to the same on another server that imports what this one exports, once or twice", async () => {
    const { meterEvents, meterEventAdjustments } = stripeOf(server).v2.billing;
    const payload = { stripe_customer_id: "cus_1", value: "1000" };
    // Its identifier is the service's own.
    await meterEvents.create({ event_name: "tokens", payload });
    const { identifier } = await meterEvents.create({ event_name: "tokens", payload });
    await meterEventAdjustments.create({ event_name: "tokens", type: "cancel", cancel: { identifier } });
    const tokens = 2 * usage.tokens + 1_000;
    await expect.poll(total, { timeout: 60_000, interval: 500 }).toBe(tokens);

    const otherDir = await newStateDir();
    onTestFinished(() => removeStateDir(otherDir));
    const other = await startServer(otherDir);
    onTestFinished(() => other.stop().then(() => undefined));
    const events = 2 * usage.rows + 1;
    for (const [name, accepted] of [
      ["usage.parquet", events],
      ["usage.csv", 0],
    ] as const) {
      const out = path.join(otherDir, name);
      const [from, to] = [-2, 1].map((days) => new Date(Date.now() + days * 86_400_000).toISOString().slice(0, 10));
      const range = ["--from", from ?? "", "--to", to ?? ""];
      const exported = await runTool("export", "--meter", "tokens", ...range, "--out", out, "--url", server.url);
      expect(exported.output).toContain(
        `exported ${events + 1} events, 1 of them cancelled; the values of the others add up to ${tokens}`,
      );
      const { code, output } = await runTool("import", out, "--create-meter", "sum", "--url", other.url);
      const counts = `accepted ${accepted} +duplicate ${events - accepted} +rejected 0 +left out as cancelled 1`;
      expect(output).toMatch(new RegExp(counts));
      expect(code).toBe(0);
      await expect.poll(() => totalOf(other), { timeout: 60_000, interval: 500 }).toBe(tokens);
    }
  }, 480_000);
});

describe("npm start", () => {
  /** A server of a test's own; it ends with the test, also when that fails. */
  async function aServer(): Promise<RunningServer> {
    const stateDir = await newStateDir();
    onTestFinished(() => removeStateDir(stateDir));
    const server = await startServer(stateDir);
    onTestFinished(() => server.stop().then(() => undefined));
    return server;
  }

  it("says in one line that its port is in use, and ends with a failure", async () => {
    const server = await aServer();
    const stateDir = await newStateDir();
    onTestFinished(() => removeStateDir(stateDir));
    const second = await startServer(stateDir, { port: server.port }).catch((error: unknown) => String(error));
    expect(second).toMatch(/ended with 1:[\s\S]*edgemeter: port \d+ is in use/);
    expect(await server.stop()).toBe(0);
  }, 60_000);

  it("prints the address, the keys and a call to try, and nothing else", async () => {
    const server = await aServer();
    for (const text of [server.url, LOCAL_KEYS.test, LOCAL_KEYS.live, "curl "]) expect(server.output()).toContain(text);
    // npm may have a word on the configuration of whoever runs it.
    expect(server.output().replaceAll(/^npm warn.*$/gm, "")).not.toMatch(
      /warn|error|offline|update available| at .*:\d+:\d+/i,
    );
  }, 60_000);
});
