// What reads of usage have in common: whose it is, which windows it is in, and by which dimensions it is told apart.
import { LIMITS } from "../../domain/limits.ts";
import { QUARTER_HOUR_MS } from "../../domain/window.ts";
import { DIRECTION, type Order } from "./events.ts";
import { ALL_METERS } from "./series.ts";

/** Which of the forms that a read can have: each has only what it needs. */
export type Shape = {
  /** Only series whose dimensions have some values: :filters, a JSON array of [key, [value, …]]. */
  readonly filtered: boolean;
  /** Apart by the values of some dimensions: :keys, a JSON array. */
  readonly grouped: boolean;
  /** Apart by customer. */
  readonly byCustomer: boolean;
};

/** The order of rows: of their windows, and within one of their groups. */
export type RowOrder = { readonly windows: Order; readonly groups: "ascending" | "descending" };

const FILTERED = `
    AND NOT EXISTS (
      SELECT 1 FROM json_each(:filters) AS filter
      WHERE COALESCE(
        IIF(dimensions = '', NULL, dimensions ->> (filter.value ->> 0)) NOT IN (
          SELECT value FROM json_each(filter.value, '$[1]')
        ), true)
    )`;

/** The series on a meter of customers from :first to :last. */
export const wantedSeries = ({ filtered }: Pick<Shape, "filtered">): string =>
  `series.meter = :meter AND series.customer BETWEEN :first AND :last${filtered ? FILTERED : ""}`;

/**
 * What tells rows apart besides their window: the values of :keys as a JSON array, NULL where a series does not tell
 * them. From `dimensions`.
 */
export const groupOf = ({ grouped }: Shape): string =>
  grouped
    ? "(SELECT json_group_array(IIF(dimensions = '', NULL, dimensions ->> keys.value)) FROM json_each(:keys) AS keys)"
    : "'[]'";

/** Whose a row is; not told where customers are added up. */
export const customerOf = ({ byCustomer }: Shape): string => (byCustomer ? "series.customer" : "''");

/** A common table of runs of windows: :runs, a JSON array of [first, end (half open), origin (ms), length (ms)]. */
export const RUNS = `
  runs AS MATERIALIZED (
    SELECT value ->> 0 AS first, value ->> 1 AS last, value ->> 2 AS origin, value ->> 3 AS length FROM json_each(:runs)
  )`;

/** The most series of one edge that are told: one more than a request takes. */
export const MOST_SERIES = `LIMIT ${LIMITS.usageRows + 1}`;

/** The start of the window (ms) that a time (ms) is in, which is in a run. */
export const windowStart = (time: string): string =>
  `runs.origin + (${time} - runs.origin) / runs.length * runs.length`;

/** Rows after the group :after_group of the window of :after_start (ms), in the page's order; all when that is NULL. */
export const afterGroup = ({ groups }: RowOrder): string =>
  `(start IS NOT :after_start OR grp ${groups === "ascending" ? ">" : "<"} :after_group)`;

/** Rows in order. */
export const inOrder = ({ windows, groups }: RowOrder): string =>
  `start ${DIRECTION[windows]}, customer, grp ${groups === "ascending" ? "ASC" : "DESC"}`;

/** The customers on a meter from one on, :from. */
export const CUSTOMERS_OF_METER = `
  SELECT DISTINCT customer FROM series WHERE meter = :meter AND customer >= :from ORDER BY customer LIMIT :limit`;

/** The meters on which :customer has series. */
export const METERS_OF_CUSTOMER = `
  WITH RECURSIVE ${ALL_METERS}
  SELECT meter FROM meters WHERE EXISTS (
    SELECT 1 FROM series WHERE series.meter = meters.meter AND series.customer = :customer
  )`;

/** The meter :meter, or all when that is empty. */
const SOME_METERS = `
  ${ALL_METERS},
  some (meter) AS MATERIALIZED (SELECT :meter WHERE :meter <> '' UNION ALL SELECT meter FROM meters WHERE :meter = '')`;

const nextCustomer = (after: string): string => `(
      SELECT MIN((
        SELECT MIN(customer) FROM series
        WHERE series.meter = some.meter AND series.customer > ${after} AND series.customer >= :prefix
      )) FROM some
    )`;

/** The customers after one, :after, that begin with :prefix, on :meter or on any: a look into the index for each meter. */
export const FIND_CUSTOMERS = `
  WITH RECURSIVE ${SOME_METERS},
  step (customer) AS (
    SELECT ${nextCustomer(":after")}
    UNION ALL
    SELECT ${nextCustomer("step.customer")} FROM step WHERE substr(step.customer, 1, length(:prefix)) = :prefix
    LIMIT :limit
  )
  SELECT customer FROM step WHERE substr(customer, 1, length(:prefix)) = :prefix`;

/** When the quarter hour of the latest event began (ms) that counts, of :customers, a JSON array, on :meter or on any. */
export const LAST_EVENTS = `
  WITH RECURSIVE ${SOME_METERS}
  SELECT customer, MAX(last_event) AS last_event FROM (
    SELECT series.customer, (
      SELECT MAX(time) - MAX(time) % ${QUARTER_HOUR_MS} FROM (
        SELECT * FROM (
          SELECT quarter_hour * ${QUARTER_HOUR_MS} AS time FROM sums
          WHERE sums.series = series.id AND count > 0 ORDER BY quarter_hour DESC LIMIT 1
        )
        UNION ALL
        SELECT * FROM (
          SELECT timestamp FROM survivors WHERE survivors.series = series.id AND survivors.id <> '' ORDER BY window_start DESC LIMIT 1
        )
      )
    ) AS last_event
    FROM some CROSS JOIN json_each(:customers) AS wanted CROSS JOIN series
    WHERE series.meter = some.meter AND series.customer = wanted.value
  )
  GROUP BY 1`;
