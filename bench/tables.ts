// All that the bench knows of edgemeter's tables in D1.
import type { Database } from "./local-workerd.ts";
import type { Side } from "./sides.ts";

const SELECT_EVENT_TABLES = `
  SELECT name FROM sqlite_schema WHERE type = 'table' AND (name = 'events' OR name GLOB 'events_[0-9]*')`;

/** Events in a database, in whatever tables of events it has. */
export async function countEvents(db: Database): Promise<number> {
  const { results } = await db.prepare(SELECT_EVENT_TABLES).all<{ name: string }>();
  const counts = results.map(({ name }) => db.prepare(`SELECT COUNT(*) AS n FROM ${name}`).first<number>("n"));
  return (await Promise.all(counts)).reduce<number>((total, count) => total + Number(count), 0);
}

/** The definitions of the tables that `fill` fills. */
export const filledTables = ({ schema }: Side): string =>
  ["events", "hourly_summaries"]
    .map((name) => schema.match(new RegExp(`CREATE TABLE IF NOT EXISTS ${name} .*?;\n`, "s"))?.[0])
    .join()
    .replaceAll(/--.*/g, "");

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

const INSERT_SUMS = `
  INSERT INTO hourly_summaries (meter, customer, hour, count, sum_high, sum_low)
  SELECT meter, customer, timestamp - timestamp % 3600000, COUNT(*), 0, SUM(value) FROM events GROUP BY 1, 2, 3`;

/** Over so long, until now, the events of everyone are spread (ms). */
const SPAN_MS = 30 * 86_400_000;

/** Rows of one statement. */
const CHUNK = 50_000;

/** So many events of a meter, `each` of them of one customer: of `${prefix}0000`, and so on. */
export type Filling = {
  readonly meter: string;
  readonly prefix: string;
  readonly events: number;
  readonly each: number;
};

/** Fills a database with events until `now` (ms), and with what the aggregator would have made of them. */
export async function fill(db: Database | undefined, now: number, fillings: readonly Filling[]): Promise<void> {
  for (const { meter, prefix, events, each } of fillings) {
    for (let from = 0; from < events; from += CHUNK) {
      const to = Math.min(events, from + CHUNK);
      await db?.prepare(INSERT_EVENTS).bind(prefix, meter, now, SPAN_MS, from, to, each).run();
    }
  }
  await db?.prepare(INSERT_SUMS).run();
}
