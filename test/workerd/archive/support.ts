import { env } from "cloudflare:workers";
import { applyEntries } from "../../../src/aggregate/apply.ts";
import { tableOf } from "../../../src/aggregate/sql/events.ts";
import { archiveDatabase, archivedDatabases } from "../../../src/archive/archive.ts";
import { decodeFile } from "../../../src/archive/file.ts";
import { filesOf } from "../../../src/archive/manifest.ts";
import type { Row } from "../../../src/archive/rows.ts";
import { namesOfKeys } from "../../../src/catalog/api-keys.ts";
import type { LogEntry } from "../../../src/log/codec.ts";
import { cancellationLines, eventLines, toEntries } from "../../support/shares.ts";
import type { StoredRow } from "../support.ts";

/** Every step that there is to do. */
const ALL = { steps: 1_000, until: Number.POSITIVE_INFINITY };

/** Stores entries as the aggregator does. */
export const store = (db: D1Database, events: readonly LogEntry[]): Promise<number> =>
  applyEntries(db, toEntries("events", eventLines(events)), Date.now());

export const cancel = (db: D1Database, events: readonly LogEntry[]): Promise<number> =>
  applyEntries(db, toEntries("cancellations", cancellationLines(events)), Date.now());

/** Does all that is to be done for the archive of a database. */
export async function archive(name = "EVENTS_0", limit = ALL): Promise<boolean> {
  const known = archivedDatabases(env).find(({ database }) => database.name === name);
  if (known === undefined) throw new Error(`there is no database ${name}`);
  return archiveDatabase(env, known, limit);
}

/** A database without slices, series and sums, and an archive without objects. */
export async function empty(db: D1Database): Promise<void> {
  await loseDatabase(db);
  const { objects } = await env.ARCHIVE.list();
  await env.ARCHIVE.delete(objects.map(({ key }) => key));
}

/** A database as it is when it was lost and made anew. */
export async function loseDatabase(db: D1Database): Promise<void> {
  const { results } = await db
    .prepare(
      "SELECT name FROM sqlite_schema WHERE type = 'table' AND (name GLOB 'events_[0-9]*' OR name GLOB 'restored_[0-9]*')",
    )
    .all<{ name: string }>();
  const tables = [
    ...[
      "slices",
      "archive_files",
      "archive_totals",
      "leases",
      "series",
      "sums",
      "survivors",
      "dead_letters",
      "erasures",
    ],
  ];
  await db.batch([
    ...results.map(({ name }) => db.prepare(`DROP TABLE ${name}`)),
    ...tables.map((table) => db.prepare(`DELETE FROM ${table}`)),
  ]);
}

export const statesOf = async (db: D1Database): Promise<{ slice: number; state: string }[]> =>
  (await db.prepare("SELECT slice, state FROM slices ORDER BY slice").all<{ slice: number; state: string }>()).results;

/** The rows of an object in R2. */
export async function rowsOfObject(key: string): Promise<Row[]> {
  const object = await env.ARCHIVE.get(key);
  if (object === null) throw new Error(`there is no object ${key}`);
  return decodeFile(await object.arrayBuffer(), await namesOfKeys(env.DB));
}

/** The rows that the manifest's files of a slice have, as a reader of R2 finds them. */
export async function archivedRows(db: D1Database, slice: number): Promise<Row[]> {
  const files = await filesOf(db, slice);
  return (await Promise.all(files.map(({ key }) => rowsOfObject(key)))).flat();
}

/** A row of a file as its slice kept it. */
export const asStored = ({ series: _, dimensions, apiKey, cancelledBy, ...row }: Row): StoredRow => ({
  ...row,
  dimensions: dimensions ?? "",
  api_key: apiKey,
  cancelled_by: cancelledBy,
});

/** The keys of all objects. */
export async function objectKeys(): Promise<string[]> {
  const { objects } = await env.ARCHIVE.list();
  return objects.map(({ key }) => key);
}

export const hasTable = async (db: D1Database, slice: number): Promise<boolean> =>
  (await db.prepare("SELECT 1 FROM sqlite_schema WHERE name = ?").bind(tableOf(slice)).first()) !== null;
