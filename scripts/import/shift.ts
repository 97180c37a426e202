import type { Row } from "./rows.ts";
import { parseTimestamp } from "./timestamps.ts";

/** The newest readable timestamp (ms) in a column, or nothing when there is none. */
export async function newestTimestamp(rows: AsyncIterable<Row>, column: number): Promise<number | undefined> {
  let newest: number | undefined;
  for await (const { fields } of rows) {
    const timestamp = parseTimestamp(fields[column] ?? "");
    if (timestamp !== undefined && (newest === undefined || timestamp > newest)) newest = timestamp;
  }
  return newest;
}

/** What to add to every timestamp (ms) so that the newest lies just before `now` (ms). */
export const shiftToNow = (newest: number | undefined, now: number): number =>
  newest === undefined ? 0 : now - 1 - newest;
