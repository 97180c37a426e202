// Rows of files as entries of a log, which the aggregator's statements take.
import type { Entries } from "../aggregate/entries.ts";
import { quarterOf } from "../aggregate/sql/slices.ts";
import type { Aggregation } from "../domain/meter.ts";
import { writeCancellation, writeEvent } from "../log/codec.ts";
import { inParts } from "./parts.ts";
import { type Row, sizeOf } from "./rows.ts";

/** Rows that go into one transaction, as bytes of their text about: one statement each, of which D1 binds 2 MB. */
const PORTION_BYTES = 1_000_000;

/** Rows of a slice in portions, each for a transaction: events, and apart from them those that are cancelled. */
export function portionsOf(
  slice: number,
  rows: readonly Row[],
  aggregations: ReadonlyMap<string, Aggregation>,
): Entries[] {
  return [...Map.groupBy(rows, ({ cancelled }) => cancelled === null)].flatMap(([isCounted, ofKind]) =>
    inParts(ofKind, PORTION_BYTES, (row) => 3 * sizeOf(row)).map((part): Entries => {
      const quarters = part.map(({ timestamp }) => quarterOf(timestamp));
      return {
        kind: isCounted ? "events" : "cancellations",
        slice,
        from: Math.min(...quarters),
        to: Math.max(...quarters),
        entries: part.map((row) => entryOf(row, aggregations.get(row.meter) ?? "additive")).join(","),
      };
    }),
  );
}

function entryOf({ series: _, cancelled, cancelledBy, ...row }: Row, aggregation: Aggregation): string {
  const entry = {
    ...row,
    aggregation,
    dimensions: row.dimensions ?? "",
    payload: row.payload === null ? undefined : JSON.parse(row.payload),
  };
  return cancelled === null
    ? writeEvent(entry)
    : writeCancellation({ ...entry, cancelled, cancelledBy: cancelledBy ?? 0 });
}
