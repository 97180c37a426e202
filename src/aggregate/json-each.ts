import { logWarning } from "../logger.ts";

// `jsonb_each` gives each element parsed, which saves half of the aggregator's time, but Cloudflare lists it
// nowhere among D1's functions, nor `jsonb`. Where a database has none, the same statements run on `json_each`: they
// read elements with `->` and `->>` alone, and payloads with `json`, which take both.

/** Whether this isolate has met a database without `jsonb_each`. */
let isMissing = false;

/** A statement as the database can run it, as far as this isolate knows. */
export const forDatabase = (sql: string): string => (isMissing ? onJsonEach(sql) : sql);

/** The same statement without JSONB: on `json_each`, and payloads are stored as text. */
export const onJsonEach = (sql: string): string => sql.replaceAll(/\bjsonb(_each)?\(/g, "json$1(");

/**
 * Does work on a database whose statements come from `forDatabase`, a second time when it turns out that the
 * database has no `jsonb_each`: the work prepares its statements anew, and the first time did nothing.
 */
export async function withJsonEach<T>(work: () => Promise<T>): Promise<T> {
  const wasMissing = isMissing;
  try {
    return await work();
  } catch (error) {
    if (wasMissing || !(error instanceof Error) || !error.message.includes("jsonb")) throw error;
    // Another transaction of this isolate may have found it out meanwhile.
    if (isMissing) return work();
    isMissing = true;
    logWarning("D1 has no jsonb_each: events are aggregated with json_each, more slowly", {});
    return work();
  }
}
