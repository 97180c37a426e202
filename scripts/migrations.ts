// The numbered migrations of src/migrations, applied and recorded as `wrangler d1 migrations apply` does. That takes a
// process for each database; this takes one call for each migration.
import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { type RunSql, sqlText } from "./sql.ts";
import { root } from "./wrangler.ts";

/** A step of a database's schema. */
export type Migration = {
  /** What it is recorded as: its file's name. */
  readonly name: string;
  /** Its file, below src/migrations. */
  readonly file: string;
  readonly sql: string;
};

/** The binding of the control database. Every other one is an events database. */
export const CONTROL = "DB";

/** All migrations of a database, in order. */
export async function migrationsOf(binding: string): Promise<Migration[]> {
  const folder = binding === CONTROL ? "control" : "events";
  const from = path.join(root, "src/migrations", folder);
  const names = (await readdir(from)).filter((name) => name.endsWith(".sql")).sort();
  return Promise.all(
    names.map(async (name) => ({
      ...{ name, file: `${folder}/${name}` },
      sql: await readFile(path.join(from, name), "utf8"),
    })),
  );
}

/** wrangler's own. */
const CREATE_RECORD = `CREATE TABLE IF NOT EXISTS d1_migrations (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT UNIQUE,
  applied_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP NOT NULL
)`;

/** The names of the migrations that a database has, also of those that only newer code knows. */
export async function appliedTo(run: RunSql): Promise<string[]> {
  try {
    const [rows = []] = await run("SELECT name FROM d1_migrations ORDER BY id");
    return rows.map(({ name }) => String(name));
  } catch (error) {
    if (error instanceof Error && error.message.includes("no such table: d1_migrations")) return [];
    throw error;
  }
}

/** Applies a migration and records it, in one transaction. */
export const applyMigration = (run: RunSql, { name, sql }: Migration): Promise<unknown> =>
  run(`${CREATE_RECORD};\n${sql.trim()}\nINSERT INTO d1_migrations (name) VALUES (${sqlText(name)});`);

/** Applies the migrations that a database lacks. */
export async function migrate(run: RunSql, migrations: readonly Migration[]): Promise<void> {
  const applied = await appliedTo(run);
  for (const migration of migrations) {
    if (!applied.includes(migration.name)) await applyMigration(run, migration);
  }
}
