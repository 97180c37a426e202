// What a team would write instead: Fastify and PostgreSQL, see bench/peer.
import { fork } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import fastify from "fastify/package.json" with { type: "json" };
import { CUSTOMERS, STREAM_EVENTS } from "../edgemeter.ts";
import { load, type Request, sampleOf, send } from "../load.ts";
import { startPostgres } from "../peer/postgres.ts";
import { type Bench, figure, inTurn, type Measured, type Sample } from "../results.ts";
import { root } from "../sides.ts";

export async function measurePeer(bench: Bench): Promise<Measured> {
  const postgres = await startPostgres();
  if (postgres === undefined) {
    const note = "skipped: PostgreSQL's server is not installed";
    return { figures: [figure("peer-sync", "events", "/s", { rounds: [Number.NaN] }, { note })] };
  }
  const server = fork(path.join(root, "bench/peer/server.ts"), [postgres.socket], { execArgv: [] });
  const exit = once(server, "exit");
  try {
    const [url] = await Promise.race([once(server, "message"), exit.then(() => [])]);
    return await measure(new URL(String(url)), postgres.version, bench);
  } finally {
    server.kill();
    await exit;
    await postgres.stop();
  }
}

async function measure(url: URL, version: string, bench: Bench): Promise<Measured> {
  let [made, accepted] = [0, 0];
  const report = (customers: number) => ({
    identifier: `e${made}`,
    customer: `cus_${made++ % customers}`,
    value: "25",
  });
  const post = (path: string, body: object): Request => {
    const headers = { "content-type": "application/json" };
    return { method: "POST", path, headers, body: JSON.stringify(body) };
  };
  const batch = (): Request =>
    post(
      "/events",
      Array.from({ length: STREAM_EVENTS }, () => report(CUSTOMERS)),
    );
  const loaded = async (next: () => Request, connections: number, events = 1): Promise<Sample> => {
    const outcome = await load(url, next, { connections, seconds: bench.seconds });
    accepted += outcome.accepted * events;
    return { ...sampleOf(outcome), events: (outcome.accepted * events) / outcome.seconds };
  };
  const sumOf = async (query: string): Promise<string> =>
    JSON.parse((await send(url, { method: "GET", path: `/sum${query}`, headers: {} })).body).sum;
  const freshness = async (): Promise<Sample> => {
    const customer = `fresh_${made}`;
    await send(url, post("/event", { ...report(1), customer }));
    const answered = performance.now();
    accepted++;
    while ((await sumOf(`?customer=${customer}`)) === "0") {}
    return { ms: performance.now() - answered };
  };
  const sync = { name: "sync", measure: () => loaded(() => post("/event", report(CUSTOMERS)), 32) };
  await sync.measure();
  const taken = await inTurn(bench, [
    sync,
    { name: "hot", measure: () => loaded(() => post("/event", report(1)), 32) },
    { name: "batch", measure: () => loaded(batch, 8, STREAM_EVENTS) },
    { name: "fresh", measure: freshness },
  ]);
  const sum = await sumOf("");
  if (sum !== String(accepted * 25)) throw new Error(`the peer's sum is ${sum} after ${accepted} events of 25`);
  const note = `fastify ${fastify.version}, ${version}`;
  return {
    figures: [
      figure("peer-sync", `events, ${CUSTOMERS} customers, 32 connections`, "/s", taken("sync", "rate"), { note }),
      ...["p50", "p95", "p99"].map((p) => figure(`peer-${p}`, `  ${p}`, "ms", taken("sync", p))),
      figure("peer-hot", "one hot customer, 409", "%", taken("hot", "refused")),
      figure("peer-stream", `requests of ${STREAM_EVENTS} events, until summed`, "events/s", taken("batch", "events")),
      figure("peer-freshness", "freshness, idle, p50", "ms", taken("fresh", "ms")),
    ],
  };
}
