// Streams, until every event is in the summaries, in turn with the same workerd doing nothing but the
// bulk inserts that a stream cannot do without.
import { Edgemeter } from "../edgemeter.ts";
import { type Loaded, load, withoutFailures } from "../load.ts";
import { BARE, EDGEMETER, type LocalWorkerd, withWorkerd } from "../local-workerd.ts";
import type { Bench, Measured } from "../results.ts";
import { besideLimit, ROUNDS } from "../rounds.ts";
import { median, quantile } from "../statistics.ts";
import { bare, CUSTOMERS, STREAM_EVENTS, streamEvents } from "../targets.ts";
import { clientNote } from "./sync.ts";

const CONNECTIONS = 8;

/** Rows of a bulk insert, see bench/bare/bulk.ts. */
const BULK_ROWS = 1_000;

type Streamed = {
  readonly loaded: Loaded;
  /** Events a second, from the first request until D1 had the last one. */
  readonly aggregated: number;
  readonly cpuPerEvent: number;
};

export const measureStream = (bench: Bench): Promise<Measured> =>
  withWorkerd([EDGEMETER, BARE], async (workerd) => {
    const edgemeter = new Edgemeter(workerd, EDGEMETER);
    await edgemeter.createMeter();
    const token = await edgemeter.openSession();
    bench.progress("warming up");
    await load(workerd.url, streamEvents(EDGEMETER, token), CONNECTIONS, { requests: 4 * CONNECTIONS });
    await edgemeter.drained();
    const bulk = { object: [] as number[], d1: [] as number[], both: [] as number[] };
    const streams: Streamed[] = [];
    for (let round = 1; round <= ROUNDS; round++) {
      bench.progress(`round ${round} of ${ROUNDS}`);
      bulk.object.push(await bulkRate(workerd, "bulk-object", bench, bench.seconds / 2));
      bulk.d1.push(await bulkRate(workerd, "bulk-d1", bench, bench.seconds / 2));
      bulk.both.push(await bulkRate(workerd, "bulk-both", bench, bench.seconds));
      streams.push(await stream(workerd, edgemeter, token, bench.seconds));
    }
    const loads = streams.map(({ loaded }) => loaded);
    const note = clientNote(loads);
    const latencies = loads.flatMap((loaded) => loaded.latencies);
    const inTurn = `bulk inserts of ${BULK_ROWS} rows into a Durable Object, then into D1`;
    return {
      figures: [
        { id: "bulk-object", name: "bulk inserts into Durable Objects", value: median(bulk.object), unit: "rows/s" },
        { id: "bulk-d1", name: "bulk inserts into D1", value: median(bulk.d1), unit: "rows/s" },
        {
          id: "stream-accepted",
          name: `stream, ${STREAM_EVENTS} events a request, ${CUSTOMERS} customers, ${CONNECTIONS} connections: accepted`,
          value: median(loads.map(({ rate }) => rate * STREAM_EVENTS)),
          unit: "events/s",
          ...(note === undefined ? {} : { note }),
        },
        { id: "stream-p50", name: "  p50 of a request", value: quantile(latencies, 0.5), unit: "ms" },
        { id: "stream-p99", name: "  p99", value: quantile(latencies, 0.99), unit: "ms" },
        besideLimit(
          { id: "stream", name: "stream, end to end, until aggregated", unit: "events/s" },
          streams.map(({ aggregated }) => aggregated),
          inTurn,
          bulk.both,
        ),
        {
          id: "stream-cpu",
          name: "CPU per event of a stream, until aggregated",
          value: median(streams.map(({ cpuPerEvent }) => cpuPerEvent)),
          unit: "ms",
          note: "all of workerd; nothing is subtracted",
        },
      ],
    };
  });

async function bulkRate(workerd: LocalWorkerd, route: string, bench: Bench, seconds: number): Promise<number> {
  const loaded = await load(workerd.url, bare(BARE, route, bench.settings.shards), CONNECTIONS, { seconds });
  return withoutFailures(loaded).rate * BULK_ROWS;
}

async function stream(workerd: LocalWorkerd, edgemeter: Edgemeter, token: string, seconds: number): Promise<Streamed> {
  const before = await edgemeter.stored();
  const cpu = await workerd.cpuMs();
  const started = performance.now();
  const loaded = withoutFailures(await load(workerd.url, streamEvents(EDGEMETER, token), CONNECTIONS, { seconds }));
  await edgemeter.drained();
  const elapsed = (performance.now() - started) / 1_000;
  const spent = (await workerd.cpuMs()) - cpu;
  // What D1 has, not what was answered: the last requests were cut off before their answers.
  const stored = (await edgemeter.stored()) - before;
  if (stored < loaded.accepted * STREAM_EVENTS) throw new Error("events that were accepted are not in D1");
  return { loaded, aggregated: stored / elapsed, cpuPerEvent: spent / stored };
}
