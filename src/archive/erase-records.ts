// What an events database keeps of a customer besides events: dead letters, and the samples of error reports.
import { FIND_LETTERS_WITH, REPLACE_ENTRY } from "../aggregate/sql/dead-letters.ts";
import { FIND_REPORTS_WITH, REPLACE_SAMPLES } from "../aggregate/sql/error-reports.ts";
import { type LogRejection, readEvents, withoutCustomer } from "../log/codec.ts";
import type { GroupKind } from "../log/groups.ts";

/** A customer who was erased from a database. */
export type Erased = {
  readonly customer: string;
  readonly alias: string;
  /** What was received until then (ms) is erased. */
  readonly erasedAt: number;
};

/** Rows that are read at once. */
const ROWS = 200;

/** What a sample says that named the customer: a report counts it still. */
const ERASED_SAMPLE = ["The customer of this event was erased.", "em_erased"] as const;

/** What is left of a dead letter that is no JSON. The database refuses it as before. */
const ERASED_ENTRY = "erased";

/** Erases a customer from the dead letters and error reports of a database; how many there were. May be repeated. */
export async function eraseRecords(
  db: D1Database,
  erased: Erased,
): Promise<{ readonly deadLetters: number; readonly errorReports: number }> {
  const { customer, erasedAt } = erased;
  const deadLetters = await replaceEach<{ id: string; kind: GroupKind; entry: string }>(
    db,
    (after) => db.prepare(FIND_LETTERS_WITH).bind(textOf(customer), after, ROWS),
    REPLACE_ENTRY,
    ({ kind, entry }) => eraseEntry(kind, entry, erased),
  );
  const errorReports = await replaceEach<{ id: string; samples: string }>(
    db,
    (after) => db.prepare(FIND_REPORTS_WITH).bind(textOf(customer), erasedAt, after, ROWS),
    REPLACE_SAMPLES,
    ({ samples }) => JSON.stringify(eraseSamples(JSON.parse(samples), customer)),
  );
  return { deadLetters, errorReports };
}

/** A customer as it stands within a JSON string. */
export const textOf = (customer: string): string => JSON.stringify(customer).slice(1, -1);

/** Replaces a text of each row that `find` finds after an id, where there is another for it; how many. */
async function replaceEach<Row extends { readonly id: string }>(
  db: D1Database,
  find: (after: string) => D1PreparedStatement,
  replace: string,
  textFor: (row: Row) => string | undefined,
): Promise<number> {
  let replaced = 0;
  for (let after: string | undefined = ""; after !== undefined; ) {
    const { results }: D1Result<Row> = await find(after).all<Row>();
    const statements = results.flatMap((row) => {
      const text = textFor(row);
      return text === undefined ? [] : [db.prepare(replace).bind(row.id, text)];
    });
    if (statements.length > 0) await db.batch(statements);
    replaced += statements.length;
    after = results.length < ROWS ? undefined : results.at(-1)?.id;
  }
  return replaced;
}

/**
 * A dead letter's entry without the customer: redriven, it counts under the alias. Nothing for an entry of another
 * customer, or one that was received after the erasure.
 */
export function eraseEntry(kind: GroupKind, entry: string, { customer, alias, erasedAt }: Erased): string | undefined {
  try {
    if (kind === "rejections") {
      const rejection: LogRejection = JSON.parse(entry);
      if (rejection.received > erasedAt) return undefined;
      return JSON.stringify({ ...rejection, samples: eraseSamples(rejection.samples, customer) });
    }
    const [event] = readEvents(entry);
    const isOfOther = event?.customer !== customer || event.received > erasedAt;
    return isOfOther ? undefined : withoutCustomer(entry, alias);
  } catch {
    return entry.includes(JSON.stringify(customer)) ? ERASED_ENTRY : undefined;
  }
}

const eraseSamples = (samples: LogRejection["samples"], customer: string): LogRejection["samples"] =>
  samples.map((sample) => (sample.some((text) => text.includes(customer)) ? ERASED_SAMPLE : sample));
