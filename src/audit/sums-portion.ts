import { aggregationsOf } from "../catalog/meters.ts";
import type { Aggregation } from "../domain/meter.ts";
import { ceilTo } from "../domain/window.ts";
import type { Env } from "../env.ts";
import { logError, logWarning } from "../logger.ts";
import type { Budget } from "./budget.ts";
import { type Key, nextPortion, type Part } from "./portions.ts";
import { overSlices, readSlices } from "./slices.ts";
import { rangeOfWindows, SUMS, SURVIVORS, type Summaries, type Window, windowOf } from "./summaries.ts";

type SumsAudit = {
  /** Sums and survivors that were compared with their events. */
  readonly checked: number;
  /** Of these, those that said something else, and now say the same. */
  readonly repaired: number;
  /** Those that say more than their events, from before `lessFrom`; left as they are. */
  readonly suspect: number;
};

type PortionOptions = {
  /** The database's name, for what is logged. */
  readonly database: string;
  readonly lessFrom: number;
};

/** A part of a series whose meter is known. */
type Wanted = Part & { readonly aggregation: Aggregation };

/** What was found in parts of series, and how many events that count each of these has. */
type Comparison = SumsAudit & { readonly events: ReadonlyMap<number, number> };

type PortionAudit = Comparison & {
  /** Whether not all of it could be compared. */
  readonly failed: boolean;
  readonly parts: readonly Part[];
  readonly next: Key | undefined;
};

/** Compares the next portion of a database's sums and survivors with their events, and repairs what differs. */
export async function auditPortion(
  env: Env,
  db: D1Database,
  from: Key,
  options: PortionOptions,
  budget: Budget,
): Promise<PortionAudit> {
  const { completeFrom } = await readSlices(db, budget);
  const { parts, next } = await nextPortion(db, from, completeFrom, budget);
  try {
    const aggregations = await aggregationsOf(env.DB, [...new Set(parts.map(({ meter }) => meter))]);
    const wanted = parts.flatMap((part): Wanted[] => {
      const aggregation = aggregations.get(part.meter);
      return aggregation === undefined ? [] : [{ ...part, aggregation }];
    });
    const [additive, others] = [true, false].map((isAdditive) =>
      wanted.filter(({ aggregation }) => (aggregation === "additive") === isAdditive),
    );
    const sums = await compare(db, SUMS, additive ?? [], options, budget);
    const survivors = await compare(db, SURVIVORS, others ?? [], options, budget);
    return { ...addUp(sums, survivors), failed: false, parts, next };
  } catch (error) {
    // One portion that is too much must not keep the audit from all that come after it.
    logError("sums were not compared", error, { database: options.database, series: from.series });
    return { ...NOTHING, failed: true, parts, next };
  }
}

const NOTHING: Comparison = { checked: 0, repaired: 0, suspect: 0, events: new Map() };

/** Of comparisons that have no series in common. */
const addUp = (one: Comparison, other: Comparison): Comparison => ({
  checked: one.checked + other.checked,
  repaired: one.repaired + other.repaired,
  suspect: one.suspect + other.suspect,
  events: new Map([...one.events, ...other.events]),
});

async function compare<Row, V>(
  db: D1Database,
  summaries: Summaries<Row, V>,
  wanted: readonly Wanted[],
  { database, lessFrom }: PortionOptions,
  budget: Budget,
): Promise<Comparison> {
  if (wanted.length === 0) return NOTHING;
  const { compared, events } = await read(db, summaries, wanted, budget);
  const differing = compared.filter(({ kept, made }) => !summaries.isSame(kept, made));
  const isSuspect = ({ start, kept, made }: Compared<V>): boolean => start < lessFrom && summaries.saysMore(kept, made);
  const suspect = differing.filter(isSuspect);
  const wrong = differing.filter((window) => !isSuspect(window));
  const where = (windows: readonly Window[]) => ({
    database,
    sums: windows.length,
    meter: wanted.find(({ series }) => series === windows[0]?.series)?.meter ?? "",
    start: windows[0]?.start ?? 0,
  });
  if (wrong.length > 0) {
    await remake(db, summaries, wrong, budget);
    logWarning("sums differed from their events, and were made again", where(wrong));
  }
  if (suspect.length > 0) logWarning("sums say more than their events, and were left as they are", where(suspect));
  return { checked: compared.length, repaired: wrong.length, suspect: suspect.length, events };
}

/** A window, what is kept of it, and what its events make. */
type Compared<V> = Window & { kept?: V; made?: V };

/** Reads what is kept and what the events make, as one moment has both, and how many events each series has. */
async function read<Row, V>(
  db: D1Database,
  summaries: Summaries<Row, V>,
  wanted: readonly Wanted[],
  budget: Budget,
): Promise<{ compared: Compared<V>[]; events: Map<number, number> }> {
  const range = { start: Math.min(...wanted.map(({ from }) => from)), end: Math.max(...wanted.map(({ to }) => to)) };
  type WindowRow = Row & { series: number; start: number };
  const [kept, ...made] = await overSlices<WindowRow>(db, range, budget, (slices, completeFrom) => {
    const parts = wanted.map(({ series, from, to, aggregation }) => [
      ...[series, Math.max(from, ceilTo(completeFrom, windowOf(aggregation))), to],
      aggregation,
    ]);
    return [summaries.kept, ...slices.map(summaries.madeBy)].map((sql) => db.prepare(sql).bind(JSON.stringify(parts)));
  });
  const aggregations = new Map(wanted.map(({ series, aggregation }) => [series, aggregation]));
  const windows = new Map<string, Compared<V>>();
  const windowOfRow = ({ series, start }: { series: number; start: number }): Compared<V> => {
    const name = `${series}:${start}`;
    const window = windows.get(name) ?? { series, start, aggregation: aggregations.get(series) ?? "additive" };
    windows.set(name, window);
    return window;
  };
  for (const row of kept?.results ?? []) windowOfRow(row).kept = summaries.read(row);
  const events = new Map<number, number>();
  for (const row of made.flatMap(({ results }) => results)) {
    events.set(row.series, (events.get(row.series) ?? 0) + summaries.eventsOf(row));
    const window = windowOfRow(row);
    const value = summaries.read(row);
    window.made = window.made === undefined ? value : summaries.together(window.made, value);
  }
  return { compared: [...windows.values()], events };
}

/** Makes what is kept of windows again, from all that is stored by then. */
async function remake<Row, V>(
  db: D1Database,
  summaries: Summaries<Row, V>,
  windows: readonly Window[],
  budget: Budget,
): Promise<void> {
  await overSlices(db, rangeOfWindows(windows), budget, (slices, completeFrom) =>
    summaries.remake(
      db,
      windows.filter(({ start }) => start >= completeFrom),
      slices,
    ),
  );
}
