import { readFile } from "node:fs/promises";
import path from "node:path";
import { root } from "../wrangler.ts";
import { READ_OBJECTS, type StoredObject, toObjects } from "./objects.ts";

/** What a script makes. A database of SQLite itself says so, since nothing else reads SQL as well. */
export async function objectsOfScript(sql: string): Promise<StoredObject[]> {
  const { DatabaseSync } = await import("node:sqlite");
  const database = new DatabaseSync(":memory:");
  try {
    database.exec(sql);
    return toObjects(database.prepare(READ_OBJECTS).all());
  } finally {
    database.close();
  }
}

/** What schema.sql makes: what every database is to have. */
export const desiredObjects = async (): Promise<StoredObject[]> =>
  objectsOfScript(await readFile(path.join(root, "schema.sql"), "utf8"));
