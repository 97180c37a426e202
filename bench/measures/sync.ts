// Sync events over many customers, in turn with what a request through Durable Objects costs at least; and of one.
import { CUSTOMERS, type Edgemeter, IDENTITIES, type Named, withEdgemeters } from "../edgemeter.ts";
import { type Bench, figure, inTurn, type Measured, median, type Values } from "../results.ts";
import { BARE, yardsticksOn } from "../yardsticks.ts";

const CONNECTIONS = 32;

/** How sync events are sent: unless told by 32 connections and of many customers. */
type Load = Named & { readonly connections?: number; readonly customers?: number };

const LOADS: readonly Load[] = [...IDENTITIES, { id: "sync-128", name: "128 connections", connections: 128 }].map(
  (load) => ({ ...load, name: `sync events, ${load.name}` }),
);

const HOT = [
  { id: "hot", wait: "0" },
  { id: "hot-waiting", wait: "2000" },
];

/** The sides have Workers of their own for each setting. */
export async function measureHotCustomer(bench: Bench): Promise<Measured> {
  const figures = [];
  for (const { id, wait } of HOT) {
    const load: Load = { id, name: `one hot customer, CONFLICT_WAIT_MS ${wait}`, customers: 1 };
    const [present, ...others] = bench.sides.map((side) => ({ ...side, vars: { CONFLICT_WAIT_MS: wait } }));
    if (present === undefined) continue;
    const sides = [present, ...others] as const;
    const taken = await withEdgemeters(sides, [], (edgemeterOf) =>
      inTurn({ ...bench, sides }, { [id]: (seconds, side) => loaded(edgemeterOf(side), load, seconds) }),
    );
    const { cpu, rate, more } = figuresOf(load, taken);
    figures.push(cpu, rate, ...more);
  }
  return { figures };
}

export const measureSync = (bench: Bench): Promise<Measured> =>
  withEdgemeters(bench.sides, [BARE], async (edgemeterOf, workerd) => {
    const { shards } = bench.sides[0].settings;
    const yardstick = yardsticksOn(workerd, CONNECTIONS);
    const loads = LOADS.map((load) => [
      load.id,
      (seconds: number, side: Bench["sides"][0]) => loaded(edgemeterOf(side), load, seconds),
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
    const limits: Readonly<Record<string, object>> = { sync: grouped, "sync-128": echo };
    const byEcho = figure("sync-by-echo", "the same", "/s", taken("sync", "rate"), echo);
    const figures = LOADS.map((load) => figuresOf(load, taken, limits[load.id]));
    return {
      figures: [
        ...figures.map(({ cpu }) => cpu),
        figure("bare-worker-cpu", "processor time of a bare Worker's response", "ms", taken("worker", "cpu")),
        ...figures.flatMap(({ rate, more }, i) => [rate, ...(i === 0 ? [byEcho] : []), ...more]),
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

function figuresOf({ id, name }: Load, taken: (name: string, field: string) => Values, limit: object = {}) {
  const of = (field: string): Values => taken(id, field);
  return {
    cpu: figure(`${id}-cpu`, `processor time an event until aggregated: ${name}`, "ms", of("cpu")),
    rate: figure(id, name, "/s", of("rate"), { ...limit, note: clientNote(of("client")) }),
    more: [
      figure(`${id}-drained`, "  until aggregated", "/s", of("drained")),
      ...["p50", "p95", "p99"].map((p) => figure(`${id}-${p}`, `  ${p}`, "ms", of(p))),
      figure(`${id}-refused`, "  refused (409)", "%", of("refused")),
    ],
  };
}

/** Says so when making the requests took about all of a processor. */
export function clientNote({ rounds }: Values): string | undefined {
  const share = median(rounds);
  return share > 90 ? `making the requests took ${share.toFixed(0)} % of a processor` : undefined;
}
