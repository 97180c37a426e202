// The peer's figures: the thing a team would write instead of edgemeter, under the same load.
// `node bench/peer/measure.ts` prints them as JSON.
import { fork } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import fastify from "fastify/package.json" with { type: "json" };
import pg from "pg";
import { hashOf } from "../../src/catalog/key-hash.ts";
import { quantile } from "../statistics.ts";
import { Reporter } from "./load.ts";
import { type Postgres, startPostgres } from "./postgres.ts";

/** Times in ms, rates per second. */
export type PeerResult = {
  readonly eventsPerSecond: number;
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
  /** Of the requests of one hot customer, the share that is answered with 409. */
  readonly refusedShare409: number;
  /** In requests of 100, from the first request until the summaries hold the last event. */
  readonly batchEventsPerSecond: number;
  /** From a 200 to the summary that shows it, idle. */
  readonly freshnessP50Ms: number;
  readonly versions: { readonly fastify: string; readonly postgresql: string };
};

export type PeerOptions = {
  /** How long each load lasts. */
  readonly seconds: number;
  readonly connections: number;
  readonly customers: number;
  readonly onProgress?: (text: string) => void;
};

const KEY = "sk_test_edgemeter_peer";
const METER = "mtr_test_tokens";
const BATCH = 100;
/** Enough to keep the database busy: each brings 100 events. */
const BATCH_CONNECTIONS = 8;
const FRESHNESS_SAMPLES = 40;
/** Over so long the samples are spread, so that they meet the aggregation at any of its moments (ms). */
const FRESHNESS_MS = 8_000;
/** How long the last event may take to be in its summary (ms). */
const AGGREGATED_WITHIN_MS = 60_000;

const SEED = `
  INSERT INTO api_keys VALUES ('${hashOf(KEY)}', false);
  INSERT INTO meters VALUES ('${METER}', false, 'tokens', 'sum', 'stripe_customer_id', 'value', 'active')`;

/** Measures the peer; nothing where PostgreSQL is not installed. Throws when its sums are not what it acknowledged. */
export async function measurePeer(options: PeerOptions): Promise<PeerResult | undefined> {
  const { onProgress = () => {} } = options;
  onProgress("PostgreSQL starts");
  const postgres = await startPostgres();
  if (postgres === undefined) return undefined;
  const { PGHOST: host, PGUSER: user, PGDATABASE: database } = postgres.env;
  const db = new pg.Client({ host, user, database });
  try {
    await db.connect();
    await db.query(await readFile(path.join(import.meta.dirname, "schema.sql"), "utf8"));
    await db.query(SEED);
    const server = await startServer(postgres);
    try {
      const figures = await measure(new Reporter(server.url, KEY), db, { ...options, onProgress });
      return { ...figures, versions: { fastify: fastify.version, postgresql: postgres.version } };
    } finally {
      await server.stop();
    }
  } finally {
    await db.end();
    await postgres.stop();
  }
}

async function measure(
  reporter: Reporter,
  db: pg.Client,
  { seconds, connections, customers, onProgress }: Required<PeerOptions>,
): Promise<Omit<PeerResult, "versions">> {
  onProgress("warms up");
  await reporter.load(() => reporter.event(customers), connections, seconds);

  onProgress(`${customers} customers, ${connections} connections`);
  const sync = await reporter.load(() => reporter.event(customers), connections, seconds);

  onProgress("one hot customer");
  const hot = await reporter.load(() => reporter.event(1), connections, seconds);
  const refused = hot.answers.get(409) ?? 0;

  onProgress(`requests of ${BATCH} events`);
  await aggregated(reporter, db);
  const started = performance.now();
  const batch = await reporter.load(() => reporter.batch(customers, BATCH), BATCH_CONNECTIONS, seconds);
  await aggregated(reporter, db);
  const batchSeconds = (performance.now() - started) / 1_000;

  onProgress("freshness");
  const waits = await Promise.all(
    Array.from({ length: FRESHNESS_SAMPLES }, async (_, sample) => {
      await sleep(Math.random() * FRESHNESS_MS);
      return freshness(reporter, `cus_fresh_${sample}`);
    }),
  );
  await aggregated(reporter, db);

  return {
    eventsPerSecond: sync.latencies.length / sync.seconds,
    p50: quantile(sync.latencies, 0.5),
    p95: quantile(sync.latencies, 0.95),
    p99: quantile(sync.latencies, 0.99),
    refusedShare409: refused / (refused + hot.latencies.length),
    batchEventsPerSecond: batch.acknowledged / batchSeconds,
    freshnessP50Ms: quantile(waits, 0.5),
  };
}

/** From the 200 to an event of this customer, its first, until its summary shows it (ms). */
async function freshness(reporter: Reporter, customer: string): Promise<number> {
  await reporter.send(reporter.event(customer));
  const answered = performance.now();
  while ((await reporter.summary(METER, customer)) === 0) await sleep(5);
  return performance.now() - answered;
}

/** Waits until the summaries are, customer by customer, what was acknowledged; throws when they do not become it. */
async function aggregated({ acknowledged }: Reporter, db: pg.Client): Promise<void> {
  for (const started = Date.now(); ; await sleep(20)) {
    const { rows } = await db.query<{ customer: string; sum: string }>(
      "SELECT customer, sum(sum)::text AS sum FROM hourly_summaries GROUP BY customer",
    );
    const wrong = rows.filter(({ customer, sum }) => BigInt(sum) !== BigInt(acknowledged.get(customer) ?? 0));
    if (rows.length === acknowledged.size && wrong.length === 0) return;
    if (Date.now() - started > AGGREGATED_WITHIN_MS) {
      throw new Error(
        `the peer's summaries are not what it acknowledged: ${rows.length} customers for ${acknowledged.size}, ${wrong.length} wrong`,
      );
    }
  }
}

/** The server in a process of its own, so that it shares no thread with the load. */
async function startServer({ env }: Postgres): Promise<{ url: string; stop: () => Promise<void> }> {
  const child = fork(path.join(import.meta.dirname, "server.ts"), { env: { ...process.env, ...env }, execArgv: [] });
  const exit = once(child, "exit");
  const first = await Promise.race([once(child, "message"), exit.then(() => undefined)]);
  if (first === undefined) throw new Error("the peer's server did not start");
  return {
    url: String(first[0]),
    stop: async () => {
      child.kill();
      await exit;
    },
  };
}

if (import.meta.main) {
  const result = await measurePeer({
    seconds: Number(process.argv[2] ?? 5),
    connections: Number(process.argv[3] ?? 32),
    customers: Number(process.argv[4] ?? 1_000),
    onProgress: (text) => console.error(text),
  });
  console.log(JSON.stringify(result ?? "PostgreSQL is not installed", null, 2));
}
