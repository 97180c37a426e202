import { z } from "zod";

const StoredObject = z.object({ type: z.string(), name: z.string(), table: z.string(), sql: z.string() });

/** A table, an index, a view or a trigger as a database remembers it: by the statement that makes it. */
export type StoredObject = Readonly<z.output<typeof StoredObject>>;

/**
 * What a database is made of, in the order it was made. It leaves SQLite's and D1's own tables out.
 * It asks for nothing that D1 withholds: no pragma, no `_cf_` table.
 */
export const READ_OBJECTS =
  "SELECT type, name, tbl_name AS 'table', sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '\\_cf\\_%' ESCAPE '\\' ORDER BY rowid";

/** The rows of READ_OBJECTS. */
export const toObjects = (rows: unknown): StoredObject[] => z.array(StoredObject).parse(rows);
