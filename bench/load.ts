// A closed loop: so many connections, each with one request at a time, for a while or so many requests.
import autocannon from "autocannon";
import type { Target } from "./targets.ts";

export type Loaded = {
  /** Answers with a 2xx. */
  readonly accepted: number;
  /** Answers with a 409. */
  readonly conflicts: number;
  /** All others, and requests without an answer. */
  readonly failed: number;
  /** From the first request to the last answer. */
  readonly seconds: number;
  /** 2xx a second. */
  readonly rate: number;
  /** How long each 2xx took (ms). */
  readonly latencies: readonly number[];
  /** Share of one processor that making the requests took: near 1, it is the load that is measured. */
  readonly clientCpu: number;
};

export type Extent = { readonly seconds: number } | { readonly requests: number };

export async function load(url: URL, target: Target, connections: number, extent: Extent): Promise<Loaded> {
  const latencies: number[] = [];
  let conflicts = 0;
  let answered = 0;
  const started = performance.now();
  let ended = started;
  const cpu = process.cpuUsage();
  const limit = "seconds" in extent ? { duration: extent.seconds } : { amount: extent.requests };
  const options: autocannon.Options & { sampleInt: number } = {
    url: url.origin,
    connections,
    ...limit,
    // How often it looks whether its time is over (ms).
    sampleInt: 50,
    requests: [{ setupRequest: (request) => ({ ...request, ...target() }) }],
  };
  const result = await new Promise<autocannon.Result>((resolve, reject) => {
    const run = autocannon(options, (error: Error | null, result) => (error ? reject(error) : resolve(result)));
    run.on("response", (_client, status, _bytes, latency) => {
      answered++;
      ended = performance.now();
      if (status >= 200 && status < 300) latencies.push(latency);
      if (status === 409) conflicts++;
    });
  });
  const { user, system } = process.cpuUsage(cpu);
  const seconds = (ended - started) / 1_000;
  const accepted = latencies.length;
  return {
    accepted,
    conflicts,
    failed: answered - accepted - conflicts + result.errors,
    seconds,
    rate: accepted / seconds,
    latencies,
    clientCpu: (user + system) / 1_000 / (ended - started),
  };
}

/** Throws when anything but 2xx and 409 was answered: then it is not what was meant to be measured. */
export function withoutFailures(loaded: Loaded): Loaded {
  if (loaded.failed > 0) throw new Error(`${loaded.failed} of ${loaded.accepted + loaded.failed} requests failed`);
  if (loaded.accepted === 0) throw new Error("no request was answered");
  return loaded;
}
