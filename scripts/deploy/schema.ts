import { readFile } from "node:fs/promises";
import path from "node:path";
import { z } from "zod";
import { root } from "../wrangler.ts";
import type { Cloudflare } from "./cloudflare.ts";
import { type Database, query } from "./database.ts";

/** SQLite's and D1's own tables are nobody's. */
const OBJECTS =
  "SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '\\_cf\\_%' ESCAPE '\\'";

const Names = z.array(z.object({ type: z.string(), name: z.string() }));

const namesOf = (rows: unknown): string[] => Names.parse(rows).map(({ type, name }) => `${type} ${name}`);

const schema = (): Promise<string> => readFile(path.join(root, "schema.sql"), "utf8");

/** What tables and indexes a database has. */
export async function objectsOf(cloudflare: Cloudflare, database: Database): Promise<string[]> {
  const [rows = []] = await query(cloudflare, database, OBJECTS);
  return namesOf(rows);
}

/** What schema.sql makes. A database of SQLite itself says so, since nothing else reads SQL as well. */
export async function schemaObjects(): Promise<string[]> {
  const { DatabaseSync } = await import("node:sqlite");
  const database = new DatabaseSync(":memory:");
  try {
    database.exec(await schema());
    return namesOf(database.prepare(OBJECTS).all());
  } finally {
    database.close();
  }
}

/** Makes what is missing. schema.sql leaves alone what is there. */
export async function applySchema(cloudflare: Cloudflare, database: Database): Promise<void> {
  await query(cloudflare, database, await schema());
}
