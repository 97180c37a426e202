// The clients of docs/examples, against a server that fails in every way that they are made for.
import { spawn, spawnSync } from "node:child_process";
import { createServer, type Server } from "node:http";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { createMeter, minute, stripe, unique, url, WAIT } from "./client.ts";

const folder = path.join(import.meta.dirname, "../../docs/examples");
const hasPython = spawnSync("python3", ["--version"]).status === 0;
if (!hasPython) console.log("docs/examples/stream.py is not tried: there is no python3 here");

const SESSION = "/v2/billing/meter_event_session";
const STREAM = "/v2/billing/meter_event_stream";

/** What a request of a stream is made to meet, in turn; after that requests reach the server unharmed. */
const FAULTS = ["lost response", "expired session", "overload", "broken connection"];

type Proxy = {
  readonly url: string;
  readonly sessions: () => number;
  readonly faultsLeft: () => string[];
  readonly close: () => Promise<void>;
};

/** Hands requests on to the server under test, but for the faults. */
async function faultyProxy(): Promise<Proxy> {
  const faults = [...FAULTS];
  let sessions = 0;
  const server: Server = createServer(async (request, response) => {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part);
    if (request.url === SESSION) sessions++;
    const fault = request.url === STREAM ? faults.shift() : undefined;
    if (fault === "broken connection") return request.socket.destroy();
    const answer = (status: number, error: object) => {
      response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify({ error }));
    };
    if (fault === "expired session") {
      const code = "billing_meter_event_session_expired";
      return answer(401, { code, message: "expired", type: "temporary_session_expired", doc_url: "/docs" });
    }
    if (fault === "overload") return answer(503, { code: "log_full", message: "later" });
    const { authorization = "", "idempotency-key": key = "" } = request.headers;
    const served = await fetch(url + request.url, {
      method: "POST",
      headers: { authorization, "idempotency-key": String(key), "content-type": "application/json" },
      body: Buffer.concat(parts),
    });
    const body = await served.text();
    if (fault === "lost response") return request.socket.destroy();
    response.writeHead(served.status, { "content-type": "application/json" }).end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  return {
    url: `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}`,
    sessions: () => sessions,
    faultsLeft: () => faults,
    close: () => new Promise((resolve) => server.close(() => resolve())),
  };
}

/** Runs a client over lines of input to its end. */
function run(command: string, file: string, address: string, lines: readonly string[]) {
  const child = spawn(command, [path.join(folder, file)], { env: { ...process.env, EDGEMETER_URL: address } });
  let errors = "";
  child.stderr.on("data", (text) => {
    errors += text;
  });
  child.stdin.end(lines.map((line) => `${line}\n`).join(""));
  return new Promise<{ code: number | null; errors: string }>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, errors }));
  });
}

async function total(meter: string): Promise<number | undefined> {
  const range = { customer: "cus_1", start_time: minute(-60), end_time: minute(10) };
  return (await stripe.billing.meters.listEventSummaries(meter, range, WAIT)).data[0]?.aggregated_value;
}

/** Runs a client over 249 different events, one of them twice, and two lines that can never be accepted. */
async function countsEveryEventOnce(command: string, file: string): Promise<void> {
  const meter = await createMeter();
  const event = { event_name: meter.event_name, payload: { stripe_customer_id: "cus_1", value: "1" } };
  const malformed = { ...event, payload: "none", identifier: unique("malformed") };
  const repeated = JSON.stringify({ ...event, identifier: unique("idmp"), timestamp: new Date().toISOString() });
  const lines = [...Array.from({ length: 248 }, () => JSON.stringify(event)), repeated, repeated];
  lines.splice(130, 0, JSON.stringify(malformed), "no JSON");
  const proxy = await faultyProxy();
  try {
    const { code, errors } = await run(command, file, proxy.url, lines);
    expect({ code, errors }).toEqual({ code: 1, errors: expect.stringContaining(malformed.identifier) });
    expect(errors).toContain("no JSON");
    expect(proxy.faultsLeft()).toEqual([]);
    expect(proxy.sessions()).toBe(2);
  } finally {
    await proxy.close();
  }
  expect(await total(meter.id)).toBe(249);
}

describe("C14 the example clients", () => {
  it("C14.1 in Node count every event once, whatever fails, and say what is refused", () =>
    countsEveryEventOnce(process.execPath, "stream.mjs"));

  it.skipIf(!hasPython)("C14.2 in Python do the same", () => countsEveryEventOnce("python3", "stream.py"));
});
