// What a team would write instead: Fastify and PostgreSQL, see bench/peer.
import { fork } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import fastify from "fastify/package.json" with { type: "json" };
import { CUSTOMERS, STREAM_EVENTS } from "../edgemeter.ts";
import { load, type Request, send } from "../load.ts";
import { type Bench, figure, inTurn, type Measured } from "../results.ts";
import { root } from "../sides.ts";

export async function measurePeer(bench: Bench): Promise<Measured> {
  // A group of its own: a Ctrl-C meant for the bench reaches it as the end of the bench, so that it can tidy up.
  const server = fork(path.join(root, "bench/peer/server.ts"), { execArgv: [], detached: true });
  const exit = once(server, "exit");
  try {
    const [listening] = await Promise.race([once(server, "message"), exit.then(() => [])]);
    if (listening) return await measure(new URL(listening.url), listening.version, bench);
    if (server.exitCode !== 0) throw new Error("the peer did not start");
    const note = "skipped: PostgreSQL's server is not installed";
    return { figures: [figure("peer-sync", "events", "/s", { rounds: [] }, { note })] };
  } finally {
    if (server.connected) server.disconnect();
    await exit;
  }
}

async function measure(url: URL, version: string, bench: Bench): Promise<Measured> {
  let [made, accepted] = [0, 0];
  const report = (customers = CUSTOMERS) => ({
    identifier: `e${made}`,
    customer: `cus_${made++ % customers}`,
    value: "25",
  });
  const post = (path: string, body: object): Request => ({
    path,
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  const loaded =
    (next: () => Request, connections: number, events = 1) =>
    async (seconds: number) => {
      const outcome = await load(url, next, { connections, seconds });
      accepted += outcome.accepted * events;
      return { ...outcome, rate: outcome.rate * events };
    };
  const sumOf = async (query: string): Promise<string> =>
    JSON.parse((await send(url, { path: `/sum${query}` })).body).sum;
  const freshness = async () => {
    const customer = `fresh_${made}`;
    await send(url, post("/event", { ...report(), customer }));
    const answered = performance.now();
    accepted++;
    while ((await sumOf(`?customer=${customer}`)) === "0") {}
    return { ms: performance.now() - answered };
  };
  const batch = () =>
    post(
      "/events",
      Array.from({ length: STREAM_EVENTS }, () => report()),
    );
  const taken = await inTurn(
    bench,
    {},
    {
      sync: loaded(() => post("/event", report()), 32),
      hot: loaded(() => post("/event", report(1)), 32),
      batch: loaded(batch, 8, STREAM_EVENTS),
      fresh: freshness,
    },
  );
  const sum = await sumOf("");
  if (sum !== String(accepted * 25)) throw new Error(`the peer's sum is ${sum} after ${accepted} events of 25`);
  const note = `fastify ${fastify.version}, ${version}`;
  return {
    figures: [
      figure("peer-sync", `events, ${CUSTOMERS} customers, 32 connections`, "/s", taken("sync", "rate"), { note }),
      ...["p50", "p95", "p99"].map((p) => figure(`peer-${p}`, `  ${p}`, "ms", taken("sync", p))),
      figure("peer-hot", "one hot customer, 409", "%", taken("hot", "refused")),
      figure("peer-stream", `requests of ${STREAM_EVENTS} events, until summed`, "events/s", taken("batch", "rate")),
      figure("peer-freshness", "freshness, idle, p50", "ms", taken("fresh", "ms")),
    ],
  };
}
