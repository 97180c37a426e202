// Who works on a database's archive. Two at once would do the same work twice, which harms nothing but costs twice.
import { bind } from "../aggregate/sql/bind.ts";
import { MINUTE_MS } from "../domain/window.ts";

/** How long a lease lasts (ms) unless it is renewed: longer than a step takes. */
const LEASE_MS = 2 * MINUTE_MS;

/** While a customer is being erased, files and events differ: nothing is to be compared. */
const NO_ERASURE = "NOT EXISTS (SELECT 1 FROM erasures WHERE finished IS NULL)";

const TAKE = (condition: string): string => `
  INSERT INTO leases (name, holder, until)
  SELECT :name, :holder, :until WHERE ${condition}
  ON CONFLICT (name) DO UPDATE SET holder = :holder, until = :until
  WHERE until <= :now OR holder = :holder`;

const END = "DELETE FROM leases WHERE name = ?1 AND holder = ?2";

const NAME = "archive";

/**
 * What a lease is taken for. While an erasure is under way the archive does not get it; what is restored meanwhile is
 * stored for the alias, and the erasure may need it.
 */
type Purpose = "archive" | "erasure" | "restore";

/** Takes the archive's lease of a database, or renews it; whether the holder has it. `now` in ms. */
export async function takeLease(
  db: D1Database,
  holder: string,
  now: number,
  purpose: Purpose = "archive",
): Promise<boolean> {
  const take = TAKE(purpose === "archive" ? NO_ERASURE : "true");
  const { meta } = await bind(db, take, { name: NAME, holder, now, until: now + LEASE_MS }).run();
  return meta.changes > 0;
}

/** Gives the lease up. */
export const endLease = async (db: D1Database, holder: string): Promise<void> =>
  void (await db.prepare(END).bind(NAME, holder).run());
