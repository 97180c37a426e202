// Reads over 10^4, 10^5 and 10^6 stored events, each in a database of its own, asked in turn.
import { Edgemeter } from "../edgemeter.ts";
import { load, withoutFailures } from "../load.ts";
import { EDGEMETER, type LocalWorkerd, type WorkerSpec, withWorkerd } from "../local-workerd.ts";
import type { Bench, Figure, Measured } from "../results.ts";
import { ROUNDS } from "../rounds.ts";
import { median, quantile } from "../statistics.ts";
import { reads } from "../targets.ts";
import { fill } from "./reads-data.ts";

const SIZES = [10_000, 100_000, 1_000_000] as const;
const DATABASES = SIZES.map((size): { size: number; worker: WorkerSpec } => ({
  size,
  worker: { ...EDGEMETER, name: `reads-${size}` },
}));

const DAY_S = 86_400;

/** What is asked for, of a customer on a meter; `now` in seconds, on a minute. */
const QUERIES = {
  "30 days": (meter: string, customer: string, now: number) =>
    `/v1/billing/meters/${meter}/event_summaries?customer=${customer}&start_time=${now - 30 * DAY_S}&end_time=${now}`,
  "7 days by hour": (meter: string, customer: string, now: number) => {
    const end = Math.ceil(now / 3_600) * 3_600;
    return `/v1/billing/meters/${meter}/event_summaries?customer=${customer}&start_time=${end - 7 * DAY_S}&end_time=${end}&value_grouping_window=hour&limit=100`;
  },
  "event listing": (meter: string, customer: string) =>
    `/v1/billing/meter_events?meter=${meter}&customer=${customer}&limit=100`,
} as const;

/** Whose events grow: those of all others, or those of the customer who is asked for. */
const GROWING = { others: "the others' events", own: "the customer's own events" } as const;

type Case = {
  readonly query: keyof typeof QUERIES;
  readonly growing: keyof typeof GROWING;
  /** Latencies (ms): by size, for each round. */
  readonly rounds: Map<number, number[][]>;
};

export const measureReads = (bench: Bench): Promise<Measured> =>
  withWorkerd(
    DATABASES.map(({ worker }) => worker),
    async (workerd) => {
      const now = Math.floor(Date.now() / 60_000) * 60;
      const paths = new Map<number, (c: Case) => string>();
      for (const { size, worker } of DATABASES) {
        bench.progress(`${size} events are stored`);
        const edgemeter = new Edgemeter(workerd, worker);
        const meters = { others: await edgemeter.createMeter("others"), own: await edgemeter.createMeter("own") };
        const customers = await fill(await workerd.database(worker), meters, size, now * 1_000);
        paths.set(size, ({ query, growing }) => QUERIES[query](meters[growing], customers[growing], now));
      }
      const cases = (Object.keys(GROWING) as (keyof typeof GROWING)[]).flatMap((growing) =>
        (Object.keys(QUERIES) as (keyof typeof QUERIES)[]).map(
          (query): Case => ({ query, growing, rounds: new Map() }),
        ),
      );
      // One round more than counts: the first finds nothing in any cache.
      for (let round = 0; round <= ROUNDS; round++) {
        bench.progress(round === 0 ? "warming up" : `round ${round} of ${ROUNDS}`);
        for (const asked of cases) await askAll(workerd, asked, paths, bench, round === 0);
      }
      return { figures: cases.flatMap(figuresOf) };
    },
  );

async function askAll(
  { url }: LocalWorkerd,
  asked: Case,
  paths: ReadonlyMap<number, (asked: Case) => string>,
  { seconds }: Bench,
  warmUp: boolean,
): Promise<void> {
  for (const { size, worker } of DATABASES) {
    const path = paths.get(size)?.(asked) ?? "";
    const { latencies } = withoutFailures(await load(url, reads(worker, path), 1, { seconds: seconds / 8 }));
    if (!warmUp) asked.rounds.set(size, [...(asked.rounds.get(size) ?? []), [...latencies]]);
  }
}

function figuresOf({ query, growing, rounds }: Case): Figure[] {
  const id = `read-${query.replaceAll(" ", "-")}-${growing}`;
  const of = (size: number): number[][] => rounds.get(size) ?? [];
  const [least, most] = [of(SIZES[0]), of(SIZES[2])];
  const ratios = most.map((round, i) => quantile(round, 0.5) / quantile(least[i] ?? [], 0.5));
  return [
    ...SIZES.map((size) => {
      const latencies = of(size).flat();
      const p99 = `p99 ${quantile(latencies, 0.99).toFixed(1)} ms, ${latencies.length} reads`;
      const name = `${query}, ${GROWING[growing]}: 10^${Math.log10(size)}, p50`;
      return { id: `${id}-${size}`, name, value: quantile(latencies, 0.5), unit: "ms", note: p99 };
    }),
    { id: `${id}-growth`, name: "  at 10^6 ÷ at 10^4", value: median(ratios), unit: "×" },
  ];
}
