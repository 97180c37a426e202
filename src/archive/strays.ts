// Strays: objects of a slice that its manifest does not name. A database that was restored to a time before the slice
// was exported has them, and may lack events that they hold.
import { forDatabase, withJsonEach } from "../aggregate/json-each.ts";
import { countStored } from "../aggregate/sql/events.ts";
import { portionsOf } from "./entries.ts";
import { filesOf } from "./manifest.ts";
import { objectsOf, readRows } from "./objects.ts";
import type { Row } from "./rows.ts";
import { inNamesOf } from "./series.ts";
import type { ArchiveWork } from "./work.ts";

/** How many rows of a file a slice's table lacks, or has as not cancelled although they are. */
export async function countLacking(db: D1Database, slice: number, rows: readonly Row[]): Promise<number> {
  const portions = portionsOf(slice, rows, new Map());
  let stored = 0;
  for (const { kind, entries } of portions) {
    const sql = countStored(slice, kind === "cancellations");
    const count = () => db.prepare(forDatabase(sql)).bind(`[${entries}]`).first<number>("stored");
    stored += (await withJsonEach(count)) ?? 0;
  }
  return rows.length - stored;
}

/**
 * Whether an object holds events that its slice's table lacks. What cannot be read holds none that could be stored.
 * Throws when R2 or D1 does not respond.
 */
export async function holdsMore(work: ArchiveWork, slice: number, key: string): Promise<boolean> {
  const object = await work.bucket.get(key);
  const rows = object === null ? undefined : await readRows(work, await object.arrayBuffer());
  if (rows === undefined) return false;
  return (await countLacking(work.db, slice, await inNamesOf(work.db, slice, rows))) > 0;
}

/** Objects that are looked at in one step. */
const CLEARED_AT_ONCE = 10;

/** What was done about objects: the one that was kept, and whether there are more. */
export type Cleared = { readonly deleted: number; readonly kept: string | undefined; readonly mayBeMore: boolean };

/**
 * Deletes some objects of a slice, up to one that holds events that the table lacks: strays, or also those that the
 * manifest names.
 */
export async function clearObjects(work: ArchiveWork, slice: number, which: "strays" | "all"): Promise<Cleared> {
  const objects = await objectsOf(work, slice);
  // Only then, so that what another archiver writes meanwhile stays.
  const named = which === "all" ? [] : await filesOf(work.db, slice);
  const keys = new Set(named.map(({ key }) => key));
  const strays = objects.filter((key) => !keys.has(key));
  const some = strays.slice(0, CLEARED_AT_ONCE);
  for (const [deleted, key] of some.entries()) {
    if (await holdsMore(work, slice, key)) return { deleted, kept: key, mayBeMore: true };
    await work.bucket.delete(key);
  }
  return { deleted: some.length, kept: undefined, mayBeMore: some.length < strays.length };
}
