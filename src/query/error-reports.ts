import {
  firstIdOf,
  REPORT_LIFETIME_MS,
  REPORT_WINDOW_MS,
  readableRange,
  readReportId,
} from "../aggregate/error-report.ts";
import { DELETE_REPORTS, LIST_REPORTS, LIST_REPORTS_OF_METER, READ_REPORTS } from "../aggregate/sql/error-reports.ts";
import { deleteInPortions } from "../catalog/queries.ts";
import { REJECTION_SAMPLES } from "../domain/limits.ts";
import { floorTo, type TimeRange } from "../domain/window.ts";

/** What a stream refused within a window of 10 seconds, of one meter or of none. */
export type ErrorReport = {
  readonly id: string;
  readonly livemode: boolean;
  /** ms */
  readonly created: number;
  /** null when there is no meter of the name that the events had. */
  readonly meter: string | null;
  /** When the events were received. */
  readonly window: TimeRange;
  /** Rejected events. */
  readonly errorCount: number;
  /** By code, in alphabetical order. */
  readonly errors: readonly ErrorsOfCode[];
};

export type ErrorsOfCode = {
  readonly code: string;
  /** Rejected events. */
  readonly errorCount: number;
  /** The first of them, at most REJECTION_SAMPLES. */
  readonly samples: readonly { readonly message: string; readonly identifier: string }[];
};

export type ReportQuery = {
  readonly livemode: boolean;
  /** Only reports that were created then. */
  readonly created: TimeRange;
  /** Only reports that sort before this id. */
  readonly before: string | undefined;
  /** Only reports of this meter. */
  readonly meter: string | undefined;
  /** Of events for a meter, and of events for none. */
  readonly kinds: { readonly meter: boolean; readonly noMeter: boolean };
  /** Reports. */
  readonly limit: number;
  /** ms */
  readonly now: number;
};

/**
 * A page of the reports that can be read, newest first, and whether more follow. A mode's databases each have a part:
 * the first what was refused, and each what it counts in totals alone.
 */
export async function listErrorReports(
  databases: readonly D1Database[],
  { livemode, created, before, meter, kinds, limit, now }: ReportQuery,
): Promise<{ reports: ErrorReport[]; hasMore: boolean }> {
  const readable = readableRange(now);
  // Within what is readable every bound has an id, which is what the index knows.
  const start = Math.max(created.start, readable.start);
  const end = Math.min(created.end, readable.end);
  if (start >= end) return { reports: [], hasMore: false };
  const last = firstIdOf(livemode, end);
  const range = [firstIdOf(livemode, start), before !== undefined && before < last ? before : last];
  const ofOne = meter !== undefined || !kinds.meter;
  if (!kinds.meter && (meter !== undefined || !kinds.noMeter)) return { reports: [], hasMore: false };
  const list = (db: D1Database): D1PreparedStatement =>
    ofOne
      ? db.prepare(LIST_REPORTS_OF_METER).bind(...range, meter ?? null, limit + 1)
      : db.prepare(LIST_REPORTS).bind(...range, kinds.noMeter ? 1 : 0, limit + 1);
  const found = await Promise.all(databases.map((db) => list(db).all<{ report: string }>()));
  const all = found.flatMap(({ results }) => results.map(({ report }) => report));
  const ids = [...new Set(all)].sort().reverse();
  return { reports: await readReports(databases, ids.slice(0, limit)), hasMore: ids.length > limit };
}

/** The report of an id; nothing when the mode has none that can be read. `now` in ms. */
export async function findErrorReport(
  databases: readonly D1Database[],
  livemode: boolean,
  id: string,
  now: number,
): Promise<ErrorReport | undefined> {
  const known = readReportId(id);
  const { start, end } = readableRange(now);
  if (known?.livemode !== livemode || known.created < start || known.created >= end) return undefined;
  return (await readReports(databases, [id]))[0];
}

/** Deletes a database's reports that cannot be read any more. `now` in ms. */
export async function deleteExpiredReports(db: D1Database, livemode: boolean, now: number): Promise<void> {
  const [from, to] = [firstIdOf(livemode, 0), firstIdOf(livemode, now - REPORT_LIFETIME_MS)];
  await deleteInPortions((rows) => db.prepare(DELETE_REPORTS).bind(from, to, rows));
}

type ReportRow = {
  report: string;
  meter: string | null;
  received: number;
  code: string;
  error_count: number;
  /** JSON: of each sample [message, identifier]. */
  samples: string;
};

/** Reports by their ids, in the order of these. */
async function readReports(databases: readonly D1Database[], ids: readonly string[]): Promise<ErrorReport[]> {
  if (ids.length === 0) return [];
  const found = await Promise.all(
    databases.map((db) => db.prepare(READ_REPORTS).bind(JSON.stringify(ids), REJECTION_SAMPLES).all<ReportRow>()),
  );
  const byReport = Map.groupBy(
    found.flatMap(({ results }, place) => results.map((row) => ({ ...row, place }))),
    (row) => row.report,
  );
  return ids.flatMap((id) => toReport(id, byReport.get(id) ?? []));
}

/** `place`: of the database that a row is from; each says how many it has. */
function toReport(id: string, rows: readonly (ReportRow & { readonly place: number })[]): ErrorReport[] {
  const [first] = rows;
  const known = readReportId(id);
  if (first === undefined || known === undefined) return [];
  const byCode = Map.groupBy(rows, (row) => row.code);
  const errors = [...byCode.keys()].sort().map((code) => {
    const ofCode = byCode.get(code) ?? [];
    const counts = new Map(ofCode.map(({ place, error_count }) => [place, error_count]));
    return {
      code,
      errorCount: [...counts.values()].reduce((sum, count) => sum + count, 0),
      samples: samplesOf(ofCode),
    };
  });
  const start = floorTo(first.received, REPORT_WINDOW_MS);
  return [
    {
      id,
      ...known,
      meter: first.meter,
      window: { start, end: start + REPORT_WINDOW_MS },
      errorCount: errors.reduce((sum, { errorCount }) => sum + errorCount, 0),
      errors,
    },
  ];
}

const samplesOf = (rows: readonly ReportRow[]): { message: string; identifier: string }[] =>
  rows
    .flatMap(({ samples }): [message: string, identifier: string][] => JSON.parse(samples))
    .slice(0, REJECTION_SAMPLES)
    .map(([message, identifier]) => ({ message, identifier }));
