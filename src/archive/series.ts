// Files carry the numbers of series that their database had when it wrote them. A database that was made anew, or
// restored to an earlier moment, may have given other numbers since: meter, customer and dimensions decide. Erasures
// change names too: some of them it may not know any more, and others not the file.
import { ADOPT_SERIES, NUMBERS_OF_SERIES, namesInSlice } from "../aggregate/sql/series.ts";
import { OWN_PREFIX } from "../domain/identifiers.ts";
import { inParts } from "./parts.ts";
import type { Row } from "./rows.ts";

type Series = readonly [theirs: number, meter: string, customer: string, dimensions: string];

/** Text of one statement (bytes), of which D1 binds 2 MB; a character has up to 4. */
const STATEMENT_BYTES = 1_500_000;

/** Events by which a series is recognized whose name a database does not know. */
const RECOGNIZED_BY = 100;

const ERASURES = "SELECT alias, customer, erased_at FROM erasures WHERE customer IS NOT NULL ORDER BY erased_at";

const nameOf = ({ meter, customer, dimensions }: Row): string => JSON.stringify([meter, customer, dimensions]);

const seriesOf = ({ series, meter, customer, dimensions }: Row): Series => [series, meter, customer, dimensions ?? ""];

const inStatements = <T>(series: readonly T[]): T[][] =>
  inParts(series, STATEMENT_BYTES, (one) => 4 * JSON.stringify(one).length);

/** An event of an erased customer, as the alias has it. */
export const blank = (row: Row, alias: string): Row => ({
  ...row,
  ...{ customer: alias, identifier: OWN_PREFIX + row.id, payload: null },
});

/**
 * Rows of a file with the numbers that their series have in a database, in the order of its key, and without customers
 * that were erased from it; the same rows when nothing differs. Series that the database does not know are made, with
 * their own numbers where these are free.
 */
export async function inNumbersOf(db: D1Database, found: readonly Row[]): Promise<readonly Row[]> {
  const rows = await withoutErased(db, found);
  const series = new Map(rows.map((row) => [nameOf(row), seriesOf(row)]));
  const numbers = new Map<string, number>();
  for (const part of inStatements([...series])) {
    const wanted = JSON.stringify(part.map(([, one]) => one));
    const results = await db.batch<{ place: number; id: number }>(
      [...ADOPT_SERIES, NUMBERS_OF_SERIES].map((sql) => db.prepare(sql).bind(wanted)),
    );
    for (const { place, id } of results.at(-1)?.results ?? []) numbers.set(part[place]?.[0] ?? "", id);
  }
  if (rows.every((row) => numbers.get(nameOf(row)) === row.series)) return rows;
  return rows.map((row) => ({ ...row, series: numbers.get(nameOf(row)) ?? row.series })).sort(byKey);
}

/** Also what a log sends again of an erased customer counts for the alias: what was received before the erasure. */
async function withoutErased(db: D1Database, rows: readonly Row[]): Promise<readonly Row[]> {
  const { results } = await db.prepare(ERASURES).all<{ alias: string; customer: string; erased_at: number }>();
  const erased = Map.groupBy(results, ({ customer }) => customer);
  if (!rows.some(({ customer }) => erased.has(customer))) return rows;
  return rows.map((row) => {
    const erasure = erased.get(row.customer)?.find(({ erased_at }) => row.received <= erased_at);
    return erasure === undefined ? row : blank(row, erasure.alias);
  });
}

/** The order of the key of `events`: SQLite compares text by its bytes, and ids are ASCII. */
const byKey = (a: Row, b: Row): number =>
  a.series - b.series || a.timestamp - b.timestamp || (a.id < b.id ? -1 : Number(a.id > b.id));

/**
 * Rows of a file with the customers that a database has for them. A database that was restored to a time before an
 * erasure has the customer's name, and the files that the erasure wrote have the alias: the same events, which are
 * recognized by their series' numbers and their ids.
 */
export async function inNamesOf(db: D1Database, slice: number, rows: readonly Row[]): Promise<readonly Row[]> {
  const series = [...Map.groupBy(rows, nameOf)].map(([name, own]) => {
    const events = own.slice(0, RECOGNIZED_BY).map(({ timestamp, id }) => [timestamp, id]);
    return { name, wanted: own[0] && [...seriesOf(own[0]), events] };
  });
  const customers = new Map<string, string>();
  for (const part of inStatements(series)) {
    const wanted = JSON.stringify(part.map((one) => one.wanted));
    const { results } = await db.prepare(namesInSlice(slice)).bind(wanted).all<{ place: number; customer: string }>();
    for (const { place, customer } of results) customers.set(part[place]?.name ?? "", customer);
  }
  if (customers.size === 0) return rows;
  return rows.map((row) => ({ ...row, customer: customers.get(nameOf(row)) ?? row.customer }));
}
