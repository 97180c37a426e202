// Events whose combination of dimensions is past the limit count in totals alone, and an error report says so.
import { LIMITS, REJECTION_SAMPLES } from "../domain/limits.ts";
import { isLiveMeter } from "../domain/meter.ts";
import { type LogRejection, readEvents, writeRejection } from "../log/codec.ts";
import { type Entries, packByBytes, STATEMENT_BYTES } from "./entries.ts";
import { withReports } from "./error-report.ts";
import { forDatabase, withJsonEach } from "./json-each.ts";
import { FIND_OVERFLOW } from "./sql/entries.ts";
import { INSERT_REJECTIONS } from "./sql/error-reports.ts";

/** Stripe's code for it. */
const CODE = "meter_event_dimension_count_too_high";

/** Whether an entry may have dimensions. It looks at the text, as `keepsSurvivors` does. */
const mayHaveDimensions = (entries: string): boolean => entries.includes('"{\\"');

/**
 * Reports the events of entries that are past the limit of combinations. It runs after their transaction, which counted
 * them, and before their group is confirmed, so that a crash in between repeats it; a line is reported once. The
 * reports are in the database of the events. `now` in ms.
 */
export async function reportOverflow(
  db: D1Database,
  entries: readonly Pick<Entries, "kind" | "entries">[],
  now: number,
): Promise<void> {
  const lines = entries
    .filter((each) => each.kind === "events" && mayHaveDimensions(each.entries))
    .map((each) => each.entries);
  if (lines.length === 0) return;
  // As few statements as possible: D1 takes 1,000 of a run, which may have more lines of few events each.
  const find = () => packByBytes(lines, STATEMENT_BYTES).map((text) => statement(db, forDatabase(FIND_OVERFLOW), text));
  const found = await withJsonEach(() => db.batch<{ id: string }>(find()));
  const past = new Set(found.flatMap(({ results }) => results.map(({ id }) => id)));
  if (past.size === 0) return;
  const rejections = lines.flatMap((line) => rejectionsOf(line, past)).map(writeRejection);
  await db.batch(
    packByBytes(rejections, STATEMENT_BYTES).map((text) => statement(db, INSERT_REJECTIONS, withReports(text, now))),
  );
}

const statement = (db: D1Database, sql: string, entries: string): D1PreparedStatement =>
  db.prepare(sql).bind(`[${entries}]`);

/** What a report says of a line: a row for each meter, under the id of its first event past the limit; `past`: their ids. */
function rejectionsOf(line: string, past: ReadonlySet<string>): LogRejection[] {
  const ofLine = readEvents(line).filter(({ id }) => past.has(id));
  return [...Map.groupBy(ofLine, ({ meter }) => meter)].flatMap(([meter, ofMeter]) => {
    const [first] = ofMeter;
    if (first === undefined) return [];
    return {
      ...{ id: `overflow_${first.id}`, livemode: isLiveMeter(meter), meter, code: CODE },
      ...{ count: ofMeter.length, received: first.received },
      samples: ofMeter
        .slice(0, REJECTION_SAMPLES)
        .map(({ customer, identifier }) => [messageOf(customer), identifier] as const),
    };
  });
}

const messageOf = (customer: string): string =>
  `The customer ${customer} has more than ${LIMITS.dimensionCombinations.toLocaleString("en")} combinations of dimension values on the meter. The event counts in totals, but under none of its values.`;
