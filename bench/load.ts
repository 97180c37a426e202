// The bench's HTTP client, and the load that it makes.
import { request } from "node:http";
import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { quantile, type Sample } from "./results.ts";

export type Request = {
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** A POST when there is one, and a GET when not. */
  readonly body?: string | undefined;
};

/** One request. fetch would not send the host header, which names a Worker, and takes more of the processor. */
export function send({ hostname, port }: URL, { path, headers = {}, body }: Request) {
  const length = body === undefined ? {} : { "content-length": Buffer.byteLength(body) };
  const method = body === undefined ? "GET" : "POST";
  return new Promise<{ readonly status: number; readonly body: string }>((resolve, reject) => {
    request({ hostname, port, method, path, headers: { ...headers, ...length } }, (response) => {
      text(response).then((body) => resolve({ status: response.statusCode ?? 0, body }), reject);
    })
      .on("error", reject)
      .end(body);
  });
}

/**
 * A closed loop, each connection with one request at a time, or an open one: by the clock, whatever was answered. For so
 * long, or so many, or while something goes on.
 */
export type Pace = ({ readonly connections: number } | { readonly perSecond: number }) &
  ({ readonly seconds: number } | { readonly requests: number } | { readonly goesOn: () => boolean });

/** Timers are no more exact than this (ms); what an open loop has due by then is sent together. */
const STEP_MS = 4;

/**
 * Sends `next()` again and again, and waits for every response. Throws when one is neither 2xx nor 409. A sample has
 * what was accepted (2xx), in all and by the second, until the last response; latencies in ms, in an open loop from
 * when a request was due; `refused`, the 409s in %; and `client`, the share of one processor that making the requests
 * took in %: near 100, it is the load that is measured.
 */
export async function load(url: URL, next: () => Request, pace: Pace) {
  const latencies: number[] = [];
  let sent = 0;
  const cpu = process.cpuUsage();
  const started = performance.now();
  const elapsed = (): number => (performance.now() - started) / 1_000;
  const more = (): boolean => {
    if ("goesOn" in pace) return pace.goesOn();
    return "seconds" in pace ? elapsed() < pace.seconds : sent < pace.requests;
  };
  const one = async (dueAt: number): Promise<void> => {
    sent++;
    const { status, body } = await send(url, next());
    if (status >= 200 && status < 300) latencies.push(performance.now() - dueAt);
    else if (status !== 409) throw new Error(`a request was answered with ${status}: ${body}`);
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
  if ("perSecond" in pace) await byTheClock(pace.perSecond);
  else await Promise.all(Array.from({ length: pace.connections }, connection));
  const { user, system } = process.cpuUsage(cpu);
  const seconds = elapsed();
  return {
    accepted: latencies.length,
    rate: latencies.length / seconds,
    p50: quantile(latencies, 0.5),
    p95: quantile(latencies, 0.95),
    p99: quantile(latencies, 0.99),
    refused: (100 * (sent - latencies.length)) / sent,
    client: (user + system) / 1e4 / seconds,
  } satisfies Sample;
}
