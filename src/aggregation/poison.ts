// A group that D1 refuses for its data is taken apart, so that one bad entry holds up no good one.
import type { Group } from "../metering/groups.ts";
import { applyStatements, isAboutData } from "./apply-groups.ts";
import { type DeadLetter, deadLetterPrefix, parkStatement } from "./dead-letters.ts";

/** An entry and its place in its group, by which its dead letter is known again. */
type Placed = { readonly place: number; readonly entry: string };

/**
 * Stores what D1 takes of a group and parks what it refuses; gives what was parked. May be repeated
 * from the beginning at any time: what is stored or parked already changes nothing. Throws on any
 * failure that is not about the data, with a part of the group perhaps stored.
 */
export async function applyOrPark(db: D1Database, group: Group, now: number): Promise<DeadLetter[]> {
  const entries = entriesOf(group);
  if (entries !== undefined) return applyHalves(db, group, entries, now);
  // Nobody can tell where an entry ends.
  return [await park(db, group, { place: 0, entry: group.entries }, "malformed JSON", now)];
}

async function applyHalves(
  db: D1Database,
  group: Group,
  entries: readonly Placed[],
  now: number,
): Promise<DeadLetter[]> {
  try {
    await db.batch(
      applyStatements(db, [{ kind: group.kind, entries: entries.map(({ entry }) => entry).join(",") }], now),
    );
    return [];
  } catch (error) {
    if (!isAboutData(error)) throw error;
    const [first] = entries;
    if (first !== undefined && entries.length === 1) {
      return [await park(db, group, first, error instanceof Error ? error.message : String(error), now)];
    }
    const middle = Math.ceil(entries.length / 2);
    return [
      ...(await applyHalves(db, group, entries.slice(0, middle), now)),
      ...(await applyHalves(db, group, entries.slice(middle), now)),
    ];
  }
}

async function park(
  db: D1Database,
  group: Group,
  { place, entry }: Placed,
  reason: string,
  now: number,
): Promise<DeadLetter> {
  const letter = { id: deadLetterPrefix(group) + place, kind: group.kind, entry, reason, parked: now };
  await parkStatement(db, letter).run();
  return letter;
}

function entriesOf({ entries }: Group): Placed[] | undefined {
  try {
    const parsed: unknown[] = JSON.parse(`[${entries}]`);
    return parsed.map((entry, place) => ({ place, entry: JSON.stringify(entry) }));
  } catch {
    return undefined;
  }
}
