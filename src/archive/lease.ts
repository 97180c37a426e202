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
 * Takes the archive's lease of a database, or renews it; whether the holder has it. Only an erasure gets it while one is
 * under way. `now` in ms.
 */
export async function takeLease(
  db: D1Database,
  holder: string,
  now: number,
  purpose: "archive" | "erasure" = "archive",
): Promise<boolean> {
  const take = TAKE(purpose === "erasure" ? "true" : NO_ERASURE);
  const { meta } = await bind(db, take, { name: NAME, holder, now, until: now + LEASE_MS }).run();
  return meta.changes > 0;
}

/** Gives the lease up. */
export const endLease = async (db: D1Database, holder: string): Promise<void> =>
  void (await db.prepare(END).bind(NAME, holder).run());
