// Sync events over many customers, in turn with what a request through Durable Objects costs at least.
import { Edgemeter } from "../edgemeter.ts";
import { type Loaded, load, withoutFailures } from "../load.ts";
import { BARE, EDGEMETER, type LocalWorkerd, withWorkerd } from "../local-workerd.ts";
import type { Bench, Figure, Measured } from "../results.ts";
import { besideLimit, ROUNDS } from "../rounds.ts";
import { median, quantile, sum } from "../statistics.ts";
import { bare, CUSTOMERS, syncEvents, type Target } from "../targets.ts";

const CONNECTIONS = 32;
const MANY_CONNECTIONS = 128;

/** What a round measured. */
type Round = {
  readonly echo: number;
  readonly insert: number;
  readonly worker: number;
  readonly d1: number;
  readonly few: Aggregated;
  readonly many: Aggregated;
};

/** A load of events, and what it took until D1 had them all. */
type Aggregated = Loaded & { readonly drainedRate: number; readonly cpuPerEvent: number };

export const measureSync = (bench: Bench): Promise<Measured> =>
  withWorkerd([EDGEMETER, BARE], async (workerd) => {
    const edgemeter = new Edgemeter(workerd, EDGEMETER);
    await edgemeter.createMeter();
    bench.progress("warming up");
    for (const target of [
      bare(BARE, "echo", CUSTOMERS),
      bare(BARE, "insert", bench.settings.shards),
      syncEvents(EDGEMETER),
    ]) {
      await load(workerd.url, target, CONNECTIONS, { seconds: bench.seconds });
    }
    await edgemeter.drained();
    const rounds: Round[] = [];
    for (let round = 1; round <= ROUNDS; round++) {
      bench.progress(`round ${round} of ${ROUNDS}`);
      rounds.push(await measureRound(workerd, edgemeter, bench));
    }
    return { figures: figuresOf(rounds, bench.settings.shards) };
  });

async function measureRound(workerd: LocalWorkerd, edgemeter: Edgemeter, bench: Bench): Promise<Round> {
  const rate = async (route: string, objects: number, seconds: number) =>
    (await awake(workerd, bare(BARE, route, objects), CONNECTIONS, seconds)).rate;
  return {
    echo: await rate("echo", CUSTOMERS, bench.seconds),
    insert: await rate("insert", bench.settings.shards, bench.seconds),
    few: await aggregated(workerd, edgemeter, CONNECTIONS, bench.seconds),
    many: await aggregated(workerd, edgemeter, MANY_CONNECTIONS, bench.seconds),
    worker: await rate("worker", 1, bench.seconds / 2),
    d1: await rate("d1", 1, bench.seconds / 2),
  };
}

/**
 * workerd ends an object that had nothing to do for ten seconds, which is about what the other loads
 * of a round take, so each is woken before its time is taken.
 */
const wake = (workerd: LocalWorkerd, target: Target, connections: number): Promise<Loaded> =>
  load(workerd.url, target, connections, { requests: CUSTOMERS });

async function awake(workerd: LocalWorkerd, target: Target, connections: number, seconds: number): Promise<Loaded> {
  await wake(workerd, target, connections);
  return withoutFailures(await load(workerd.url, target, connections, { seconds }));
}

async function aggregated(
  workerd: LocalWorkerd,
  edgemeter: Edgemeter,
  connections: number,
  seconds: number,
): Promise<Aggregated> {
  await wake(workerd, syncEvents(EDGEMETER), connections);
  await edgemeter.drained();
  const cpu = await workerd.cpuMs();
  const started = performance.now();
  const loaded = withoutFailures(await load(workerd.url, syncEvents(EDGEMETER), connections, { seconds }));
  await edgemeter.drained();
  const elapsed = (performance.now() - started) / 1_000;
  return {
    ...loaded,
    drainedRate: loaded.accepted / elapsed,
    cpuPerEvent: ((await workerd.cpuMs()) - cpu) / loaded.accepted,
  };
}

function figuresOf(rounds: readonly Round[], shards: number): Figure[] {
  const few = rounds.map((round) => round.few);
  const rates = few.map(({ rate }) => rate);
  const echo = rounds.map((round) => round.echo);
  const insert = rounds.map((round) => round.insert);
  const note = clientNote(few);
  return [
    { id: "bare-worker", name: "bare Worker answers", value: median(rounds.map(({ worker }) => worker)), unit: "/s" },
    { id: "bare-d1", name: "bare D1 inserts, one row each", value: median(rounds.map(({ d1 }) => d1)), unit: "/s" },
    {
      ...besideLimit(
        { id: "sync-by-echo", name: `sync events, ${CUSTOMERS} customers, ${CONNECTIONS} connections`, unit: "/s" },
        rates,
        `bare Durable Object round trips over ${CUSTOMERS} objects`,
        echo,
      ),
      ...(note === undefined ? {} : { note }),
    },
    besideLimit(
      { id: "sync-by-insert", name: "the same", unit: "/s" },
      rates,
      `bare durable inserts of one row over ${shards} objects`,
      insert,
    ),
    ...latencies("sync", few),
    {
      id: "sync-drained",
      name: "the same, until aggregated",
      value: median(few.map(({ drainedRate }) => drainedRate)),
      unit: "/s",
    },
    {
      id: "sync-cpu",
      name: "CPU per sync event, until aggregated",
      value: median(few.map(({ cpuPerEvent }) => cpuPerEvent)),
      unit: "ms",
      note: "all of workerd: also its HTTP, its queue and its D1; nothing is subtracted",
    },
    besideLimit(
      { id: "sync-128", name: `sync events, ${MANY_CONNECTIONS} connections`, unit: "/s" },
      rounds.map(({ many }) => many.rate),
      "bare Durable Object round trips",
      echo,
    ),
    ...latencies(
      "sync-128",
      rounds.map(({ many }) => many),
    ),
  ];
}

function latencies(id: string, loads: readonly Loaded[]): Figure[] {
  const all = loads.flatMap((loaded) => loaded.latencies);
  const refused = sum(loads.map(({ conflicts }) => conflicts));
  return [
    ...[0.5, 0.95, 0.99].map((share) => ({
      id: `${id}-p${share * 100}`,
      name: `  p${share * 100}`,
      value: quantile(all, share),
      unit: "ms",
    })),
    { id: `${id}-refused`, name: "  refused (409)", value: (100 * refused) / (all.length + refused), unit: "%" },
  ];
}

/** Says so when making the requests took about all of a processor. */
export function clientNote(loads: readonly Loaded[]): string | undefined {
  const share = median(loads.map(({ clientCpu }) => clientCpu));
  return share > 0.9 ? `making the requests took ${(100 * share).toFixed(0)} % of a processor` : undefined;
}
