import { isLiveMeter } from "../domain/meter.ts";
import { type Cursor, isBackwards, type Page, pageOf } from "../domain/page.ts";
import type { Group, GroupKind } from "../log/groups.ts";
import { applyStatements } from "./apply.ts";
import { onJsonEach } from "./json-each.ts";

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

const PARK = `
  INSERT INTO dead_letters (id, livemode, kind, entry, reason, parked)
  VALUES (?1, ?2, ?3, ?4, ?5, ?6)
  ON CONFLICT DO NOTHING`;

const FIND = "SELECT id, kind, entry, reason, parked FROM dead_letters WHERE id = ?1 AND livemode = ?2";

// An entry that is no JSON has no id.
const OF_ENTRY = `
  SELECT id, kind, entry, reason, parked FROM dead_letters
  WHERE id >= ?1 AND id < ?1 || '~' AND CASE WHEN json_valid(entry) THEN entry ->> 'id' END = ?2`;

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

const COUNT = "SELECT livemode, COUNT(*) AS count FROM dead_letters GROUP BY livemode";

const REMOVE = "DELETE FROM dead_letters WHERE id = ?1";

/** What the ids of a group's dead letters begin with; the entry's place in the group follows. */
export const deadLetterPrefix = ({ shard, id }: Pick<Group, "shard" | "id">): string => `dl_${id}_${shard}_`;

/** The ids of a group's dead letters. */
export async function parkedOf(db: D1Database, group: Pick<Group, "shard" | "id">): Promise<ReadonlySet<string>> {
  const { results } = await db.prepare(PARKED).bind(deadLetterPrefix(group)).all<{ id: string }>();
  return new Set(results.map(({ id }) => id));
}

/** The dead letter of an entry, by its group and its own id; nothing when it is not parked. */
export async function deadLetterOf(
  db: D1Database,
  group: Pick<Group, "shard" | "id">,
  entryId: string,
): Promise<DeadLetter | undefined> {
  const letter = await db.prepare(OF_ENTRY).bind(deadLetterPrefix(group), entryId).first<DeadLetter>();
  return letter ?? undefined;
}

/** The statement that keeps an entry; once, however often it is parked. */
export const parkStatement = (db: D1Database, { id, kind, entry, reason, parked }: DeadLetter): D1PreparedStatement =>
  db.prepare(PARK).bind(id, livemodeOf(entry) ? 1 : 0, kind, entry, reason, parked);

/** A page of a mode's dead letters. */
export async function listDeadLetters(
  db: D1Database,
  livemode: boolean,
  cursor: Cursor | undefined,
  limit: number,
): Promise<Page<DeadLetter>> {
  const { results } = await db
    .prepare(isBackwards(cursor) ? LIST_AFTER : LIST_BEFORE)
    .bind(livemode ? 1 : 0, cursor?.id ?? null, limit + 1)
    .all<DeadLetter>();
  return pageOf(results, cursor, limit);
}

/** How many there are, by mode. */
export async function countDeadLetters(db: D1Database): Promise<{ live: number; test: number }> {
  const { results } = await db.prepare(COUNT).all<{ livemode: number; count: number }>();
  const countOf = (livemode: number): number => results.find((row) => row.livemode === livemode)?.count ?? 0;
  return { live: countOf(1), test: countOf(0) };
}

/** A mode's dead letter; nothing when there is none of that id. */
export async function findDeadLetter(db: D1Database, livemode: boolean, id: string): Promise<DeadLetter | undefined> {
  const letter = await db
    .prepare(FIND)
    .bind(id, livemode ? 1 : 0)
    .first<DeadLetter>();
  return letter ?? undefined;
}

/**
 * Statements that store a dead letter's entry after all and remove it, for one transaction. It fails when
 * D1 refuses the entry still; then the letter stays. `now` in ms.
 */
export const redriveStatements = (db: D1Database, letter: DeadLetter, now: number): D1PreparedStatement[] => [
  // For one entry it does not matter which is faster, and every database has this one.
  ...applyStatements(db, [{ kind: letter.kind, entries: letter.entry }], now, onJsonEach),
  db.prepare(REMOVE).bind(letter.id),
];

/** The mode of an entry; live when it cannot be told, so that only a live key sees it. */
function livemodeOf(entry: string): boolean {
  try {
    const { livemode, meter }: Record<string, unknown> = JSON.parse(entry);
    return livemode !== false && !(typeof meter === "string" && !isLiveMeter(meter));
  } catch {
    return true;
  }
}
