// Usage by dimensions and over all customers: 10,000 customers with events of 30 days, in four databases.
import { DAY_MS, floorTo, QUARTER_HOUR_MS } from "../../src/domain/window.ts";
import { withEdgemeters } from "../edgemeter.ts";
import { cpuMs } from "../local-workerd.ts";
import { type Bench, figure, inTurn, type Measured, quantile, ratio } from "../results.ts";
import { fill, MEAN_VALUE } from "../tables.ts";
import { DATABASES, grownAt, storeOf } from "./reads.ts";

const CUSTOMERS = 10_000;

/** Events of each of them, each in a quarter hour of its own; and of two others, of whom one has ten values of a dimension. */
const EACH = 100;
const EVENTS = 1_000;

const DAYS = 30;

/** Tells the events of a customer apart by ten values. */
const SPLIT = [
  `INSERT INTO series (meter, customer, dimensions)
  SELECT meter, customer, json_object('model', 'm' || value) FROM series CROSS JOIN json_each('[0,1,2,3,4,5,6,7,8,9]')
  WHERE customer = 'many' AND dimensions = ''`,
  `UPDATE sums SET series = (
    SELECT id FROM series WHERE customer = 'many' AND dimensions = json_object('model', 'm' || (quarter_hour % 10))
  )
  WHERE series = (SELECT id FROM series WHERE customer = 'many' AND dimensions = '')`,
];

export function measureUsage(bench: Bench): Promise<Measured> {
  const now = floorTo(Date.now(), QUARTER_HOUR_MS);
  const range = { start: now - DAYS * DAY_MS, end: now };
  const placement = grownAt(range);
  const store = storeOf(bench.sides[0], "usage", placement);
  return withEdgemeters([store], [], async (edgemeterOf, workerd) => {
    bench.progress(`${CUSTOMERS * EACH} events are stored`);
    const edgemeter = edgemeterOf(store);
    const { meter } = edgemeter;
    const names = Array.from({ length: DATABASES }, (_, place) => `EVENTS_${place}`);
    const databases = await Promise.all(names.map((name) => workerd.database(store, name)));
    await fill(databases, meter, range, placement, [
      { customers: Array.from({ length: CUSTOMERS }, (_, n) => `customer_${n}`), each: EACH },
      { customers: ["one", "many"], each: EVENTS },
    ]);
    for (const db of databases) for (const sql of SPLIT) await db.prepare(sql).run();
    const control = await workerd.database(store, "DB");
    await control.prepare(`UPDATE meters SET dimension_keys = '["model"]'`).run();

    const [from, to] = [range.start / 1_000, range.end / 1_000];
    const byDay = (customer: string, more: string): string =>
      `/v1/billing/analytics/meter_usage?customer=${customer}&starts_at=${from}&ends_at=${to}&meters[0][meter]=${meter}&timezone=America/Santiago&value_grouping_window=day&limit=100${more}`;
    const paths = {
      one: byDay("one", ""),
      grouped: byDay("many", "&meters[0][dimension_group_by_keys][0]=model"),
      largest: `/v1/edgemeter/usage?meter=${meter}&from=${from}&to=${to}&group_by=customer&order=value`,
    };
    const [{ value }] = (await edgemeter.call(paths.largest)).data;
    if (value !== EVENTS * MEAN_VALUE) throw new Error(`the largest customer used ${value}`);
    const read = (path: string) => async (seconds: number) => {
      const times: number[] = [];
      const before = await cpuMs();
      for (const end = performance.now() + (seconds * 1_000) / 3; performance.now() < end; ) {
        const started = performance.now();
        await edgemeter.call(path);
        times.push(performance.now() - started);
      }
      return { p50: quantile(times, 0.5), cpu: ((await cpuMs()) - before) / times.length };
    };
    const contestants = Object.entries(paths).map(([id, path]) => [id, read(path)]);
    const taken = await inTurn({ ...bench, sides: [bench.sides[0]] }, Object.fromEntries(contestants));
    const [one, grouped, largest] = [taken("one", "p50"), taken("grouped", "p50"), taken("largest", "p50")];
    return {
      figures: [
        figure("usage-one", "30 days by day in a zone, one series, p50", "ms", one),
        figure("usage-grouped", "30 days by day in a zone, by 10 values, p50", "ms", grouped),
        figure("usage-grouped-ratio", "  by 10 values ÷ one series", "×", ratio(grouped, one)),
        figure("usage-largest", `largest of ${CUSTOMERS} customers in 30 days, p50`, "ms", largest),
        figure("usage-largest-cpu", "  processor time, all of workerd", "ms", taken("largest", "cpu")),
      ],
    };
  });
}
