// Sync events over many customers, in turn with what a request through Durable Objects costs at least; and of one.
import { CUSTOMERS, type Edgemeter, IDENTITIES, type Named, withEdgemeters } from "../edgemeter.ts";
import { type Bench, type Figure, figure, inTurn, type Measured, median, type Values } from "../results.ts";
import type { Side } from "../sides.ts";
import { BARE, yardsticksOn } from "../yardsticks.ts";

const CONNECTIONS = 32;

/** How sync events are sent: unless told by 32 connections and of many customers. */
type Load = Named & { readonly connections?: number; readonly customers?: number };

const LOADS: readonly Load[] = [...IDENTITIES, { id: "sync-128", name: "128 connections", connections: 128 }].map(
  (load) => ({ ...load, name: `sync events, ${load.name}` }),
);

/** The sides have Workers of their own for each setting. */
export async function measureHotCustomer(bench: Bench): Promise<Measured> {
  const figures: Figure[] = [];
  for (const wait of ["0", "2000"]) {
    const load: Load = { id: `hot-${wait}`, name: `one hot customer, CONFLICT_WAIT_MS ${wait}`, customers: 1 };
    const waiting = (side: Side): Side => ({ ...side, vars: { CONFLICT_WAIT_MS: wait } });
    const [present, ...others] = bench.sides;
    const sides = [waiting(present), ...others.map(waiting)] as const;
    const taken = await withEdgemeters(sides, [], (edgemeterOf) =>
      inTurn({ ...bench, sides }, { [load.id]: (seconds, side) => loaded(edgemeterOf(side), load, seconds) }),
    );
    figures.push(processorOf(load, taken), ...figuresOf(load, taken));
  }
  return { figures };
}

export const measureSync = (bench: Bench): Promise<Measured> =>
  withEdgemeters(bench.sides, [BARE], async (edgemeterOf, workerd) => {
    const { shards } = bench.sides[0].settings;
    const yardstick = yardsticksOn(workerd, CONNECTIONS);
    const loads = LOADS.map((load) => [
      load.id,
      (seconds: number, side: Side) => loaded(edgemeterOf(side), load, seconds),
    ]);
    const taken = await inTurn(bench, Object.fromEntries(loads), {
      echo: yardstick("echo", (n) => n % CUSTOMERS),
      grouped: yardstick("grouped", (n) => `${n % CUSTOMERS}:${n % shards}`),
      worker: yardstick("worker", () => 0, 0.5),
      d1: yardstick("d1", () => 0, 0.5),
    });
    const limit = (route: string, name: string) => ({ limit: { name, rounds: taken(route, "rate").rounds } });
    const echo = limit("echo", `bare round trips to ${CUSTOMERS} objects`);
    const grouped = limit("grouped", `two hops, over ${CUSTOMERS} objects to ${shards} that group rows`);
    return {
      figures: [
        ...LOADS.map((load) => processorOf(load, taken)),
        figure("bare-worker-cpu", "processor time of a bare Worker's response", "ms", taken("worker", "cpu")),
        ...LOADS.flatMap((load) => figuresOf(load, taken, load.id === "sync" ? grouped : {})),
        figure("sync-by-echo", "sync events, no Idempotency-Key", "/s", taken("sync", "rate"), echo),
        figure("bare-worker", "bare Worker responses", "/s", taken("worker", "rate")),
        figure("bare-d1", "bare D1 inserts, one row each", "/s", taken("d1", "rate")),
      ],
    };
  });

async function loaded(edgemeter: Edgemeter, load: Load, seconds: number) {
  const { identity, customers = CUSTOMERS, connections = CONNECTIONS } = load;
  const next = edgemeter.syncEvents(identity, customers);
  // Objects that slept are woken before their time is taken.
  await edgemeter.load(next, { connections, requests: customers });
  await edgemeter.drained();
  return edgemeter.aggregated(next, { connections, seconds });
}

type Taken = (name: string, field: string) => Values;

const processorOf = ({ id, name }: Load, taken: Taken): Figure =>
  figure(`${id}-cpu`, `processor time an event, until aggregated: ${name}`, "ms", taken(id, "cpu"));

function figuresOf({ id, name }: Load, taken: Taken, limit: object = {}): Figure[] {
  const of = (field: string): Values => taken(id, field);
  return [
    figure(id, name, "/s", of("rate"), { ...limit, note: clientNote(of("client")) }),
    figure(`${id}-drained`, "  until aggregated", "/s", of("drained")),
    ...["p50", "p95", "p99"].map((p) => figure(`${id}-${p}`, `  ${p}`, "ms", of(p))),
    figure(`${id}-refused`, "  refused (409)", "%", of("refused")),
  ];
}

/** Says so when making the requests took about all of a processor. */
export function clientNote({ rounds }: Values): string | undefined {
  const share = median(rounds);
  return share > 90 ? `making the requests took ${share.toFixed(0)} % of a processor` : undefined;
}
