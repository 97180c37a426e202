// What an operator is told of an archive that does not keep up, once an hour for as long as it stands.
import { DAY_MS, HOUR_MS, receiptOf } from "../domain/window.ts";
import type { Env } from "../env.ts";
import { logError, logWarning } from "../logger.ts";
import type { ArchivedDatabase } from "./archive.ts";
import { needsRoom } from "./drop.ts";
import { hindranceBy, overAfter, shardsOfMode } from "./seal.ts";
import { type ArchiveStatus, statusOfArchive } from "./status.ts";

/** How old what is not exported may be, and how long a slice that is over may stay unsealed (ms). */
const LATE_MS = { export: 3 * DAY_MS, seal: DAY_MS } as const;

/** Logs what is wrong with a database's archive `now` (ms). */
export async function warnOfArchive(env: Env, known: ArchivedDatabase, now: number): Promise<void> {
  const { name, db } = known.database;
  const found = await statusOfArchive(db);
  if (needsRoom({ env }, found.databaseBytes) && found.droppable === 0) {
    logWarning("a database needs room and has nothing to drop", { database: name, bytes: found.databaseBytes });
  }
  if (known.livemode && env.ARCHIVE === undefined) return;
  for (const slice of found.failed) {
    logError("a slice is left alone: its files differ from it", "a check failed", { database: name, slice });
  }
  const { unarchived } = found;
  if (unarchived !== undefined && receiptOf(unarchived).start < now - LATE_MS.export) {
    const hours = Math.floor((now - receiptOf(unarchived).start) / HOUR_MS);
    logWarning("the archive lags by days", { database: name, slice: unarchived, hours });
  }
  await warnOfSealing(env, known, found, now);
}

async function warnOfSealing(
  env: Env,
  { livemode, place, database }: ArchivedDatabase,
  { oldestOpen }: ArchiveStatus,
  now: number,
): Promise<void> {
  if (oldestOpen === undefined || now < overAfter(oldestOpen.slice) + LATE_MS.seal) return;
  const { slice, awaitsLetter } = oldestOpen;
  const where = { database: database.name, slice };
  const hindrance = hindranceBy(await shardsOfMode(env, livemode), place, slice);
  if (hindrance !== undefined) logWarning("a slice cannot be sealed", { ...where, ...hindrance });
  else if (awaitsLetter) logWarning("a slice cannot be sealed", { ...where, reason: "dead_letters" });
}
