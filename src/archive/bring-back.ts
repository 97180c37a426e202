// Brings the table of an archived slice back from its files.
import { forDatabase, withJsonEach } from "../aggregate/json-each.ts";
import { INSERT_SERIES } from "../aggregate/sql/entries.ts";
import { cancelEvents, insertEvents, tableOf } from "../aggregate/sql/events.ts";
import { definitionsOf, stateOf } from "../aggregate/sql/slices.ts";
import { err, ok, type Result } from "../domain/result.ts";
import { portionsOf } from "./entries.ts";
import { filesOf } from "./manifest.ts";
import { readBack, readRowsToStore } from "./objects.ts";
import type { RestoredFile } from "./restore-day.ts";
import type { ArchiveWork } from "./work.ts";

/**
 * The table under its name until it is whole: until then the slice stays archived, and what is sent again for it is
 * still a repetition, which must not be counted.
 */
const tableUntilWhole = (slice: number): string => `restored_${Number(slice)}`;

/** Breaks the transaction that it is in unless a slice (?1) is archived: no state is NULL. */
const UNLESS_ARCHIVED = "UPDATE slices SET state = NULL WHERE slice = ?1 AND state <> 'archived'";

/**
 * Breaks the transaction that it is in unless the table has what the manifest says of a slice (?1): two who bring it
 * back at once empty each other's table.
 */
const unlessWhole = (slice: number): string => `
  UPDATE slices SET state = NULL
  WHERE slice = ?1 AND (SELECT COUNT(*) FROM ${tableUntilWhole(slice)})
    IS NOT (SELECT SUM(rows) FROM archive_files WHERE slice = ?1)`;

const UNFINISHED = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB 'restored_[0-9]*'";

/** The statements that drop every table that is not whole: who brings it back begins again. */
export async function dropUnfinished(db: D1Database): Promise<D1PreparedStatement[]> {
  const { results } = await db.prepare(UNFINISHED).all<{ name: string }>();
  return results.map(({ name }) => db.prepare(`DROP TABLE IF EXISTS ${name}`));
}

/** What was brought back, and the place of the file that is next; nothing when all of the slice is. */
type BroughtBack = { readonly file: RestoredFile | undefined; readonly next: number | undefined };

/** The files are compared with the table once more before it may be dropped again. */
const BROUGHT_BACK = `
  UPDATE slices SET state = 'exported', recounted = 0, failed = NULL, checked = NULL, kept_until = ?2 WHERE slice = ?1`;

const UNCHECKED = "UPDATE archive_files SET checked = NULL WHERE slice = ?1";

/**
 * Brings the next file of an archived slice back, from the first on: `file` is its place among them. After the last
 * one, all of the slice has its table again, in one transaction; sums are left alone, since they never lost it. It is
 * dropped again when it is due, but not before `keptUntil` (ms). When the table is gone, which an erasure dropped, the
 * first file is next. Yields a message when the slice is not archived, a file is not as its manifest says, or the
 * table is not whole in the end.
 */
export async function bringBackNext(
  work: ArchiveWork,
  slice: number,
  file: number,
  keptUntil: number,
): Promise<Result<BroughtBack, string>> {
  try {
    return await bringBack(work, slice, file, keptUntil);
  } catch (error) {
    const message = error instanceof Error ? error.message : "";
    if (message.includes(`no such table: ${tableUntilWhole(slice)}`)) return ok({ file: undefined, next: 0 });
    if (!message.includes("slices.state")) throw error;
    return err(`slice ${slice} of ${work.name} was changed meanwhile, or brought back twice at once: begin again`);
  }
}

async function bringBack(
  work: ArchiveWork,
  slice: number,
  file: number,
  keptUntil: number,
): Promise<Result<BroughtBack, string>> {
  const { db } = work;
  if ((await stateOf(db, slice)) !== "archived") return err(`slice ${slice} of ${work.name} is not archived`);
  const table = tableUntilWhole(slice);
  if (file === 0) {
    const definitions = await definitionsOf(db, table, tableOf(slice));
    await db.batch([db.prepare(`DROP TABLE IF EXISTS ${table}`), ...definitions]);
  }
  const files = await filesOf(db, slice);
  const next = files[file];
  if (file > files.length) return err(`slice ${slice} of ${work.name} has ${files.length} files`);
  if (next === undefined) {
    await db.batch([
      db.prepare(UNLESS_ARCHIVED).bind(slice),
      db.prepare(unlessWhole(slice)).bind(slice),
      db.prepare(`ALTER TABLE ${table} RENAME TO ${tableOf(slice)}`),
      db.prepare(UNCHECKED).bind(slice),
      db.prepare(BROUGHT_BACK).bind(slice, keptUntil),
    ]);
    return ok({ file: undefined, next: undefined });
  }
  const read = await readBack(work, next, readRowsToStore);
  if (!read.ok) return err(`${next.key}: ${read.error}`);
  const rows = read.value;
  for (const { kind, entries } of portionsOf(slice, rows, new Map())) {
    const sql = (kind === "events" ? insertEvents : cancelEvents)(slice, table);
    await withJsonEach(() =>
      db.batch([INSERT_SERIES, sql].map((text) => db.prepare(forDatabase(text)).bind(`[${entries}]`))),
    );
  }
  return ok({ file: { key: next.key, events: rows.length, restored: rows.length }, next: file + 1 });
}
