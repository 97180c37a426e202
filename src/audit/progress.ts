import { bind } from "../aggregate/sql/bind.ts";

/** How far one part of the audit has come, and what it has found. */
type Progress<P> = {
  /** `log live-0`, `sums EVENTS_0`, … */
  readonly name: string;
  /** Where the next run begins. */
  readonly position: P;
  /** Entries of the log, or sums; since the last time this was saved. */
  readonly checked: number;
  readonly repaired: number;
  /** Groups of the log that were left out, likewise. */
  readonly skipped?: number;
  /** ms */
  readonly now: number;
};

/** What an audit has done ever. `updated` in ms. */
type AuditRecord = {
  readonly name: string;
  readonly checked: number;
  readonly repaired: number;
  readonly skipped: number;
  readonly updated: number;
};

const READ = "SELECT position FROM audits WHERE name = ?1";

const SAVE = `
  INSERT INTO audits (name, position, checked, repaired, skipped, updated)
  VALUES (:name, :position, :checked, :repaired, :skipped, :now)
  ON CONFLICT (name) DO UPDATE SET
    position = excluded.position,
    checked = checked + excluded.checked,
    repaired = repaired + excluded.repaired,
    skipped = skipped + excluded.skipped,
    updated = excluded.updated`;

const LIST = "SELECT name, checked, repaired, skipped, updated FROM audits ORDER BY name";

export async function readProgress<P>(db: D1Database, name: string): Promise<P | undefined> {
  const position = await db.prepare(READ).bind(name).first<string>("position");
  return position === null ? undefined : JSON.parse(position);
}

export async function saveProgress<P>(db: D1Database, { position, ...progress }: Progress<P>): Promise<void> {
  await bind(db, SAVE, { skipped: 0, ...progress, position: JSON.stringify(position) }).run();
}

/** How far each part of the audit has come. */
export const listAudits = async (db: D1Database): Promise<AuditRecord[]> =>
  (await db.prepare(LIST).all<AuditRecord>()).results;
