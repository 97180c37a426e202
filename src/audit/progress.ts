/** How far one part of the audit has come, and what it has found. */
type Progress<P> = {
  readonly name: string;
  /** Where the next run begins. */
  readonly position: P;
  /** Since the last time this was saved. */
  readonly checked: number;
  readonly repaired: number;
  /** ms */
  readonly now: number;
};

/** What an audit has done ever. `updated` in ms. */
type AuditRecord = {
  readonly name: string;
  readonly checked: number;
  readonly repaired: number;
  readonly updated: number;
};

const READ = "SELECT position FROM audits WHERE name = ?1";

const SAVE = `
  INSERT INTO audits (name, position, checked, repaired, updated)
  VALUES (?1, ?2, ?3, ?4, ?5)
  ON CONFLICT (name) DO UPDATE SET
    position = excluded.position,
    checked = checked + excluded.checked,
    repaired = repaired + excluded.repaired,
    updated = excluded.updated`;

const LIST = "SELECT name, checked, repaired, updated FROM audits ORDER BY name";

export async function readProgress<P>(db: D1Database, name: string): Promise<P | undefined> {
  const position = await db.prepare(READ).bind(name).first<string>("position");
  return position === null ? undefined : JSON.parse(position);
}

export async function saveProgress<P>(
  db: D1Database,
  { name, position, checked, repaired, now }: Progress<P>,
): Promise<void> {
  await db.prepare(SAVE).bind(name, JSON.stringify(position), checked, repaired, now).run();
}

export const listAudits = async (db: D1Database): Promise<AuditRecord[]> =>
  (await db.prepare(LIST).all<AuditRecord>()).results;
