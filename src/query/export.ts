// All events of a meter, whoever's they are: what an operator takes elsewhere.
import type { Holding } from "../aggregate/sql/slices.ts";
import { type OfMeter, type Row, type RowKey, sizeOf } from "../archive/rows.ts";
import { DeletedEvents, type ScanPlace, scanFiles, scanTable } from "../archive/scan.ts";
import type { Segment } from "../archive/segments.ts";
import { eventsDatabases } from "../catalog/databases.ts";
import { currentPlacement } from "../catalog/deployment.ts";
import type { MeteringError } from "../domain/errors.ts";
import type { Meter } from "../domain/meter.ts";
import { err, ok, type Result } from "../domain/result.ts";
import { SECOND_MS, type TimeRange } from "../domain/window.ts";
import type { Env } from "../env.ts";
import { twiceIfDeleted, withSlices } from "./sources.ts";

/**
 * Where an export goes on: in a database of the mode, from a slice on, there after a row. An event never leaves its
 * slice, and the order of its rows is the same in its table and in the archive. So an event that was stored before
 * the export began is met exactly once, whatever is stored and archived meanwhile.
 */
export type ExportPlace = {
  readonly database: number;
  readonly slice: number;
  readonly within?: ScanPlace | undefined;
};

export const EXPORT_BEGINNING: ExportPlace = { database: 0, slice: 0 };

/** The most rows of a page. */
export const EXPORT_ROWS = 3_000;

/** What the rows of a page take about (bytes), without the names that JSON repeats. */
const PAGE_BYTES = 700_000;

/** What a page takes at most: parts of slices that are looked through, and time (ms). It may end without a row. */
const WORK = { parts: 200, ms: 8 * SECOND_MS } as const;

type ExportQuery = {
  readonly meter: Meter;
  readonly range: TimeRange;
  readonly from: ExportPlace;
  /** Rows. */
  readonly limit: number;
};

type ExportPage = {
  readonly rows: readonly Row[];
  /** Nothing after the last page. */
  readonly next: ExportPlace | undefined;
};

/**
 * A page of all events of a meter whose timestamps lie in a range, cancelled ones too. A page ends with its database
 * at the latest. Yields `archived_range_deleted` when some of them exist no more, and `databases_changed`. Throws
 * when a database or the archive does not answer.
 */
export async function readExportPage(env: Env, query: ExportQuery): Promise<Result<ExportPage, MeteringError>> {
  const { meter, from } = query;
  const placement = meter.livemode ? await currentPlacement(env) : ok(undefined);
  if (!placement.ok) return err({ reason: "databases_changed", recorded: placement.error });
  const databases = eventsDatabases(env, meter.livemode);
  const db = databases[from.database]?.db;
  if (db === undefined) return ok({ rows: [], next: undefined });
  const page = await twiceIfDeleted(() => pageOf(env, db, query));
  if (!page.ok || page.value.next !== undefined) return page;
  const database = from.database + 1;
  return ok({ ...page.value, next: database < databases.length ? { ...EXPORT_BEGINNING, database } : undefined });
}

/** A page of a database. Yields `archived_range_deleted`. */
async function pageOf(env: Env, db: D1Database, query: ExportQuery): Promise<Result<ExportPage, MeteringError>> {
  try {
    const { range, from } = query;
    const read = (holding: readonly Holding[]) =>
      readRows(
        env,
        db,
        query,
        holding.flatMap((each) => slicesFrom(from.slice, each)),
      );
    return ok(await withSlices(db, [range], read));
  } catch (error) {
    if (!(error instanceof DeletedEvents)) throw error;
    return err({ reason: "archived_range_deleted", instead: { of: "export", from: error.before } });
  }
}

/** A page of the rows of a database; `next` is nothing at its end. */
async function readRows(
  env: Env,
  db: D1Database,
  { meter, range, from, limit }: ExportQuery,
  slices: readonly AnySlice[],
): Promise<ExportPage> {
  const only: OfMeter = { meter: meter.id, timestamps: range };
  const until = Date.now() + WORK.ms;
  const rows: Row[] = [];
  let [bytes, parts] = [0, 0];
  const isSpent = (): boolean => ++parts >= WORK.parts || Date.now() >= until;
  const after = (slice: number, segment: Segment, { series, timestamp, id }: RowKey): ExportPlace => ({
    ...{ database: from.database, slice, within: { segment, after: { series, timestamp, id } } },
  });
  for (const { slice, isArchived } of slices) {
    const scan = { slice, only, from: slice === from.slice ? from.within : undefined };
    const stretches = isArchived ? scanFiles(env, db, scan) : scanTable(db, scan, limit - rows.length);
    for await (const { segment, rows: more, end } of stretches) {
      for (const row of more) {
        rows.push(row);
        bytes += sizeOf(row);
        if (rows.length >= limit || bytes >= PAGE_BYTES) return { rows, next: after(slice, segment, row) };
      }
      if (isSpent()) return { rows, next: after(slice, segment, end) };
    }
    if (isSpent()) return { rows, next: { database: from.database, slice: slice + 1 } };
  }
  return { rows, next: undefined };
}

type AnySlice = { readonly slice: number; readonly isArchived: boolean };

/** The slices that hold a range, from one on: those that have their tables, and those that have none any more. */
const slicesFrom = (first: number, { live, archived }: Holding): AnySlice[] =>
  [
    ...live.map(({ slice }) => ({ slice, isArchived: false })),
    ...(archived?.slices ?? []).map((slice) => ({ slice, isArchived: true })),
  ]
    .filter(({ slice }) => slice >= first)
    .sort((a, b) => a.slice - b.slice);
