/** The rows of each statement that was run. */
type Rows = readonly (readonly Readonly<Record<string, unknown>>[])[];

/** Runs statements on a database in one transaction, and gives the rows of each. Throws with the database's words. */
export type RunSql = (sql: string) => Promise<Rows>;

/** A text as SQL. Written as its bytes in hex, none of it can be read as anything but the text. */
export const sqlText = (text: string): string => `CAST(x'${Buffer.from(text).toString("hex")}' AS TEXT)`;

/** The number of a new API key, in the statement that inserts it. */
export const NEXT_KEY_NUMBER = "(SELECT coalesce(max(number), 0) + 1 FROM api_keys)";
