// Events and their summaries, made by SQL alone.
import type { LocalWorkerd } from "../local-workerd.ts";

type Database = Awaited<ReturnType<LocalWorkerd["database"]>>;

/** Over so long the events of everyone are spread (ms). */
const SPAN_MS = 30 * 86_400_000;

/** Customers beside the one who is asked for. */
const OTHERS = 1_000;

/** Events of the customer who is asked for, where the others' grow. */
const FIXED_EVENTS = 1_000;

/** Rows of one statement. */
const CHUNK = 50_000;

/**
 * Events ?5 to ?6 of ?1 customers, each customer's in a run, spread over ?4 ms before ?3; ?7 of them
 * each. In the order of the table's key, which is the fastest.
 */
const INSERT_EVENTS = `
  WITH RECURSIVE counter (n) AS (
    SELECT CAST(?5 AS INTEGER) UNION ALL SELECT n + 1 FROM counter WHERE n + 1 < ?6
  ),
  made AS (
    SELECT
      n,
      ?8 || printf('%04d', n / CAST(?7 AS INTEGER)) AS customer,
      CAST(?3 - ?4 AS INTEGER) + (n % CAST(?7 AS INTEGER)) * CAST(?4 AS INTEGER) / CAST(?7 AS INTEGER) AS timestamp
    FROM counter
  )
  INSERT INTO events (meter, customer, timestamp, id, identifier, value, received)
  SELECT ?2, customer, timestamp, ?1 || printf('%016d', n), ?1 || 'identifier-' || n, 1 + n % 100, timestamp
  FROM made`;

/** What the aggregator would have made of them. */
const INSERT_SUMMARIES = `
  INSERT INTO hourly_summaries (meter, customer, hour, count, sum_high, sum_low)
  SELECT meter, customer, timestamp - timestamp % 3600000, COUNT(*), 0, SUM(value)
  FROM events
  GROUP BY 1, 2, 3`;

/**
 * Fills a database until `now` (ms): on one meter a customer with a fixed number of events among others
 * who have `size`, on the other a customer who alone has `size`. Gives the customers to ask for.
 */
export async function fill(
  db: Database,
  meters: { readonly others: string; readonly own: string },
  size: number,
  now: number,
): Promise<{ readonly others: string; readonly own: string }> {
  await insert(db, meters.others, "fixed_", FIXED_EVENTS, FIXED_EVENTS, now);
  await insert(db, meters.others, "other_", size, size / OTHERS, now);
  await insert(db, meters.own, "own_", size, size, now);
  await db.prepare(INSERT_SUMMARIES).run();
  return { others: "fixed_0000", own: "own_0000" };
}

async function insert(
  db: Database,
  meter: string,
  prefix: string,
  events: number,
  perCustomer: number,
  now: number,
): Promise<void> {
  for (let from = 0; from < events; from += CHUNK) {
    const to = Math.min(events, from + CHUNK);
    await db.prepare(INSERT_EVENTS).bind(prefix, meter, now, SPAN_MS, from, to, perCustomer, prefix).run();
  }
}
