/**
 * The layout of an EventLog's tables, brought forward when an object starts with new code. Only forwards,
 * and only by what old code can live with: after a rollback it meets the new layout, so a new column has a
 * default and no column goes away or changes its meaning.
 *
 * 1. `holders_S`, `groups_S`, `confirmed_S`, `partly_confirmed_S`, made as they are needed.
 */
const STEPS: readonly ((sql: SqlStorage) => void)[] = [() => {}];

/** Brings an object's tables to the layout of this code. To be run in one transaction, before anything else. */
export function bringForward(sql: SqlStorage): void {
  sql.exec("CREATE TABLE IF NOT EXISTS layout (version INTEGER PRIMARY KEY)");
  const [found] = sql.exec<{ version: number | null }>("SELECT MAX(version) AS version FROM layout").toArray();
  const version = found?.version ?? 0;
  // Newer code was here: it left nothing that this code cannot live with.
  if (version >= STEPS.length) return;
  for (const step of STEPS.slice(version)) step(sql);
  sql.exec("INSERT INTO layout (version) VALUES (?)", STEPS.length);
}

/** The partitions that have tables, by the hour in their names. */
export const partitionsOf = (sql: SqlStorage): number[] =>
  sql
    .exec<{ name: string }>("SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'groups_*'")
    .toArray()
    .map(({ name }) => Number(name.slice("groups_".length)))
    .sort((a, b) => a - b);

/** The tables of a new partition; see Partitions. */
export const partitionTables = (partition: number): string => `
  CREATE TABLE holders_${partition} (
    key PRIMARY KEY, -- see packKey
    grp INTEGER NOT NULL, -- the group's id, counted from the partition's first
    place INTEGER, -- of the event in its group; NULL for a claim, a rejection, and a cancellation's Idempotency-Key
    report NOT NULL, key_digest, -- see packDigest
    answer TEXT -- JSON of Cancelled
  ) WITHOUT ROWID;
  CREATE TABLE groups_${partition} (
    id INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL, -- its place in GROUP_KINDS
    lines TEXT NOT NULL, -- JSON; see writeLines
    confirmed_through INTEGER NOT NULL,
    total INTEGER NOT NULL, -- entries that the shard has taken, with this group's
    body BLOB NOT NULL -- the packed entries of each database, one after the other
  );
  CREATE TABLE confirmed_${partition} (id INTEGER PRIMARY KEY, at INTEGER NOT NULL);
  CREATE TABLE partly_confirmed_${partition} (
    id INTEGER PRIMARY KEY,
    databases TEXT NOT NULL -- with a comma before and after each
  );
`;
