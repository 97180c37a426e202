// The bench's HTTP client, and the load that it makes.
import { Agent, request } from "node:http";
import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { quantile, type Sample } from "./results.ts";

export type Request = {
  readonly method: "GET" | "POST";
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
};

/** One request. fetch would not send the host header, which names a Worker, and takes more of the processor. */
export function send(
  { hostname, port }: URL,
  { method, path, headers, body = "" }: Request,
  agent?: Agent,
): Promise<{ readonly status: number; readonly body: string }> {
  const lengths = body === "" ? {} : { "content-length": Buffer.byteLength(body) };
  const options = { hostname, port, method, path, headers: { ...headers, ...lengths }, ...(agent && { agent }) };
  return new Promise((resolve, reject) => {
    request(options, (response) => {
      text(response).then((body) => resolve({ status: response.statusCode ?? 0, body }), reject);
    })
      .on("error", reject)
      .end(body);
  });
}

/** A closed loop, each connection with one request at a time, or an open one: by the clock, whatever was answered. */
export type Pace = ({ readonly connections: number } | { readonly perSecond: number }) &
  ({ readonly seconds: number } | { readonly requests: number });

export type Loaded = {
  /** Responses with a 2xx, and with a 409. */
  readonly accepted: number;
  readonly conflicts: number;
  /** Milliseconds that each 2xx took, in an open loop from when its request was due. */
  readonly latencies: readonly number[];
  /** From the first request to the last response. */
  readonly seconds: number;
  /** Share of one processor that making the requests took: near 1, it is the load that is measured. */
  readonly client: number;
};

/** Timers are no more exact than this (ms); what an open loop has due by then is sent together. */
const STEP_MS = 4;

/** Sends `next()` again and again, and waits for every response. Throws when one is neither 2xx nor 409. */
export async function load(url: URL, next: () => Request, pace: Pace): Promise<Loaded> {
  const latencies: number[] = [];
  let [sent, conflicts] = [0, 0];
  const agent = new Agent({ keepAlive: true });
  const cpu = process.cpuUsage();
  const started = performance.now();
  const elapsed = (): number => (performance.now() - started) / 1_000;
  const more = (): boolean => ("seconds" in pace ? elapsed() < pace.seconds : sent < pace.requests);
  const one = async (dueAt: number): Promise<void> => {
    sent++;
    const { status, body } = await send(url, next(), agent);
    if (status >= 200 && status < 300) latencies.push(performance.now() - dueAt);
    else if (status === 409) conflicts++;
    else throw new Error(`a request was answered with ${status}: ${body}`);
  };
  const connection = async (): Promise<void> => {
    while (more()) await one(performance.now());
  };
  const byTheClock = async (perSecond: number): Promise<void> => {
    const open: Promise<void>[] = [];
    for (; more(); await sleep(STEP_MS)) {
      while (sent < elapsed() * perSecond && more()) {
        const request = one(started + (sent / perSecond) * 1_000);
        // It is awaited below; until then its failure is not unhandled.
        request.catch(() => {});
        open.push(request);
      }
    }
    await Promise.all(open);
  };
  try {
    if ("perSecond" in pace) await byTheClock(pace.perSecond);
    else await Promise.all(Array.from({ length: pace.connections }, connection));
  } finally {
    agent.destroy();
  }
  const { user, system } = process.cpuUsage(cpu);
  const client = (user + system) / 1e6 / elapsed();
  return { accepted: latencies.length, conflicts, latencies, seconds: elapsed(), client };
}

/** A round of a load: rate in 2xx a second, latencies in ms, shares in %. */
export const sampleOf = ({ accepted, conflicts, latencies, seconds, client }: Loaded): Sample => ({
  rate: accepted / seconds,
  p50: quantile(latencies, 0.5),
  p95: quantile(latencies, 0.95),
  p99: quantile(latencies, 0.99),
  refused: (100 * conflicts) / (accepted + conflicts),
  client: 100 * client,
});
