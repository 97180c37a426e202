// Streams, until every event is in the summaries, in turn with the same workerd doing nothing but the bulk inserts that
// a stream cannot do without.
import { CUSTOMERS, Edgemeter, STREAM_EVENTS } from "../edgemeter.ts";
import { sampleOf } from "../load.ts";
import { withWorkerd } from "../local-workerd.ts";
import { type Bench, figure, inTurn, type Measured, onEach, type Sample, zip } from "../results.ts";
import { BARE, measureYardstick } from "../yardsticks.ts";
import { clientNote } from "./sync.ts";

const CONNECTIONS = 8;

/** Rows of a bulk insert, see bench/bare. */
const BULK_ROWS = 1_000;

/** Of the capacity that the round has measured, how much the paced requests ask for. */
const PACED_SHARE = 0.7;

export const measureStream = (bench: Bench): Promise<Measured> =>
  withWorkerd([...bench.sides, BARE], async (workerd) => {
    const { shards } = bench.sides[0].settings;
    const bulk = (route: string, seconds: number) => ({
      name: route,
      measure: async (): Promise<Sample> => {
        const object = (n: number): number => n % shards;
        const sample = await measureYardstick(workerd, { route, object, connections: CONNECTIONS, seconds });
        return { rate: (sample.rate ?? 0) * BULK_ROWS };
      },
    });
    bench.progress("warming up");
    for (const side of bench.sides) {
      const edgemeter = new Edgemeter(workerd, side);
      await edgemeter.createMeter();
      await edgemeter.load(await edgemeter.streamEvents(), { connections: CONNECTIONS, requests: 4 * CONNECTIONS });
      await edgemeter.drained();
    }
    const streams = onEach(bench.sides, "stream", (side) => streamed(new Edgemeter(workerd, side), bench.seconds));
    const bulks = [
      bulk("bulk-object", bench.seconds / 2),
      bulk("bulk-d1", bench.seconds / 2),
      bulk("bulk-both", bench.seconds),
    ];
    const taken = await inTurn(bench, [...bulks, ...streams]);
    const of = (field: string) => taken("stream", field);
    const name = `stream, end to end: ${STREAM_EVENTS} events a request, ${CUSTOMERS} customers, ${CONNECTIONS} connections`;
    const limit = {
      name: `bulk inserts of ${BULK_ROWS} rows into a Durable Object, then into D1`,
      rounds: taken("bulk-both", "rate").rounds,
    };
    const paced = `  by the clock at ${100 * PACED_SHARE} % of that`;
    const tail = zip(of("pacedP99"), of("pacedP50"), (a, b) => a / b);
    return {
      figures: [
        figure("stream-cpu", "processor time an event of a stream, until aggregated", "ms", of("cpu")),
        figure("stream", name, "events/s", of("drained"), { limit, note: clientNote(of("client")) }),
        figure("stream-accepted", "  accepted", "events/s", of("rate")),
        figure("stream-p50", "  p50 of a request", "ms", of("p50")),
        figure("stream-p99", "  p99", "ms", of("p99")),
        figure("stream-paced-p50", `${paced}: p50 of a request`, "ms", of("pacedP50")),
        figure("stream-paced-p99", `${paced}: p99`, "ms", of("pacedP99")),
        figure("stream-tail", `${paced}: p99 ÷ p50`, "×", tail),
        figure("bulk-object", "bulk inserts into Durable Objects", "rows/s", taken("bulk-object", "rate")),
        figure("bulk-d1", "bulk inserts into D1", "rows/s", taken("bulk-d1", "rate")),
      ],
    };
  });

/** As much as the connections can send, and then a share of what that came to, by the clock. */
async function streamed(edgemeter: Edgemeter, seconds: number): Promise<Sample> {
  const next = await edgemeter.streamEvents();
  const full = await edgemeter.aggregated(next, { connections: CONNECTIONS, seconds }, STREAM_EVENTS);
  const perSecond = (PACED_SHARE * (full.drained ?? 0)) / STREAM_EVENTS;
  const paced = sampleOf(await edgemeter.load(next, { perSecond, seconds }));
  await edgemeter.drained();
  return { ...full, pacedP50: paced.p50 ?? Number.NaN, pacedP99: paced.p99 ?? Number.NaN };
}
