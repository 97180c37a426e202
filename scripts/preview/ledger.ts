import { z } from "zod";
import { CommandError } from "../command-error.ts";
import type { Cloudflare } from "../deploy/cloudflare.ts";
import { type Database, objectsOf, query } from "../deploy/database.ts";
import { sqlText } from "../keys/database.ts";

// A preview's database says whose it is, and what else was made for it: queues can carry no mark of
// their own. It is the first thing that is made and the last that is deleted, so whatever fails in
// between is finished by the next run.

const TABLE = "preview_resources";

const CREATE = `CREATE TABLE IF NOT EXISTS ${TABLE} (kind TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (kind, name)) WITHOUT ROWID`;

const Rows = z.array(z.object({ kind: z.string(), name: z.string() }));

/** What was made for a preview, or was about to be. */
export type Ledger = { readonly queues: readonly string[] };

/**
 * What a database says of a branch's preview; `undefined` when it is still empty, as it is after a
 * run that failed right after making it. Throws a CommandError when it is anybody else's.
 */
export async function readLedger(
  cloudflare: Cloudflare,
  database: Database,
  branch: string,
): Promise<Ledger | undefined> {
  const objects = await objectsOf(cloudflare, database);
  if (objects.length === 0) return undefined;
  const isMarked = objects.some(({ type, name }) => type === "table" && name === TABLE);
  const [rows = []] = isMarked ? await query(cloudflare, database, `SELECT kind, name FROM ${TABLE}`) : [];
  const noted = Rows.parse(rows);
  if (noted.length === 0 && isMarked && objects.length === 1) return undefined;
  if (!noted.some(({ kind, name }) => kind === "branch" && name === branch)) {
    throw new CommandError(`the database ${database.name} is no preview of '${branch}': it is left alone.`);
  }
  return { queues: noted.flatMap(({ kind, name }) => (kind === "queue" ? [name] : [])) };
}

/** Notes whose a database is, and the queues that are about to be made. */
export async function writeLedger(
  cloudflare: Cloudflare,
  database: Database,
  branch: string,
  queues: readonly string[],
): Promise<void> {
  const rows = [["branch", branch] as const, ...queues.map((name) => ["queue", name] as const)];
  const values = rows.map(([kind, name]) => `(${sqlText(kind)}, ${sqlText(name)})`).join(", ");
  await query(
    cloudflare,
    database,
    `${CREATE};\nINSERT INTO ${TABLE} (kind, name) VALUES ${values} ON CONFLICT DO NOTHING;`,
  );
}
