// Reads events of archived slices back from their files.
import { createHash } from "node:crypto";
import { bind } from "../aggregate/sql/bind.ts";
import type { Order } from "../aggregate/sql/events.ts";
import { type KeyNames, namesOfKeys } from "../catalog/api-keys.ts";
import { err, ok, type Result } from "../domain/result.ts";
import type { TimeRange } from "../domain/window.ts";
import type { Env } from "../env.ts";
import { type Counted, decodeCounted, decodeWanted, type Wanted } from "./file.ts";
import { type ArchiveFile, type FileRow, filesHolding, filesOfLate, toFile } from "./manifest.ts";
import type { Row } from "./rows.ts";

/** A file, and what is wanted of it. */
export type WantedFile = { readonly file: ArchiveFile; readonly wanted: Wanted };

/** What is looked for in the archived slices of a database. */
export type Search = {
  readonly slices: readonly number[];
  /** SQL that selects `series`, and what its `values` are. */
  readonly series: string;
  readonly values: Readonly<Record<string, unknown>>;
  readonly range: TimeRange;
  readonly order: Order;
  /** Files. */
  readonly limit: number;
};

/** The series that a search wants, as it selects them, and the files that may have rows of them. */
export type FoundFiles<Series> = { readonly series: readonly Series[]; readonly files: readonly WantedFile[] };

/** The files of archived slices that may have rows of some series in a range, in the order of their timestamps. */
export async function findFiles<Series extends { readonly series: number }>(
  db: D1Database,
  { slices, series, values, range: { start, end }, order, limit }: Search,
): Promise<FoundFiles<Series>> {
  const bound = { ...values, from: start, to: end, slices: JSON.stringify(slices), limit };
  const [wanted, named] = await db.batch<FileRow & Series>([
    bind(db, series, bound),
    bind(db, filesHolding(series, order), bound),
  ]);
  const found: readonly Series[] = wanted?.results ?? [];
  const ids = found.map((each) => each.series);
  const files = named?.results.map(toFile) ?? [];
  return { series: found, files: files.map((file) => ({ file, wanted: { series: ids, start, end } })) };
}

/** Which late events are looked for in the archived slices of a database. Times in ms. */
export type LateSearch = Omit<Search, "series" | "values"> & {
  readonly meter: string;
  /** All customers', without one. */
  readonly customer: string | undefined;
  /** The least time from timestamp to receipt: LATE_MS or more. */
  readonly delay: number;
  /** When they were received. */
  readonly received: TimeRange;
};

/** The files of archived slices that may have late events of a meter, in the order of receipt. */
export async function findLateFiles(db: D1Database, search: LateSearch): Promise<WantedFile[]> {
  const { slices, meter, customer, delay, range, received, order, limit } = search;
  const { results } = await bind(db, filesOfLate(order), {
    ...{ slices: JSON.stringify(slices), meter, customer: customer ?? null, delay, limit },
    ...{ from: range.start, to: range.end, received_from: received.start, received_to: received.end },
  }).all<FileRow>();
  return results.map((row) => ({ file: toFile(row), wanted: { meter, delay, ...range } }));
}

/** How many files a request has in memory at most, and how many rows in them: a large file is read alone. */
const FILES_AT_ONCE = 4;
const ROWS_AT_ONCE = 50_000;

/** The first of some files that are read together. */
export function readTogether<F extends WantedFile>(files: readonly F[]): F[] {
  let rows = 0;
  return files.slice(0, FILES_AT_ONCE).filter(({ file }, i) => {
    rows += file.rows;
    return i === 0 || rows <= ROWS_AT_ONCE;
  });
}

/** The archive as one request reads it. */
export class ArchiveReader {
  readonly #env: Env;
  #keys: Promise<KeyNames> | undefined;

  constructor(env: Env) {
    this.#env = env;
  }

  /**
   * Hands on the wanted rows of a file, a row group at a time, so that no more of them are in memory than are kept. Yields
   * a file whose object is gone. Throws when R2 does not respond, or an object is not the one that was checked: fewer
   * rows would be a wrong sum.
   */
  async readRows(file: WantedFile, take: (rows: readonly Row[]) => void): Promise<Result<undefined, ArchiveFile>> {
    this.#keys ??= namesOfKeys(this.#env.DB);
    const keys = await this.#keys;
    return this.#readOne(file, (bytes, wanted) => decodeWanted(bytes, keys, wanted), take);
  }

  /** Hands on what counts of files, a few files at a time, as `readRows` does for one. */
  async readCounted<F extends WantedFile>(
    files: readonly F[],
    take: (events: readonly Counted[], file: F) => void,
  ): Promise<Result<undefined, ArchiveFile>> {
    for (let read = 0; read < files.length; ) {
      const some = readTogether(files.slice(read));
      const found = await Promise.all(
        some.map((each) => this.#readOne(each, decodeCounted, (events) => take(events, each))),
      );
      const gone = found.find(({ ok }) => !ok);
      if (gone !== undefined) return gone;
      read += some.length;
    }
    return ok(undefined);
  }

  async #readOne<T>(
    { file, wanted }: WantedFile,
    decode: (bytes: ArrayBuffer, wanted: Wanted) => AsyncIterable<T[]>,
    take: (found: readonly T[]) => void,
  ): Promise<Result<undefined, ArchiveFile>> {
    const { ARCHIVE } = this.#env;
    if (ARCHIVE === undefined) throw new Error("events are in the archive, but no bucket is bound as ARCHIVE");
    const object = await ARCHIVE.get(file.key);
    if (object === null) return err(file);
    const bytes = await object.arrayBuffer();
    if (createHash("sha256").update(new Uint8Array(bytes)).digest("hex") !== file.sha256) {
      throw new Error(`${file.key} in the archive is not the file that was written`);
    }
    const within = wantedOf(file, wanted);
    if (within !== undefined) for await (const found of decode(bytes, within)) take(found);
    return ok(undefined);
  }
}

/** What is wanted of a file, without series that it cannot have; nothing when it can have none. */
function wantedOf({ first, last }: ArchiveFile, wanted: Wanted): Wanted | undefined {
  if ("meter" in wanted) return wanted;
  const series = wanted.series.filter((id) => id >= first.series && id <= last.series);
  return series.length > 0 ? { ...wanted, series } : undefined;
}
