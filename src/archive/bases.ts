// Bases: what is left of a window's events once their slices are dropped. None of them can be cancelled any more.
import { KEEP_BASES, outranks, rankOf, WINDOW_MS } from "../aggregate/sql/survivors.ts";
import type { Aggregation } from "../domain/meter.ts";
import { floorTo } from "../domain/window.ts";
import { inParts } from "./parts.ts";
import type { Row } from "./rows.ts";

type Base = readonly [series: number, windowStart: number, rank: number, timestamp: number, id: string, value: number];

/** Windows of one statement: D1 binds up to 2 MB. */
const AT_ONCE = 10_000;

/**
 * Keeps, of each window of meters that keep one event, the greatest of some rows of a sealed slice: when a later event
 * that stands for the window is cancelled, it is what the window falls back to. May run again at any time.
 */
export async function keepBases(
  db: D1Database,
  rows: readonly Row[],
  aggregations: ReadonlyMap<string, Aggregation>,
): Promise<void> {
  for (const some of basesOf(rows, aggregations)) await db.prepare(KEEP_BASES).bind(some).run();
}

/** Of each window of meters that keep one event the greatest of some rows, for KEEP_BASES: JSON for a statement each. */
export function basesOf(rows: readonly Row[], aggregations: ReadonlyMap<string, Aggregation>): string[] {
  const bases = new Map<string, Base>();
  for (const { series, meter, timestamp, id, value, cancelled } of rows) {
    const aggregation = aggregations.get(meter) ?? "additive";
    if (aggregation === "additive" || cancelled !== null) continue;
    const start = floorTo(timestamp, WINDOW_MS[aggregation]);
    const rank = rankOf(aggregation, { timestamp, value });
    const known = bases.get(`${series}:${start}`);
    if (known === undefined || outranks({ rank, id }, { rank: known[2], id: known[4] })) {
      bases.set(`${series}:${start}`, [series, start, rank, timestamp, id, value]);
    }
  }
  return inParts([...bases.values()], AT_ONCE).map((part) => JSON.stringify(part));
}
