// Reads over 10^4, 10^5 and 10^6 stored events, each in databases of its own, asked in turn.
import { Edgemeter } from "../edgemeter.ts";
import { sampleOf } from "../load.ts";
import { type LocalWorkerd, withWorkerd } from "../local-workerd.ts";
import { type Bench, figure, inTurn, type Measured, onEach, zip } from "../results.ts";
import type { Side } from "../sides.ts";

const SIZES = [10_000, 100_000, 1_000_000] as const;

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

/** Whose events grow, and the customer who is asked for. */
const GROWING = {
  others: { name: "the others' events", customer: "fixed_0000" },
  own: { name: "the customer's own events", customer: "own_0000" },
} as const;

const CASES = (["others", "own"] as const).flatMap((growing) =>
  Object.entries(QUERIES).map(([query, path]) => {
    const { name, customer } = GROWING[growing];
    const id = `read-${query.replaceAll(" ", "-")}-${growing}`;
    return { id, name: `${query}, ${name}`, growing, path: (meter: string, now: number) => path(meter, customer, now) };
  }),
);

export function measureReads(bench: Bench): Promise<Measured> {
  // Events are put into tables by SQL, which knows those of the present alone.
  const sides = bench.sides.filter((side) => tablesOf(side) === tablesOf(bench.sides[0]));
  const note = sides.length < bench.sides.length ? "the other commit has other tables: not compared" : undefined;
  const stores = sides.flatMap((side) => SIZES.map((size) => ({ ...side, size, name: `${side.name}-reads-${size}` })));
  return withWorkerd(stores, async (workerd) => {
    const now = Math.floor(Date.now() / 60_000) * 60;
    const meters = new Map<Side, Meters>();
    for (const store of stores) {
      bench.progress(`${store.size} events are stored`);
      const edgemeter = new Edgemeter(workerd, store);
      const ids = { others: await edgemeter.createMeter("others"), own: await edgemeter.createMeter("own") };
      await fill(workerd, store, ids, store.size, now * 1_000);
      meters.set(store, ids);
    }
    const contestants = CASES.flatMap(({ id, path, growing }) =>
      stores.flatMap((store) =>
        onEach([store], `${id}-${store.size}`, async (store) => {
          const edgemeter = new Edgemeter(workerd, store);
          const next = () => edgemeter.request("GET", path(meters.get(store)?.[growing] ?? "", now));
          return sampleOf(await edgemeter.load(next, { connections: 1, seconds: bench.seconds / 8 }));
        }),
      ),
    );
    // The first time nothing is in any cache.
    for (const { measure } of contestants) await measure();
    const taken = await inTurn(bench, contestants);
    return {
      figures: CASES.flatMap(({ id, name }) => {
        const of = (size: number) => taken(`${id}-${size}`, "p50");
        const sizes = SIZES.map((size) =>
          figure(`${id}-${size}`, `${name}: 10^${Math.log10(size)}, p50`, "ms", of(size)),
        );
        const growth = zip(of(1_000_000), of(10_000), (a, b) => a / b);
        return [...sizes, figure(`${id}-growth`, "  at 10^6 ÷ at 10^4", "×", growth, { note })];
      }),
    };
  });
}

/** The tables that `fill` fills. */
const tablesOf = ({ schema }: Side): string =>
  ["events", "hourly_summaries"]
    .map((name) => schema.match(new RegExp(`CREATE TABLE IF NOT EXISTS ${name} .*?;\n`, "s"))?.[0])
    .join()
    .replaceAll(/--.*/g, "");

/** Over so long the events of everyone are spread (ms). */
const SPAN_MS = 30 * DAY_S * 1_000;

/** Customers beside the one who is asked for, and events of the latter where the others' grow. */
const OTHERS = 1_000;
const FIXED_EVENTS = 1_000;

/** Rows of one statement. */
const CHUNK = 50_000;

/**
 * Events ?5 to ?6 of customers whose names begin with ?1, each customer's in a run, spread over ?4 ms before ?3; ?7 of
 * them each. In the order of the table's key, which is the fastest.
 */
const INSERT_EVENTS = `
  WITH RECURSIVE counter (n) AS (SELECT CAST(?5 AS INTEGER) UNION ALL SELECT n + 1 FROM counter WHERE n + 1 < ?6),
  made AS (
    SELECT
      n,
      ?1 || printf('%04d', n / CAST(?7 AS INTEGER)) AS customer,
      CAST(?3 - ?4 AS INTEGER) + (n % CAST(?7 AS INTEGER)) * CAST(?4 AS INTEGER) / CAST(?7 AS INTEGER) AS timestamp
    FROM counter
  )
  INSERT INTO events (meter, customer, timestamp, id, identifier, value, received)
  SELECT ?2, customer, timestamp, ?1 || printf('%016d', n), ?1 || 'identifier-' || n, 1 + n % 100, timestamp
  FROM made`;

/** What the aggregator would have made of them. */
const INSERT_SUMMARIES = `
  INSERT INTO hourly_summaries (meter, customer, hour, count, sum_high, sum_low)
  SELECT meter, customer, timestamp - timestamp % 3600000, COUNT(*), 0, SUM(value) FROM events GROUP BY 1, 2, 3`;

type Meters = Readonly<Record<keyof typeof GROWING, string>>;

/**
 * Fills a database until `now` (ms): on one meter a customer with a fixed number of events among others who have
 * `size`, on the other a customer who alone has `size`.
 */
async function fill(workerd: LocalWorkerd, store: Side, meters: Meters, size: number, now: number): Promise<void> {
  const [db] = await workerd.databases(store);
  const insert = async (meter: string, prefix: string, events: number, perCustomer: number): Promise<void> => {
    for (let from = 0; from < events; from += CHUNK) {
      const to = Math.min(events, from + CHUNK);
      await db?.prepare(INSERT_EVENTS).bind(prefix, meter, now, SPAN_MS, from, to, perCustomer).run();
    }
  };
  await insert(meters.others, "fixed_", FIXED_EVENTS, FIXED_EVENTS);
  await insert(meters.others, "other_", size, size / OTHERS);
  await insert(meters.own, "own_", size, size);
  await db?.prepare(INSERT_SUMMARIES).run();
}
