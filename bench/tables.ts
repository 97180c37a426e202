// All that the bench knows of edgemeter's tables in D1.

import { bind } from "../src/aggregate/sql/bind.ts";
import { tableOf } from "../src/aggregate/sql/events.ts";
import { openSlice, quarterOf, widen } from "../src/aggregate/sql/slices.ts";
import { added } from "../src/aggregate/sql/sums.ts";
import { databaseOf, databasesAt, type Placement } from "../src/domain/placement.ts";
import { receiptOf, sliceOf, type TimeRange } from "../src/domain/window.ts";
import type { Database } from "./local-workerd.ts";

/** Leaves a database's archive to the bench, as if another run were at it. */
export const HOLD_ARCHIVE = "INSERT INTO leases (name, holder, until) VALUES ('archive', 'bench', 9e15)";

const SELECT_EVENT_TABLES = `
  SELECT name FROM sqlite_schema WHERE type = 'table' AND (name = 'events' OR name GLOB 'events_[0-9]*')`;

/** Events in a database, in whatever tables of events it has. */
export async function countEvents(db: Database): Promise<number> {
  const { results } = await db.prepare(SELECT_EVENT_TABLES).all<{ name: string }>();
  const counts = results.map(({ name }) => db.prepare(`SELECT COUNT(*) AS n FROM ${name}`).first<number>("n"));
  return (await Promise.all(counts)).reduce<number>((total, count) => total + Number(count), 0);
}

/** Customers of a meter, each with as many events, spread evenly over a range of receipt. */
type Filling = { readonly customers: readonly string[]; readonly each: number };

const INSERT_SERIES = "INSERT INTO series (meter, customer) SELECT :meter, value FROM json_each(:customers)";

/** Of every hundred events of a customer, whose values are 1 to 100. */
export const MEAN_VALUE = 50.5;

/** Events :from to :to of each customer, the n-th at :start + n * :span / :each. In the order of the table's key. */
const insertEvents = (slice: number): string => `
  WITH RECURSIVE counter (n) AS (SELECT CAST(:from AS INTEGER) UNION ALL SELECT n + 1 FROM counter WHERE n + 1 < :to),
  made AS (
    SELECT
      series.id AS series,
      n,
      CAST(:start AS INTEGER) + n * CAST(:span AS INTEGER) / CAST(:each AS INTEGER) AS timestamp
    FROM json_each(:customers) AS item CROSS JOIN series CROSS JOIN counter
    WHERE series.meter = :meter AND series.customer = item.value AND series.dimensions = ''
  )
  INSERT INTO ${tableOf(slice)} (series, timestamp, id, identifier, value, delay, api_key)
  SELECT series, timestamp, printf('%09d%010d', n, series), randomblob(16), 1 + n % 100, 0, 1
  FROM made`;

const insertSums = (slice: number): string =>
  `INSERT INTO sums (series, quarter_hour, count, sum_high, sum_low) ${added(tableOf(slice), "true")}`;

/**
 * Fills the databases of a mode with events that were received within a range, and with what the aggregator would have
 * made of them, where the placement has them.
 */
export async function fill(
  databases: readonly Database[],
  meter: string,
  { start, end }: TimeRange,
  placement: Placement,
  fillings: readonly Filling[],
): Promise<void> {
  const all = JSON.stringify(fillings.flatMap(({ customers }) => customers));
  for (const db of databases) await bind(db, INSERT_SERIES, { meter, customers: all }).run();
  const span = end - start;
  for (let slice = sliceOf(start); slice <= sliceOf(end - 1); slice = sliceOf(receiptOf(slice).end)) {
    const [first, last] = [Math.max(start, receiptOf(slice).start), Math.min(end, receiptOf(slice).end)];
    const bound = databasesAt(placement, first);
    for (const [place, db] of databases.slice(0, bound).entries()) {
      await openSlice(db, slice);
      for (const { customers, each } of fillings) {
        const [from = 0, to = 0] = [first, last].map((time) => Math.ceil(((time - start) * each) / span));
        const here = customers.filter((customer) => databaseOf(meter, customer, bound) === place);
        const values = { meter, customers: JSON.stringify(here), start, span, each, from, to };
        if (from < to) await bind(db, insertEvents(slice), values).run();
      }
      await db.batch([widen(db, slice, quarterOf(first), quarterOf(last - 1)), db.prepare(insertSums(slice))]);
    }
  }
}
