// Reads events of archived slices back from their files.
import { createHash } from "node:crypto";
import { bind } from "../aggregate/sql/bind.ts";
import type { Order } from "../aggregate/sql/events.ts";
import { type KeyNames, namesOfKeys } from "../catalog/api-keys.ts";
import { err, ok, type Result } from "../domain/result.ts";
import type { TimeRange } from "../domain/window.ts";
import type { Env } from "../env.ts";
import { decodeFile, type Wanted } from "./file.ts";
import { type ArchiveFile, type FileRow, filesHolding, toFile } from "./manifest.ts";
import type { Row } from "./rows.ts";

/** A file, and what is wanted of it. */
export type WantedFile = { readonly file: ArchiveFile; readonly wanted: Wanted };

/** What is looked for in the archived slices of a database. */
export type Search = {
  readonly slices: readonly number[];
  /** SQL that selects `series` of a customer on a meter, who are its `key`. */
  readonly series: string;
  readonly key: { readonly meter: string; readonly customer: string };
  readonly range: TimeRange;
  readonly order: Order;
  /** Files. */
  readonly limit: number;
};

/** The series that a search wants, and the files that may have rows of them. */
export type FoundFiles = { readonly series: readonly number[]; readonly files: readonly WantedFile[] };

/** The files of archived slices that may have rows of some series in a range, in the order of their timestamps. */
export async function findFiles(
  db: D1Database,
  { slices, series, key, range: { start, end }, order, limit }: Search,
): Promise<FoundFiles> {
  const values = { ...key, from: start, to: end, slices: JSON.stringify(slices), limit };
  const [wanted, named] = await db.batch<FileRow & { series: number }>([
    bind(db, series, values),
    bind(db, filesHolding(series, order), values),
  ]);
  const ids = wanted?.results.map((row) => row.series) ?? [];
  const files = named?.results.map(toFile) ?? [];
  return { series: ids, files: files.map((file) => ({ file, wanted: { series: ids, start, end } })) };
}

/** How many files a request has in memory at most, each of some megabytes. */
export const FILES_AT_ONCE = 4;

/** The archive as one request reads it. */
export class ArchiveReader {
  readonly #env: Env;
  #keys: Promise<KeyNames> | undefined;

  constructor(env: Env) {
    this.#env = env;
  }

  /**
   * The wanted rows of files, a few files at a time. Yields a file whose object is gone. Throws when R2 does not respond,
   * or an object is not the one that was checked: fewer rows would be a wrong sum.
   */
  async read(files: readonly WantedFile[]): Promise<Result<Row[], ArchiveFile>> {
    const rows: Row[] = [];
    for (let i = 0; i < files.length; i += FILES_AT_ONCE) {
      const some = await Promise.all(files.slice(i, i + FILES_AT_ONCE).map((each) => this.#readOne(each)));
      for (const found of some) {
        if (!found.ok) return found;
        for (const row of found.value) rows.push(row);
      }
    }
    return ok(rows);
  }

  async #readOne({ file, wanted }: WantedFile): Promise<Result<Row[], ArchiveFile>> {
    const { ARCHIVE, DB } = this.#env;
    if (ARCHIVE === undefined) throw new Error("events are in the archive, but no bucket is bound as ARCHIVE");
    this.#keys ??= namesOfKeys(DB);
    const [object, keys] = await Promise.all([ARCHIVE.get(file.key), this.#keys]);
    if (object === null) return err(file);
    const bytes = await object.arrayBuffer();
    if (createHash("sha256").update(new Uint8Array(bytes)).digest("hex") !== file.sha256) {
      throw new Error(`${file.key} in the archive is not the file that was written`);
    }
    const series = wanted.series.filter((id) => id >= file.first.series && id <= file.last.series);
    return ok(series.length === 0 ? [] : await decodeFile(bytes, keys, { ...wanted, series }));
  }
}
