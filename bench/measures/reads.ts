// Reads over 10^4, 10^5 and 10^6 stored events, each in databases of its own, asked in turn.
import { withEdgemeters } from "../edgemeter.ts";
import { type Bench, figure, inTurn, type Measured, ratio } from "../results.ts";
import type { Side } from "../sides.ts";
import { fill, filledTables } from "../tables.ts";

const SIZES = [10_000, 100_000, 1_000_000] as const;

/** Customers beside the one who is asked for, and events of the latter where the others' grow. */
const OTHERS = 1_000;
const FIXED_EVENTS = 1_000;

const DAY_S = 86_400;

/** What is asked for, of a customer on a meter; `now` in seconds, on a minute. */
const QUERIES: Readonly<Record<string, (meter: string, customer: string, now: number) => string>> = {
  "30 days": (meter, customer, now) => summaries(meter, customer, now - 30 * DAY_S, now),
  "7 days by hour": (meter, customer, now) => {
    const end = Math.ceil(now / 3_600) * 3_600;
    return `${summaries(meter, customer, end - 7 * DAY_S, end)}&value_grouping_window=hour&limit=100`;
  },
  "event listing": (meter, customer) => `/v1/billing/meter_events?meter=${meter}&customer=${customer}&limit=100`,
};

const summaries = (meter: string, customer: string, start: number, end: number): string =>
  `/v1/billing/meters/${meter}/event_summaries?customer=${customer}&start_time=${start}&end_time=${end}`;

/** Whose events grow, each on a meter of its own, and the customer who is asked for. */
const GROWING = [
  { growing: "others", whose: "the others' events", customer: "fixed_0000" },
  { growing: "own", whose: "the customer's own events", customer: "own_0000" },
];

const CASES = GROWING.flatMap(({ growing, whose, customer }) =>
  Object.entries(QUERIES).map(([query, path]) => ({
    id: `read-${query.replaceAll(" ", "-")}-${growing}`,
    name: `${query}, ${whose}`,
    path: (meters: Meters, now: number) => path(meters[growing] ?? "", customer, now),
  })),
);

type Meters = Readonly<Record<string, string>>;

export function measureReads(bench: Bench): Promise<Measured> {
  const [present, ...others] = bench.sides;
  // Events are put into tables by SQL, which knows those of the present alone.
  const sides = [present, ...others.filter((side) => filledTables(side) === filledTables(present))] as const;
  const note = sides.length < bench.sides.length ? "the other commit has other tables: not compared" : undefined;
  const storeOf = (side: Side, size: number): Side => ({ ...side, name: `${side.name}-reads-${size}` });
  const stores = SIZES.flatMap((size) => sides.map((side) => ({ size, store: storeOf(side, size) })));
  return withEdgemeters(
    stores.map(({ store }) => store),
    [],
    async (edgemeterOf, workerd) => {
      const now = Math.floor(Date.now() / 60_000) * 60;
      const meters = new Map<string, Meters>();
      for (const { store, size } of stores) {
        bench.progress(`${size} events are stored`);
        const [others, own] = [
          await edgemeterOf(store).createMeter("others"),
          await edgemeterOf(store).createMeter("own"),
        ];
        const [db] = await workerd.databases(store);
        await fill(db, now * 1_000, [
          { meter: others, prefix: "fixed_", events: FIXED_EVENTS, each: FIXED_EVENTS },
          { meter: others, prefix: "other_", events: size, each: size / OTHERS },
          { meter: own, prefix: "own_", events: size, each: size },
        ]);
        meters.set(store.name, { others, own });
      }
      const contestants = CASES.flatMap(({ id, path }) =>
        SIZES.map((size) => {
          const read = (seconds: number, side: Side) => {
            const store = storeOf(side, size);
            const edgemeter = edgemeterOf(store);
            const next = () => edgemeter.request(path(meters.get(store.name) ?? {}, now));
            return edgemeter.load(next, { connections: 1, seconds: seconds / 8 });
          };
          return [`${id}-${size}`, read] as const;
        }),
      );
      const taken = await inTurn({ ...bench, sides }, Object.fromEntries(contestants));
      const figures = CASES.flatMap(({ id, name }) => {
        const of = (size: number) => taken(`${id}-${size}`, "p50");
        return [
          ...SIZES.map((size) => figure(`${id}-${size}`, `${name}: 10^${Math.log10(size)}, p50`, "ms", of(size))),
          figure(`${id}-growth`, "  at 10^6 ÷ at 10^4", "×", ratio(of(1_000_000), of(10_000)), { note }),
        ];
      });
      return { figures };
    },
  );
}
