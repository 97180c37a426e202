// What the service holds, and whether a change of it was acknowledged to somebody. The queue is cut off
// while requests are fuzzed, so nothing reaches D1 but what requests themselves write there.
import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { eventsDatabases } from "../../../src/catalog/databases.ts";
import type { HolderRow } from "../../../src/log/holders.ts";
import { unpackKey } from "../../../src/log/packed.ts";
import { isLiveShard } from "../../../src/log/shard-name.ts";
import { allShards, eventLog } from "../../../src/log/shards.ts";

/** The rows of a table, by what is unique of each; a row as JSON. */
type Rows = ReadonlyMap<string, string>;

export type State = {
  /** The tables of all databases: the control database's by their names, the others behind their database's. */
  readonly tables: ReadonlyMap<string, Rows>;
  /** Unique keys that some log holds, and those of them that are cancelled. */
  readonly keys: ReadonlySet<string>;
  readonly cancelled: ReadonlySet<string>;
  /** A digest of everything else in the logs. */
  readonly logs: string;
};

/** What was told to callers with a 200: all that may have changed, and what must be there. */
export type Acknowledged = {
  /** Meters as callers saw them, by id: more than one when there was more than one call. */
  readonly meters: ReadonlyMap<string, readonly Record<string, unknown>[]>;
  /** Bodies of answers to requests with an Idempotency-Key, by mode and key. */
  readonly answers: ReadonlyMap<string, readonly string[]>;
  /** Unique keys of events, each of which must be in a log. */
  readonly events: ReadonlySet<string>;
  /** Unique keys of cancelled events, each of which must be cancelled. */
  readonly cancellations: ReadonlySet<string>;
  /** Whether a key of the log may belong to something acknowledged that has no name of its own. */
  readonly mayHold: (key: string) => boolean;
  /** Whether an operator's call was carried out, which may change more than this. */
  readonly operated: boolean;
};

/** Reads every database and every log. Cheap enough to be done a few hundred times. */
export async function readState(): Promise<State> {
  const [tables, ...logs] = await Promise.all([readTables(), ...(await allShards(env)).map(readLog)]);
  return {
    tables,
    keys: new Set(logs.flatMap(({ keys }) => keys)),
    cancelled: new Set(logs.flatMap(({ cancelled }) => cancelled)),
    logs: logs.map(({ rest }) => rest).join(";"),
  };
}

const tableNames = new Map<D1Database, readonly string[]>();

async function readTables(): Promise<Map<string, Rows>> {
  const databases = [true, false].flatMap((livemode) => eventsDatabases(env, livemode));
  const found = await Promise.all([tablesOf(env.DB, ""), ...databases.map(({ name, db }) => tablesOf(db, `${name}.`))]);
  return new Map(found.flat());
}

/** The tables of a database, with a prefix before their names. */
async function tablesOf(db: D1Database, prefix: string): Promise<[string, Rows][]> {
  const names =
    tableNames.get(db) ??
    (
      await db
        .prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT GLOB '*_cf_*'")
        .all<{ name: string }>()
    ).results.map(({ name }) => name);
  tableNames.set(db, names);
  const results = await db.batch<Record<string, unknown>>(names.map((name) => db.prepare(`SELECT * FROM "${name}"`)));
  return names.map((name, i) => [prefix + name, toRows(results[i]?.results ?? [])]);
}

/** Rows by their id or key; where there is none, by all they are. When a key was last used changes at any time. */
const toRows = (rows: readonly Record<string, unknown>[]): Rows =>
  new Map(
    rows.map(({ last_used: _, ...row }) => {
      const json = JSON.stringify(row);
      return [row.key === undefined ? String(row.hash ?? row.id ?? json) : `${row.livemode}:${row.key}`, json];
    }),
  );

type Log = { readonly keys: string[]; readonly cancelled: string[]; readonly rest: string };

const readLog = (shard: string): Promise<Log> =>
  runInDurableObject(eventLog(env, shard), (_, { storage: { sql } }) => {
    const tables = sql
      .exec<{ name: string }>("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT GLOB '_cf_*'")
      .toArray()
      .map(({ name }) => name);
    const held = tables
      .filter((name) => name.startsWith("holders_"))
      .flatMap((name) => sql.exec<HolderRow>(`SELECT key, place, answer FROM ${name}`).toArray())
      .map((row) => ({ ...row, key: unpackKey(row.key, isLiveShard(shard)) }));
    const groups = tables
      .filter((name) => name.startsWith("groups_"))
      .map((name) => JSON.stringify(sql.exec(`SELECT COUNT(*), MAX(id), SUM(LENGTH(body)) FROM ${name}`).one()));
    return {
      keys: held.map(({ key }) => key),
      cancelled: held.filter(({ place, answer }) => place !== null && answer !== null).map(({ key }) => key),
      rest: [tables.length, ...groups].join(),
    };
  });

/** What changed without being acknowledged, or was acknowledged and is not there; each in a sentence. */
export function unaccounted(before: State, after: State, acknowledged: Acknowledged): string[] {
  const faults: string[] = [];
  for (const [table, rows] of after.tables) {
    for (const change of changesOf(before.tables.get(table) ?? new Map(), rows)) {
      if (!isAcknowledged(table, change, acknowledged)) faults.push(`${table} changed: ${JSON.stringify(change)}`);
    }
  }
  for (const [id, seen] of acknowledged.meters) {
    if (!after.tables.get("meters")?.has(id)) faults.push(`an acknowledged meter is missing: ${JSON.stringify(seen)}`);
  }
  const newKeys = [...after.keys].filter((key) => !before.keys.has(key));
  for (const key of newKeys) {
    if (!acknowledged.events.has(key) && !acknowledged.mayHold(key)) faults.push(`a log took ${key}`);
  }
  for (const key of acknowledged.events) {
    if (!after.keys.has(key)) faults.push(`an acknowledged event is missing: ${key}`);
  }
  const newCancelled = [...after.cancelled].filter((key) => !before.cancelled.has(key));
  for (const key of newCancelled) {
    if (!acknowledged.cancellations.has(key)) faults.push(`an event was cancelled: ${key}`);
  }
  for (const key of acknowledged.cancellations) {
    if (!after.cancelled.has(key)) faults.push(`an acknowledged cancellation is missing: ${key}`);
  }
  if (newKeys.length + newCancelled.length === 0 && !acknowledged.operated && before.logs !== after.logs) {
    faults.push(`a log changed: ${before.logs} became ${after.logs}`);
  }
  if (before.keys.size + newKeys.length !== after.keys.size) faults.push("a log lost a key");
  return faults;
}

type Change = { readonly id: string; readonly row: string | undefined; readonly was: string | undefined };

const changesOf = (before: Rows, after: Rows): Change[] =>
  [...new Set([...before.keys(), ...after.keys()])]
    .map((id) => ({ id, row: after.get(id), was: before.get(id) }))
    .filter(({ row, was }) => row !== was);

function isAcknowledged(table: string, { id, row, was }: Change, acknowledged: Acknowledged): boolean {
  if (row !== undefined && table === "meters") {
    const seen = acknowledged.meters.get(id) ?? [];
    const { livemode, ...meter } = JSON.parse(row);
    const before = was === undefined ? {} : JSON.parse(was);
    // Two calls at once may each have changed a part.
    return (
      seen.some((one) => one.livemode === (livemode === 1)) &&
      ["display_name", "event_name", "status"].every(
        (name) => meter[name] === before[name] || seen.some((one) => one[name] === meter[name]),
      )
    );
  }
  if (row !== undefined && table === "idempotency_keys") {
    return (acknowledged.answers.get(id) ?? []).includes(JSON.parse(row).response);
  }
  return acknowledged.operated && !["meters", "idempotency_keys", "api_keys", "deployment"].includes(table);
}
