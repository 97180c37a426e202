// Entries as text, on their way into statements.
import { KEEPS_SURVIVORS } from "../domain/meter.ts";
import type { GroupKind, Line } from "../log/groups.ts";

/** Entries of one kind for one slice of a database. */
export type Entries = Pick<Line, "slice" | "from" | "to" | "entries"> & { readonly kind: GroupKind };

/** The most text one statement takes (bytes). D1 binds up to 2 MB. */
export const STATEMENT_BYTES = 1_500_000;

/** Whether the meter of some entry keeps survivors. It looks at the text, since parsing would cost more than it saves. */
export const keepsSurvivors = (entries: string): boolean =>
  KEEPS_SURVIVORS.some((aggregation) => entries.includes(aggregation));

/** Joins texts by commas, in their order, into as few as fit `limit` bytes each; one that is longer stands alone. */
export function packByBytes(texts: readonly string[], limit: number): string[] {
  const packed: string[] = [];
  let current: string[] = [];
  let bytes = 0;
  for (const text of texts) {
    const size = Buffer.byteLength(text) + 1;
    if (bytes + size > limit && current.length > 0) {
      packed.push(current.join(","));
      current = [];
      bytes = 0;
    }
    current.push(text);
    bytes += size;
  }
  if (current.length > 0) packed.push(current.join(","));
  return packed;
}
