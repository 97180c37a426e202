// What all customers used on a meter. Databases are asked for customers in the order of their ids, a part of them at a
// time: so what a statement takes and what is in memory has a bound, and a customer whose usage moved from one database
// to another is added up before anything is ranked.
import { bind } from "../aggregate/sql/bind.ts";
import { CUSTOMERS_OF_METER, FIND_CUSTOMERS, LAST_EVENTS } from "../aggregate/sql/usage.ts";
import type { MeteringError } from "../domain/errors.ts";
import { LIMITS } from "../domain/limits.ts";
import { aggregationOf, type Meter } from "../domain/meter.ts";
import { err, ok, type Result } from "../domain/result.ts";
import { compareBytes } from "../domain/text.ts";
import { QUARTER_HOUR_MS } from "../domain/window.ts";
import type { Env } from "../env.ts";
import { allSources, twiceIfDeleted } from "./sources.ts";
import { ALL, addedUp, readEdges, readWhole, rowsOf, type UsageQuery, type UsageRow } from "./usage.ts";

export type AllCustomersQuery = Pick<UsageQuery, "meter" | "runs" | "filters" | "keys" | "byCustomer"> & {
  /** `name`: by customer, window and group, the values of one customer side by side. `value`: the largest first. */
  readonly order: "name" | "value";
  /** Only rows after this one. */
  readonly after: UsageRow | undefined;
  /** Rows. */
  readonly limit: number;
};

/** Customers that are read at once; rows of theirs (windows are multiplied by customers); and sums that they may have. */
const CUSTOMERS_AT_ONCE = 5_000;
const ROWS_AT_ONCE = 50_000;
const SUMS_AT_ONCE = 5_000_000;

/** So many at least: the last of them is where the next part begins. */
const FEWEST = 2;

/** A page of rows. Fails as `readUsage` does, and yields `databases_changed`. */
export async function readUsageOfAll(env: Env, query: AllCustomersQuery): Promise<Result<UsageRow[], MeteringError>> {
  const databases = await allSources(env, query.meter.livemode);
  if (!databases.ok) return databases;
  return twiceIfDeleted(() => read(env, databases.value, query));
}

/** Comes after every customer. */
const LAST = "\u{10ffff}".repeat(LIMITS.payloadValueLength);

async function read(
  env: Env,
  databases: readonly D1Database[],
  query: AllCustomersQuery,
): Promise<Result<UsageRow[], MeteringError>> {
  const { order, byCustomer, after, limit } = query;
  const inOrder = compareIn(order);
  const isAfter = (row: UsageRow): boolean => after === undefined || inOrder(row, after) > 0;
  const customers = { first: byCustomer && order === "name" ? (after?.customer ?? "") : "", last: LAST };
  const asked = { ...query, customers };
  const edges = await readEdges(env, databases, asked, ALL);
  if (!edges.ok) return edges;
  // Where customers are added up by the databases, no part says whose it is.
  const ofAll = rowsOf(
    asked,
    edges.value.filter(({ customer }) => customer === ""),
  );
  let rows = byCustomer ? [] : ofAll;
  let most = mostCustomers(query);
  for (let from: string | undefined = customers.first; from !== undefined; ) {
    const part = await nextPart(databases, query.meter, from, most);
    if (part === undefined) break;
    const whole = await readWhole(databases, { ...query, customers: part }, ALL);
    if (!whole.ok) {
      if (whole.error.reason !== "usage_too_large" || most === FEWEST) return whole;
      // Their combinations of dimensions are many.
      most = Math.max(FEWEST, Math.floor(most / 8));
      continue;
    }
    const own = edges.value.filter(
      ({ customer }) =>
        customer !== "" && compareBytes(customer, part.first) >= 0 && compareBytes(customer, part.last) <= 0,
    );
    const found = rowsOf(asked, [...whole.value, ...own]);
    // A customer is in one part alone, so only those that can be on the page are kept.
    rows = byCustomer
      ? [...rows, ...found.filter(isAfter)].sort(inOrder).slice(0, limit)
      : addedUp([...rows, ...found], query.meter.formula);
    if (rows.length > LIMITS.usageRows) return err({ reason: "usage_too_large" });
    if (byCustomer && order === "name" && rows.length === limit) break;
    from = part.next;
  }
  return ok(rows.filter(isAfter).sort(inOrder).slice(0, limit));
}

const compareIn =
  (order: AllCustomersQuery["order"]) =>
  (one: UsageRow, other: UsageRow): number =>
    (order === "value" ? compareBigInts(other.value, one.value) : 0) ||
    compareBytes(one.customer, other.customer) ||
    one.start - other.start ||
    compareBytes(one.group, other.group);

const compareBigInts = (one: bigint, other: bigint): number => (one < other ? -1 : Number(one > other));

/**
 * How many customers are read at once in some windows: those whose rows are few enough. Where databases add customers
 * up, their rows are few, and only what is read for them has a bound: they may be more.
 */
function mostCustomers({ meter, runs, byCustomer }: AllCustomersQuery): number {
  const windows = runs.reduce((sum, { start, end, length }) => sum + (end - start) / length, 0);
  const quarterHours = runs.reduce((sum, { start, end }) => sum + (end - start) / QUARTER_HOUR_MS, 0);
  const areAddedUp = !byCustomer && aggregationOf(meter) === "additive";
  const most = Math.max(ROWS_AT_ONCE / windows, areAddedUp ? SUMS_AT_ONCE / quarterHours : 0);
  return Math.max(FEWEST, Math.min(CUSTOMERS_AT_ONCE, Math.floor(most)));
}

/** Some customers on a meter, from one to another, and the one that comes next; nothing when there are none. */
async function nextPart(
  databases: readonly D1Database[],
  meter: Meter,
  from: string,
  limit: number,
): Promise<(UsageQuery["customers"] & { readonly next: string | undefined }) | undefined> {
  const found = await Promise.all(
    databases.map(async (db) => {
      const listed = bind(db, CUSTOMERS_OF_METER, { meter: meter.id, from, limit }).all<{ customer: string }>();
      return (await listed).results.map(({ customer }) => customer);
    }),
  );
  const all = found.flat().sort(compareBytes);
  const [first] = all;
  if (first === undefined) return undefined;
  // A database that gave as many as it may has more of them: what comes after the first of their last is not known.
  const [next] = found.flatMap((own) => (own.length === limit ? own.slice(-1) : [])).sort(compareBytes);
  const last = next === undefined ? all.at(-1) : all.findLast((customer) => compareBytes(customer, next) < 0);
  return { first, last: last ?? first, next };
}

/** A customer, and when the quarter hour of its latest event began (ms); nothing when none of its events counts. */
export type Customer = { readonly id: string; readonly lastEvent: number | undefined };

/** Customers in the order of their ids: those that begin with a prefix, after one of them, on a meter or on any. */
export async function listCustomers(
  env: Env,
  livemode: boolean,
  query: { readonly prefix: string; readonly meter: Meter | undefined; readonly after: string; readonly limit: number },
): Promise<Result<Customer[], MeteringError>> {
  const databases = await allSources(env, livemode);
  if (!databases.ok) return databases;
  const values = { ...query, meter: query.meter?.id ?? "" };
  const found = await Promise.all(
    databases.value.map((db) => bind(db, FIND_CUSTOMERS, values).all<{ customer: string }>()),
  );
  const all = new Set(found.flatMap(({ results }) => results.map(({ customer }) => customer)));
  const customers = [...all].sort(compareBytes).slice(0, query.limit);
  const last = await Promise.all(
    databases.value.map((db) =>
      bind(db, LAST_EVENTS, { ...values, customers: JSON.stringify(customers) }).all<{
        customer: string;
        last_event: number | null;
      }>(),
    ),
  );
  const events = last.flatMap(({ results }) => results);
  return ok(
    customers.map((id) => {
      const times = events.flatMap(({ customer, last_event }) => (customer === id ? (last_event ?? []) : []));
      return { id, lastEvent: times.length === 0 ? undefined : Math.max(...times) };
    }),
  );
}
