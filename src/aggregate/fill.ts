// How full the events databases are, as far as this isolate has heard.
import type { Settings } from "../env.ts";
import { logError } from "../logger.ts";
import { countDeadLetters } from "./dead-letters.ts";
import { liveSlices } from "./sql/slices.ts";

/** How long a database that is full is believed to be (ms), before it is asked again. */
const FULL_MS = 10_000;

type Fill = { bytes: number; askedAt: number };

const fills = new Map<string, Fill>();

/** Notes the size (bytes) that a database had after a transaction. */
export function noteSize(name: string, bytes: number): void {
  if (bytes > 0) fills.set(name, { bytes, askedAt: Date.now() });
}

/**
 * Whether a database is past DATABASE_HIGH_WATER_MB: then nothing is written to it, and its shares wait in their
 * logs, since a database that is full to the last page could not even say so in an orderly way.
 */
export async function isFull(db: D1Database, name: string, settings: Settings): Promise<boolean> {
  const highWater = settings.DATABASE_HIGH_WATER_MB * 1_000_000;
  const known = fills.get(name);
  if (known === undefined || known.bytes <= highWater) return false;
  if (Date.now() - known.askedAt >= FULL_MS) noteSize(name, await sizeOf(db));
  const isStill = (fills.get(name)?.bytes ?? 0) > highWater;
  if (isStill) logError("a database is full: its entries wait in the logs", "database_full", { database: name });
  return isStill;
}

/** A database's size (bytes). */
export const sizeOf = async (db: D1Database): Promise<number> =>
  (await db.prepare("SELECT 1").run()).meta.size_after ?? 0;

/** What a database has: bytes, dead letters that wait, and its live slices, by their first hours. */
export type DatabaseStatus = {
  readonly bytes: number;
  readonly deadLetters: number;
  readonly slices: readonly number[];
};

export async function statusOfDatabase(db: D1Database): Promise<DatabaseStatus> {
  const [bytes, deadLetters, slices] = await Promise.all([sizeOf(db), countDeadLetters(db), liveSlices(db)]);
  return { bytes, deadLetters, slices: slices.map(({ slice }) => slice) };
}
