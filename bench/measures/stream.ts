// Streams, until every event is in the summaries, in turn with the same workerd doing nothing but the bulk inserts that
// a stream cannot do without.
import { CUSTOMERS, type Edgemeter, STREAM_EVENTS, withEdgemeters } from "../edgemeter.ts";
import { type Bench, figure, inTurn, type Measured, ratio } from "../results.ts";
import { BARE, yardsticksOn } from "../yardsticks.ts";
import { clientNote } from "./sync.ts";

const CONNECTIONS = 8;

/** Rows of a bulk insert, see bench/bare. */
const BULK_ROWS = 1_000;

/** A shorter load measures what comes after it: the last second until its events are in the summaries. */
const SECONDS_AT_LEAST = 8;

/** Of the capacity that the round has measured, how much the paced requests ask for. */
const PACED_SHARE = 0.7;

export const measureStream = (bench: Bench): Promise<Measured> =>
  withEdgemeters(bench.sides, [BARE], async (edgemeterOf, workerd) => {
    const { shards } = bench.sides[0].settings;
    const yardstick = yardsticksOn(workerd, CONNECTIONS);
    const taken = await inTurn(
      { ...bench, seconds: Math.max(SECONDS_AT_LEAST, bench.seconds) },
      { stream: (seconds, side) => streamed(edgemeterOf(side), seconds) },
      { bulk: yardstick("bulk", (n) => n % shards) },
    );
    const of = (field: string) => taken("stream", field);
    const name = `stream, end to end: ${STREAM_EVENTS} events a request, ${CUSTOMERS} customers, ${CONNECTIONS} connections`;
    const limit = {
      name: `bulk inserts of ${BULK_ROWS} rows into a Durable Object, then into D1`,
      rounds: taken("bulk", "rate").rounds.map((rate) => rate * BULK_ROWS),
    };
    const paced = `  by the clock at ${100 * PACED_SHARE} % of that`;
    return {
      figures: [
        figure("stream-cpu", "processor time an event of a stream, until aggregated", "ms", of("cpu")),
        figure("stream", name, "events/s", of("drained"), { limit, note: clientNote(of("client")) }),
        figure("stream-accepted", "  accepted", "events/s", of("rate")),
        figure("stream-p50", "  p50 of a request", "ms", of("p50")),
        figure("stream-p99", "  p99", "ms", of("p99")),
        figure("stream-paced-p50", `${paced}: p50 of a request`, "ms", of("pacedP50")),
        figure("stream-paced-p99", `${paced}: p99`, "ms", of("pacedP99")),
        figure("stream-tail", `${paced}: p99 ÷ p50`, "×", ratio(of("pacedP99"), of("pacedP50"))),
      ],
    };
  });

/** As much as the connections can send, and then a share of what that came to, by the clock. */
async function streamed(edgemeter: Edgemeter, seconds: number) {
  const next = await edgemeter.streamEvents();
  const full = await edgemeter.aggregated(next, { connections: CONNECTIONS, seconds }, STREAM_EVENTS);
  const perSecond = (PACED_SHARE * full.drained) / STREAM_EVENTS;
  const paced = await edgemeter.load(next, { perSecond, seconds });
  await edgemeter.drained();
  return { ...full, pacedP50: paced.p50, pacedP99: paced.p99 };
}
