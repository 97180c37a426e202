// Reads over 10^4, 10^6 and 10^7 stored events, each in four databases of its own, asked in turn.
import { databaseOf, type Placement } from "../../src/domain/placement.ts";
import { DAY_MS, floorTo, QUARTER_HOUR_MS, sliceOf, type TimeRange } from "../../src/domain/window.ts";
import { type Edgemeter, withEdgemeters } from "../edgemeter.ts";
import { type Bench, figure, inTurn, type Measured, quantile, ratio } from "../results.ts";
import type { Side } from "../sides.ts";
import { fill, MEAN_VALUE } from "../tables.ts";

const SIZES = [10_000, 1_000_000, 10_000_000] as const;

export const DATABASES = 4;

/** Over so many days until now the events are spread; on the fifth of them one database became four. */
const DAYS = 30;
const DAYS_OF_ONE = 5;

const DAY_S = 86_400;

/** Half of all events are of one customer, the others of so many. */
const OTHERS = 1_000;

/** Events of the customer whose own do not grow. */
const FIXED_EVENTS = 1_000;

/** What is asked for, of a customer on a meter; `now` in seconds, on a quarter hour. */
const QUERIES: Readonly<Record<string, (meter: string, customer: string, now: number) => string>> = {
  "30 days": (meter, customer, now) => summaries(meter, customer, now - DAYS * DAY_S, now),
  "30 days, ragged": (meter, customer, now) => summaries(meter, customer, now - DAYS * DAY_S + 437, now - 211),
  "7 days by hour": (meter, customer, now) => {
    const end = Math.ceil(now / 3_600) * 3_600;
    return `${summaries(meter, customer, end - 7 * DAY_S, end)}&value_grouping_window=hour&limit=100`;
  },
  listing: (meter, customer) => `/v1/billing/meter_events?meter=${meter}&customer=${customer}&limit=100`,
};

const summaries = (meter: string, customer: string, start: number, end: number): string =>
  `/v1/billing/meters/${meter}/event_summaries?customer=${customer}&start_time=${start}&end_time=${end}`;

const WHOSE = { fixed: `a customer of ${FIXED_EVENTS} events`, half: "the customer of half of all" } as const;

type Customers = Readonly<Record<keyof typeof WHOSE, string>>;

const CASES = (["fixed", "half"] as const).flatMap((whose) =>
  Object.entries(QUERIES).map(([query, path]) => ({
    id: `read-${query.replaceAll(/\W+/g, "-")}-${whose}`,
    name: `${query}, ${WHOSE[whose]}`,
    whose,
    path,
  })),
);

/** The present one, with four databases of which it had one at first: a reader asks two of them. */
export function storeOf(present: Side, name: string, placement: Placement): Side {
  const { EVENTS_0: events = "" } = present.databases;
  const record = JSON.stringify(placement.map(({ databases, since }) => [databases, since]));
  const databases = { ...present.databases };
  for (let place = 0; place < DATABASES; place++) databases[`EVENTS_${place}`] = events;
  databases.DB += `\nINSERT INTO deployment (name, value) VALUES ('databases', '${record}');`;
  return { ...present, name: `reads-${name}`, databases };
}

/** One database became four within a range (ms). */
export const grownAt = ({ start }: TimeRange): Placement => [
  { databases: 1, since: 0 },
  { databases: DATABASES, since: sliceOf(start + DAYS_OF_ONE * DAY_MS) * 3_600_000 },
];

export function measureReads(bench: Bench): Promise<Measured> {
  const [present] = bench.sides;
  const now = floorTo(Date.now(), QUARTER_HOUR_MS);
  const range = { start: now - DAYS * DAY_MS, end: now };
  const placement = grownAt(range);
  const stores = new Map(SIZES.map((size) => [size, storeOf(present, String(size), placement)]));
  return withEdgemeters([...stores.values()], [], async (edgemeterOf, workerd) => {
    const asked = new Map<(typeof SIZES)[number], { readonly edgemeter: Edgemeter; readonly customers: Customers }>();
    for (const [size, store] of stores) {
      bench.progress(`${size} events are stored`);
      const edgemeter = edgemeterOf(store);
      const { meter } = edgemeter;
      const moved = (name: string): string => {
        for (let n = 0; ; n++) if (databaseOf(meter, `${name}_${n}`, DATABASES) > 0) return `${name}_${n}`;
      };
      const customers = { fixed: moved("fixed"), half: moved("half") };
      const others = Array.from({ length: OTHERS }, (_, n) => `other_${n}`);
      const bindings = Array.from({ length: DATABASES }, (_, place) => workerd.database(store, `EVENTS_${place}`));
      await fill(await Promise.all(bindings), meter, range, placement, [
        { customers: [customers.fixed], each: FIXED_EVENTS },
        { customers: [customers.half], each: size / 2 },
        { customers: others, each: size / 2 / OTHERS },
      ]);
      for (const [whose, events] of [["fixed", FIXED_EVENTS] as const, ["half", size / 2] as const]) {
        const { data } = await edgemeter.call(summaries(meter, customers[whose], range.start / 1_000, now / 1_000));
        const sum = data[0]?.aggregated_value;
        if (sum !== events * MEAN_VALUE) throw new Error(`the sum of ${events} events is ${sum}`);
      }
      asked.set(size, { edgemeter, customers });
    }
    // The sizes take turns request by request, so that whatever else the machine does slows each as much.
    const read = async ({ whose, path }: (typeof CASES)[number], seconds: number) => {
      const times = new Map(SIZES.map((size) => [size, [] as number[]]));
      for (const end = performance.now() + (seconds * 1_000) / 4; performance.now() < end; ) {
        for (const [size, { edgemeter, customers }] of asked) {
          const started = performance.now();
          await edgemeter.call(path(edgemeter.meter, customers[whose], now / 1_000));
          times.get(size)?.push(performance.now() - started);
        }
      }
      return Object.fromEntries([...times].map(([size, ms]) => [String(size), quantile(ms, 0.5)]));
    };
    const contestants = CASES.map((each) => [each.id, (seconds: number) => read(each, seconds)]);
    const taken = await inTurn({ ...bench, sides: [present] }, Object.fromEntries(contestants));
    const figures = CASES.flatMap(({ id, name }) => {
      const of = (size: number) => taken(id, String(size));
      return [
        ...SIZES.map((size) => figure(`${id}-${size}`, `${name}: 10^${Math.log10(size)}, p50`, "ms", of(size))),
        figure(`${id}-growth`, `  ${name}: at 10^7 ÷ at 10^4`, "×", ratio(of(10_000_000), of(10_000))),
      ];
    });
    return { figures };
  });
}
