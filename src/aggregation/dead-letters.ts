import type { Group, GroupKind } from "../metering/groups.ts";
import { isLiveMeter } from "../metering/meters.ts";
import { err, ok, type Result } from "../metering/result.ts";
import { applyStatements, isAboutData } from "./apply-groups.ts";

/** An entry of the log that D1 refused for its data, kept until it is redriven. */
export type DeadLetter = {
  /** Of the entry's group, shard and place there: sorts by receipt, and parking it again changes nothing. */
  readonly id: string;
  readonly kind: GroupKind;
  /** As the log carried it: JSON, or what should have been. */
  readonly entry: string;
  readonly reason: string;
  /** When it was parked (ms). */
  readonly parked: number;
};

/** Where a page of dead letters begins or ends: next to one that is not on it. */
type DeadLetterCursor = { readonly id: string; readonly param: "starting_after" | "ending_before" };

const PARK = `
  INSERT INTO dead_letters (id, livemode, kind, entry, reason, parked)
  VALUES (?1, ?2, ?3, ?4, ?5, ?6)
  ON CONFLICT DO NOTHING`;

const FIND = "SELECT id, kind, entry, reason, parked FROM dead_letters WHERE id = ?1 AND livemode = ?2";

const PARKED = "SELECT id FROM dead_letters WHERE id >= ?1 AND id < ?1 || '~'";

// '~' sorts after every id.
const LIST_BEFORE = `
  SELECT id, kind, entry, reason, parked FROM dead_letters
  WHERE livemode = ?1 AND id < COALESCE(?2, '~')
  ORDER BY id DESC LIMIT ?3`;

const LIST_AFTER = `
  SELECT id, kind, entry, reason, parked FROM dead_letters
  WHERE livemode = ?1 AND id > ?2
  ORDER BY id LIMIT ?3`;

const COUNT = "SELECT COUNT(*) AS count FROM dead_letters";

const REMOVE = "DELETE FROM dead_letters WHERE id = ?1";

/** What the ids of a group's dead letters begin with; the entry's place in the group follows. */
export const deadLetterPrefix = ({ shard, id }: Pick<Group, "shard" | "id">): string => `dl_${id}_${shard}_`;

/** The ids of a group's dead letters. */
export async function parkedOf(db: D1Database, group: Pick<Group, "shard" | "id">): Promise<ReadonlySet<string>> {
  const { results } = await db.prepare(PARKED).bind(deadLetterPrefix(group)).all<{ id: string }>();
  return new Set(results.map(({ id }) => id));
}

/** The statement that keeps an entry; once, however often it is parked. */
export const parkStatement = (db: D1Database, { id, kind, entry, reason, parked }: DeadLetter): D1PreparedStatement =>
  db.prepare(PARK).bind(id, livemodeOf(entry) ? 1 : 0, kind, entry, reason, parked);

/** A page of a mode's dead letters, newest first, and whether more follow in the direction of paging. */
export async function listDeadLetters(
  db: D1Database,
  livemode: boolean,
  cursor: DeadLetterCursor | undefined,
  limit: number,
): Promise<{ letters: DeadLetter[]; hasMore: boolean }> {
  const backwards = cursor?.param === "ending_before";
  const { results } = await db
    .prepare(backwards ? LIST_AFTER : LIST_BEFORE)
    .bind(livemode ? 1 : 0, cursor?.id ?? null, limit + 1)
    .all<DeadLetter>();
  const page = results.slice(0, limit);
  return { letters: backwards ? page.reverse() : page, hasMore: results.length > limit };
}

/** How many there are, of both modes. */
export const countDeadLetters = async (db: D1Database): Promise<number> =>
  (await db.prepare(COUNT).first<number>("count")) ?? 0;

/**
 * Puts a mode's dead letter back on its way: its entry is stored and it is gone, in one transaction.
 * Yields `no_such_dead_letter`, or `still_refused` with D1's reason, when it stays.
 */
export async function redrive(
  db: D1Database,
  livemode: boolean,
  id: string,
  now: number,
): Promise<Result<DeadLetter, { reason: "no_such_dead_letter" } | { reason: "still_refused"; cause: string }>> {
  const letter = await db
    .prepare(FIND)
    .bind(id, livemode ? 1 : 0)
    .first<DeadLetter>();
  if (letter === null) return err({ reason: "no_such_dead_letter" });
  try {
    await db.batch([
      ...applyStatements(db, [{ kind: letter.kind, entries: letter.entry }], now),
      db.prepare(REMOVE).bind(id),
    ]);
    return ok(letter);
  } catch (error) {
    if (!isAboutData(error)) throw error;
    return err({ reason: "still_refused", cause: error instanceof Error ? error.message : String(error) });
  }
}

/** The mode of an entry; live when it cannot be told, so that only a live key sees it. */
function livemodeOf(entry: string): boolean {
  try {
    const { livemode, meter }: Record<string, unknown> = JSON.parse(entry);
    return livemode !== false && !(typeof meter === "string" && !isLiveMeter(meter));
  } catch {
    return true;
  }
}
