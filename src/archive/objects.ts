// The archive's objects as R2 has them, whatever the manifest says.
import { createHash } from "node:crypto";
import { registerKeys } from "../catalog/api-keys.ts";
import { TIMESTAMP_AHEAD_MS, TIMESTAMP_PAST_MS } from "../domain/limits.ts";
import { err, ok, type Result } from "../domain/result.ts";
import { DAY_MS, receiptOf } from "../domain/window.ts";
import { decodeFile } from "./file.ts";
import { type ArchiveFile, describeRows, isSameTotal, prefixOf } from "./manifest.ts";
import type { Row } from "./rows.ts";
import { dayOf } from "./segments.ts";
import type { ArchiveWork } from "./work.ts";

/** SHA-256 of an object, in hex. */
export const sha256Of = (bytes: ArrayBuffer | Uint8Array): string =>
  createHash("sha256")
    .update(bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes))
    .digest("hex");

/** The rows of a file that is as its manifest says; else what is wrong with it. */
export async function readBack(
  work: ArchiveWork,
  file: ArchiveFile,
  read: typeof readRows = readRows,
): Promise<Result<Row[], string>> {
  const object = await work.bucket.get(file.key);
  if (object === null) return err("it is not there");
  const bytes = await object.arrayBuffer();
  if (sha256Of(bytes) !== file.sha256) return err("its bytes are others");
  const rows = await read(work, bytes);
  if (rows === undefined) return err("it cannot be read");
  const described = describeRows(rows);
  const isDescribed = isSameTotal(described, file) && described.checksum === file.checksum;
  return isDescribed ? ok(rows) : err("it is not what the manifest says");
}

/** The rows of an object; nothing when it is no file of an archive, or damaged. */
export const readRows = async ({ keys }: ArchiveWork, bytes: ArrayBuffer): Promise<Row[] | undefined> =>
  decode(bytes, await keys());

/**
 * The same, for a database. API keys that the control database does not know get numbers, as keys that are revoked, so
 * that their events keep naming them.
 */
export async function readRowsToStore(
  { env, livemode, keys }: ArchiveWork,
  bytes: ArrayBuffer,
): Promise<Row[] | undefined> {
  const { numbers } = await keys();
  const unknown = new Set<string>();
  const numberOf = (name: string): number | undefined => {
    // A key without a name is written as its number.
    if (!numbers.has(name) && !/^\d+$/.test(name)) unknown.add(name);
    return numbers.get(name);
  };
  const rows = await decode(bytes, { numbers: { get: numberOf } });
  if (unknown.size === 0) return rows;
  return decode(bytes, await registerKeys(env.DB, [...unknown], livemode, Date.now()));
}

const decode = (bytes: ArrayBuffer, keys: Parameters<typeof decodeFile>[1]): Promise<Row[] | undefined> =>
  decodeFile(bytes, keys).catch(() => undefined);

/** The keys of all objects of a slice. */
export async function objectsOf({ bucket, place }: ArchiveWork, slice: number): Promise<string[]> {
  const { start, end } = receiptOf(slice);
  const days = { first: dayOf(start - TIMESTAMP_PAST_MS - DAY_MS), last: dayOf(end + TIMESTAMP_AHEAD_MS) };
  const listed = await Promise.all(
    Array.from({ length: days.last - days.first + 1 }, (_, i) =>
      keysOf(bucket, prefixOf(place, slice, days.first + i)),
    ),
  );
  return listed.flat();
}

/** The keys of all objects that begin so. */
export async function keysOf(bucket: R2Bucket, prefix: string): Promise<string[]> {
  const keys: string[] = [];
  let cursor: string | undefined;
  do {
    const page = await bucket.list({ prefix, ...(cursor !== undefined && { cursor }) });
    keys.push(...page.objects.map(({ key }) => key));
    cursor = page.truncated ? page.cursor : undefined;
  } while (cursor !== undefined);
  return keys;
}
