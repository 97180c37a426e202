import { READ_OBJECTS, type StoredObject, toObjects } from "../schema/objects.ts";
import type { Step } from "../schema/steps.ts";
import type { Cloudflare } from "./cloudflare.ts";
import { type Database, query } from "./database.ts";

/** What a database is made of. */
export async function objectsOf(cloudflare: Cloudflare, database: Database): Promise<StoredObject[]> {
  const [rows = []] = await query(cloudflare, database, READ_OBJECTS);
  return toObjects(rows);
}

/** Brings a database forward, in one transaction. */
export async function applySteps(cloudflare: Cloudflare, database: Database, steps: readonly Step[]): Promise<void> {
  await query(cloudflare, database, steps.map(({ sql }) => `${sql};\n`).join(""));
}
