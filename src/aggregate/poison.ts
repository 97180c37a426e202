// A share that D1 refuses for its data is taken apart, so that one bad entry holds up no good one.
import { type Line, linesOf, type Share } from "../log/groups.ts";
import { applyEntries, isAboutData } from "./apply.ts";
import { type DeadLetter, deadLetterPrefix, parkedOf, parkStatement } from "./dead-letters.ts";

/** An entry, its line, and its place in its share, by which its dead letter is known again. */
type Placed = { readonly place: number; readonly entry: string; readonly line: Line };

/** Letters that one transaction parks. */
const LETTERS_PER_BATCH = 50;

/** When D1 refuses every one of so many entries, it is not their data that is wrong. */
const TOO_MANY = 10;

/**
 * Stores what D1 takes of a share and parks what it refuses; gives what was parked. May be repeated
 * from the beginning at any time: what is stored or parked already changes nothing and is not tried
 * again. Throws on any failure that is not about the data, with a part of the share perhaps stored;
 * also when D1 refuses all of many entries, since then a schema does not fit this Worker.
 */
export async function applyOrPark(db: D1Database, share: Share, now: number): Promise<DeadLetter[]> {
  const before = await parkedOf(db, share.shard, share);
  const entries = linesOf(share)
    .flatMap(entriesOf)
    .map((entry, place) => ({ ...entry, place }));
  const rest = entries.filter(({ place }) => !before.has(idOf(share, place)));
  const parked: DeadLetter[] = [];
  let refused: DeadLetter[] = [];
  let someWereTaken = rest.length < TOO_MANY || before.size > 0;
  try {
    for await (const outcome of inHalves(db, share, rest, now)) {
      if (outcome === "taken") someWereTaken = true;
      else refused.push(outcome);
      if (someWereTaken && refused.length >= LETTERS_PER_BATCH) {
        await parkAll(db, refused);
        parked.push(...refused);
        refused = [];
      }
    }
  } catch (error) {
    // What was found so far need not be found again.
    if (someWereTaken) await parkAll(db, refused);
    throw error;
  }
  if (!someWereTaken) throw new Error(`D1 refuses each of ${rest.length} entries: ${refused[0]?.reason}`);
  await parkAll(db, refused);
  return [...parked, ...refused];
}

/** Tries entries together, and those that are refused in ever smaller parts. */
async function* inHalves(
  db: D1Database,
  share: Share,
  entries: readonly Placed[],
  now: number,
): AsyncGenerator<DeadLetter | "taken"> {
  const [first] = entries;
  if (first === undefined) return;
  try {
    await applyEntries(
      db,
      entries.map(({ entry, line }) => ({ ...line, kind: share.kind, entries: entry })),
      now,
    );
    yield "taken";
  } catch (error) {
    if (!isAboutData(error)) throw error;
    if (entries.length === 1) {
      yield letterOf(share, first, error.message, now);
      return;
    }
    const middle = Math.ceil(entries.length / 2);
    yield* inHalves(db, share, entries.slice(0, middle), now);
    yield* inHalves(db, share, entries.slice(middle), now);
  }
}

const idOf = (share: Share, place: number): string => deadLetterPrefix(share.shard, share) + place;

const letterOf = (share: Share, { place, entry, line }: Placed, reason: string, now: number): DeadLetter => ({
  id: idOf(share, place),
  kind: share.kind,
  slice: line.slice,
  entry,
  reason,
  parked: now,
});

async function parkAll(db: D1Database, letters: readonly DeadLetter[]): Promise<void> {
  if (letters.length > 0) await db.batch(letters.map((letter) => parkStatement(db, letter)));
}

/** The entries of a line; the line itself as one entry when it is no JSON and cannot be cut. */
function entriesOf(line: Line): Omit<Placed, "place">[] {
  try {
    const parsed: unknown[] = JSON.parse(`[${line.entries}]`);
    return parsed.map((entry) => ({ line, entry: JSON.stringify(entry) }));
  } catch {
    return [{ line, entry: line.entries }];
  }
}
