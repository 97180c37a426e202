// Sync events over many customers, in turn with what a request through Durable Objects costs at least; and of one.
import { CUSTOMERS, Edgemeter, type Identity } from "../edgemeter.ts";
import { type LocalWorkerd, withWorkerd } from "../local-workerd.ts";
import {
  type Bench,
  type Contestant,
  type Figure,
  figure,
  inTurn,
  type Measured,
  median,
  onEach,
  type Values,
} from "../results.ts";
import type { Side } from "../sides.ts";
import { BARE, measureYardstick } from "../yardsticks.ts";

const CONNECTIONS = 32;

/** How sync events are sent: unless told by 32 connections, of many customers, with an identifier and no key. */
type Load = {
  readonly id: string;
  readonly name: string;
  readonly identity?: Identity;
  readonly connections?: number;
  readonly customers?: number;
  readonly vars?: Readonly<Record<string, string>>;
};

const LOADS: readonly Load[] = [
  { id: "sync", name: "sync events, no Idempotency-Key" },
  { id: "sync-sdk-key", name: "sync events, an SDK's key", identity: { key: "sdk" } },
  {
    id: "sync-key",
    name: "sync events, a caller's key, no identifier",
    identity: { key: "caller", identifier: false },
  },
  { id: "sync-key-identifier", name: "sync events, a caller's key and an identifier", identity: { key: "caller" } },
  { id: "sync-128", name: "sync events, 128 connections", connections: 128 },
];

const HOT: readonly Load[] = [
  { id: "hot", name: "one hot customer, CONFLICT_WAIT_MS 0", customers: 1, vars: { CONFLICT_WAIT_MS: "0" } },
  {
    id: "hot-waiting",
    name: "one hot customer, CONFLICT_WAIT_MS 2000",
    customers: 1,
    vars: { CONFLICT_WAIT_MS: "2000" },
  },
];

export const measureHotCustomer = (bench: Bench): Promise<Measured> =>
  withWorkerd(workersOf(bench, HOT), async (workerd) => {
    const taken = await inTurn(bench, await contestantsOf(bench, HOT, workerd));
    return {
      figures: HOT.map((load) => figuresOf(load, taken)).flatMap(({ cpu, rate, more }) => [cpu, rate, ...more]),
    };
  });

export const measureSync = (bench: Bench): Promise<Measured> =>
  withWorkerd([...workersOf(bench, LOADS), BARE], async (workerd) => {
    const { shards } = bench.sides[0].settings;
    const yardstick = (route: string, object: (n: number) => string | number, seconds: number): Contestant => ({
      name: route,
      measure: () => measureYardstick(workerd, { route, object, connections: CONNECTIONS, seconds }),
    });
    const yardsticks = [
      yardstick("echo", (n) => n % CUSTOMERS, bench.seconds),
      yardstick("grouped", (n) => `${n % CUSTOMERS}:${n % shards}`, bench.seconds),
      yardstick("insert", (n) => n % shards, bench.seconds),
      yardstick("worker", () => 0, bench.seconds / 2),
      yardstick("d1", () => 0, bench.seconds / 2),
    ];
    const contestants = await contestantsOf(bench, LOADS, workerd);
    bench.progress("warming up");
    for (const { measure } of [...yardsticks.slice(0, 3), ...contestants.slice(0, bench.sides.length)]) await measure();
    const taken = await inTurn(bench, [...yardsticks, ...contestants]);
    const limit = (route: string, name: string) => ({ limit: { name, rounds: taken(route, "rate").rounds } });
    const echo = limit("echo", `bare round trips to ${CUSTOMERS} objects`);
    const limits: Readonly<Record<string, object>> = {
      sync: limit("grouped", `two hops, over ${CUSTOMERS} objects to ${shards} that group rows`),
      "sync-128": echo,
    };
    const same = (id: string, limit: object): Figure => figure(id, "the same", "/s", taken("sync", "rate"), limit);
    const besides = [
      same("sync-by-echo", echo),
      same("sync-by-insert", limit("insert", `bare durable inserts of one row over ${shards} objects`)),
    ];
    const figures = LOADS.map((load) => figuresOf(load, taken, limits[load.id]));
    return {
      figures: [
        ...figures.map(({ cpu }) => cpu),
        figure("bare-worker-cpu", "processor time of a bare Worker's response", "ms", taken("worker", "cpu")),
        ...figures.flatMap(({ rate, more }, i) => [rate, ...(i === 0 ? besides : []), ...more]),
        figure("bare-worker", "bare Worker responses", "/s", taken("worker", "rate")),
        figure("bare-d1", "bare D1 inserts, one row each", "/s", taken("d1", "rate")),
      ],
    };
  });

/** A load with settings of its own has a Worker of its own. */
const workerOf = (side: Side, { id, vars }: Load): Side =>
  vars === undefined ? side : { ...side, name: `${side.name}-${id}`, vars };

const workersOf = ({ sides }: Bench, loads: readonly Load[]): Side[] => {
  const workers = sides.flatMap((side) => loads.map((load) => workerOf(side, load)));
  return [...new Map(workers.map((worker) => [worker.name, worker])).values()];
};

async function contestantsOf(bench: Bench, loads: readonly Load[], workerd: LocalWorkerd): Promise<Contestant[]> {
  for (const worker of workersOf(bench, loads)) await new Edgemeter(workerd, worker).createMeter();
  return loads.flatMap((load) => {
    const { id, identity, customers = CUSTOMERS, connections = CONNECTIONS } = load;
    return onEach(bench.sides, id, async (side) => {
      const edgemeter = new Edgemeter(workerd, workerOf(side, load));
      const next = edgemeter.syncEvents(identity, customers);
      // Objects that slept are woken before their time is taken.
      await edgemeter.load(next, { connections, requests: customers });
      await edgemeter.drained();
      return edgemeter.aggregated(next, { connections, seconds: bench.seconds });
    });
  });
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
