// A group that D1 refuses for its data is taken apart, so that one bad entry holds up no good one.
import type { Group } from "../log/groups.ts";
import { applyStatements, isAboutData } from "./apply.ts";
import { type DeadLetter, deadLetterPrefix, parkedOf, parkStatement } from "./dead-letters.ts";

/** An entry and its place in its group, by which its dead letter is known again. */
type Placed = { readonly place: number; readonly entry: string };

/** Letters that one transaction parks. */
const LETTERS_PER_BATCH = 50;

/** When D1 refuses every one of so many entries, it is not their data that is wrong. */
const TOO_MANY = 10;

/**
 * Stores what D1 takes of a group and parks what it refuses; gives what was parked. May be repeated
 * from the beginning at any time: what is stored or parked already changes nothing and is not tried
 * again. Throws on any failure that is not about the data, with a part of the group perhaps stored;
 * also when D1 refuses all of many entries, since then a schema does not fit this Worker.
 */
export async function applyOrPark(db: D1Database, group: Group, now: number): Promise<DeadLetter[]> {
  const entries = entriesOf(group);
  // A group that is no JSON cannot be cut into entries.
  if (entries === undefined) {
    const letter = letterOf(group, { place: 0, entry: group.entries }, "malformed JSON", now);
    await parkAll(db, [letter]);
    return [letter];
  }
  const before = await parkedOf(db, group);
  const rest = entries.filter(({ place }) => !before.has(deadLetterPrefix(group) + place));
  const parked: DeadLetter[] = [];
  let refused: DeadLetter[] = [];
  let someWereTaken = rest.length < TOO_MANY || before.size > 0;
  for await (const outcome of inHalves(db, group, rest, now)) {
    if (outcome === "taken") someWereTaken = true;
    else refused.push(outcome);
    if (someWereTaken && refused.length >= LETTERS_PER_BATCH) {
      await parkAll(db, refused);
      parked.push(...refused);
      refused = [];
    }
  }
  if (!someWereTaken) throw new Error(`D1 refuses each of ${rest.length} entries: ${refused[0]?.reason}`);
  await parkAll(db, refused);
  return [...parked, ...refused];
}

/** Tries entries together, and those that are refused in ever smaller parts. */
async function* inHalves(
  db: D1Database,
  group: Group,
  entries: readonly Placed[],
  now: number,
): AsyncGenerator<DeadLetter | "taken"> {
  const [first] = entries;
  if (first === undefined) return;
  try {
    await db.batch(
      applyStatements(db, [{ kind: group.kind, entries: entries.map(({ entry }) => entry).join(",") }], now),
    );
    yield "taken";
  } catch (error) {
    if (!isAboutData(error)) throw error;
    if (entries.length === 1) {
      yield letterOf(group, first, error.message, now);
      return;
    }
    const middle = Math.ceil(entries.length / 2);
    yield* inHalves(db, group, entries.slice(0, middle), now);
    yield* inHalves(db, group, entries.slice(middle), now);
  }
}

const letterOf = (group: Group, { place, entry }: Placed, reason: string, now: number): DeadLetter => ({
  id: deadLetterPrefix(group) + place,
  kind: group.kind,
  entry,
  reason,
  parked: now,
});

async function parkAll(db: D1Database, letters: readonly DeadLetter[]): Promise<void> {
  if (letters.length > 0) await db.batch(letters.map((letter) => parkStatement(db, letter)));
}

function entriesOf({ entries }: Group): Placed[] | undefined {
  try {
    const parsed: unknown[] = JSON.parse(`[${entries}]`);
    return parsed.map((entry, place) => ({ place, entry: JSON.stringify(entry) }));
  } catch {
    return undefined;
  }
}
