import { UNIQUENESS_MS } from "../domain/limits.ts";
import { floorTo, HOUR_MS, QUARTER_HOUR_MS, sliceOf } from "../domain/window.ts";
import { type LogEntry, readEvents } from "./codec.ts";
import type { Logged } from "./commit.ts";
import type { ShareName } from "./entries.ts";
import {
  type Body,
  bodiesOf,
  countOf,
  GROUP_KINDS,
  type Group,
  type GroupKind,
  kindAt,
  linesOf,
  type PlacedEntry,
} from "./groups.ts";
import {
  type Cancelled,
  type EventPlace,
  findIn,
  insertInto,
  markCancelled,
  type NewHolder,
  type StoredHolder,
  toHolder,
} from "./holders.ts";
import { partitionsOf, partitionTables } from "./migrations.ts";

/**
 * The tables of one EventLog shard. They come in partitions of time that take turns: dropping a table
 * is free, deleting its rows is not. For the partition that starts at S (hours since 1970):
 *
 * - `holders_S`: who holds a unique key, and whether its event was cancelled. One small row per event.
 * - `groups_S`: the entries of a commit, once, as the queue carries them. One row per group.
 * - `confirmed_S`: the groups that all of their databases have, and when the last of them said so (ms). A table of
 *   its own, since marking a group's row would write its whole body again.
 * - `partly_confirmed_S`: the groups that only some of their databases have had for a minute, and which those are.
 *
 * A group's id is the time it was received (ms) times 1,000 and a little more: it grows, is never
 * used again, and names its partition.
 */
const PARTITION_MS = 12 * HOUR_MS;

const TABLES = ["holders", "groups", "confirmed", "partly_confirmed"] as const;

export const IDS_PER_MS = 1_000;

/** Groups that are read at a time. Each may have the size of a message, and a send takes two of those. */
const GROUPS_PER_READ = 5;

/** Ids of groups that are read at a time. */
const IDS_PER_READ = 100;

/** How long a group is confirmed in part before that is written down (ms). */
const PARTLY_MS = 60_000;

type GroupRow = { id: number; kind: number; lines: string; body: ArrayBuffer };

const GROUP = "id, kind, lines, body";

/** The databases that have a group, while others of its databases have not; and since when (ms). */
type Partly = { readonly databases: Set<number>; readonly since: number };

export class Partitions {
  readonly #sql: SqlStorage;
  /** Partitions with tables, oldest first. */
  #partitions: number[] = [];
  #lastGroupId = 0;
  /** Entries ever appended. */
  #total = 0;
  /** Groups that are confirmed in part, and not written down as such. */
  #partly = new Map<number, Partly>();
  /** The events of the group that was looked into last: those of one commit are asked for together. */
  #read: { readonly id: number; readonly events: readonly Logged[] } | undefined;
  /** Entries of unconfirmed groups; nothing until it is asked for, and after confirmations were taken back. */
  #waiting: number | undefined;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
    this.reload();
  }

  /** Reads from disk what is kept in memory: at the start, and after a transaction was rolled back. */
  reload(): void {
    this.#partitions = partitionsOf(this.#sql);
    const newest = this.#newest();
    this.#lastGroupId = newest?.id ?? 0;
    this.#total = newest?.total ?? 0;
    this.#waiting = undefined;
    this.#partly.clear();
    this.#read = undefined;
  }

  /** The time of a commit (ms): the clock's, or later when the clock went back. */
  receiptTime(now: number): number {
    return Math.max(now, receivedAt(this.#lastGroupId));
  }

  /** Who held unique keys last, as far as the partitions remember; after 24 hours they are free again. */
  findLast(keys: readonly string[]): Map<string, StoredHolder> {
    const found = new Map<string, StoredHolder>();
    let missing = keys;
    for (const partition of this.#partitions.toReversed()) {
      if (missing.length === 0) break;
      const rows = findIn(this.#sql, partition, missing);
      if (rows.size === 0) continue;
      for (const [key, row] of rows) {
        found.set(
          key,
          toHolder(row, firstIdOf(partition), receivedAt, (place) => this.eventAt(place).event),
        );
      }
      missing = missing.filter((key) => !found.has(key));
    }
    return found;
  }

  /** Remembers who holds unique keys, all received at the same time. One row each. */
  remember(holders: readonly NewHolder[]): void {
    const [first] = holders;
    if (first === undefined) return;
    const partition = this.#openPartition(receivedAt(first.group));
    insertInto(this.#sql, partition, firstIdOf(partition), holders);
  }

  /** Notes that an event was cancelled. One row. */
  cancel(key: string, { group }: EventPlace, cancelled: Cancelled): void {
    markCancelled(this.#sql, partitionOf(receivedAt(group)), key, cancelled);
  }

  /** An event with all that was logged of it, and where it is stored. Throws where there is none. */
  eventAt({ group, index }: EventPlace): Logged {
    if (this.#read?.id !== group) this.#read = { id: group, events: this.#readEvents(group) };
    const event = this.#read.events[index];
    if (event === undefined) throw new Error("an identifier without its event");
    return event;
  }

  #readEvents(id: number): Logged[] {
    return (this.read(id)?.bodies ?? [])
      .flatMap(linesOf)
      .flatMap(({ database, slice, entries }) =>
        readEvents(entries).map((event: LogEntry) => ({ event, place: { database, slice } })),
      );
  }

  /** Whether a database has its share of a group. */
  isConfirmed({ group, database }: ShareName): boolean {
    const partition = partitionOf(group / IDS_PER_MS);
    return this.#having(group, partition).has(database) || this.#isMarked(group, partition);
  }

  /** The databases that have a group which others of its databases have not. */
  #having(group: number, partition: number): ReadonlySet<number> {
    const known = this.#partly.get(group)?.databases;
    if (known !== undefined) return known;
    const [row] = this.#sql
      .exec<{ databases: string }>(`SELECT databases FROM partly_confirmed_${partition} WHERE id = ?`, group)
      .toArray();
    return new Set(row && readDatabases(row.databases));
  }

  #isMarked(group: number, partition: number): boolean {
    return this.#sql.exec(`SELECT 1 FROM confirmed_${partition} WHERE id = ?`, group).toArray().length > 0;
  }

  /**
   * Appends a group. One row. `confirmedThrough` is written along for free, and so is how many entries there ever were:
   * a restarted log looks for unconfirmed groups from there on.
   */
  append(kind: GroupKind, entries: readonly PlacedEntry[], received: number, confirmedThrough: number): Group {
    const id = Math.max(received * IDS_PER_MS, this.#lastGroupId + 1);
    const bodies = bodiesOf(entries);
    this.#sql.exec(
      `INSERT INTO groups_${this.#openPartition(receivedAt(id))} (id, kind, lines, confirmed_through, total, body)
       VALUES (?, ?, ?, ?, ?, ?)`,
      id,
      GROUP_KINDS.indexOf(kind),
      writeLines(bodies, id),
      confirmedThrough,
      this.#total + entries.length,
      Buffer.concat(bodies.map(({ packed }) => packed)),
    );
    this.#lastGroupId = id;
    this.#total += entries.length;
    if (this.#waiting !== undefined) this.#waiting += entries.length;
    return { id, kind, bodies };
  }

  /**
   * Notes that databases have their shares of groups. A group that all of its databases have is marked; one row for
   * each that was not yet. Groups of a dropped partition are ignored. Gives the groups that are marked now.
   */
  confirm(shares: readonly ShareName[], now: number): number[] {
    return shares.flatMap(({ group, database }) => {
      const partition = partitionOf(group / IDS_PER_MS);
      const bodies = this.#bodiesOf(group, partition);
      if (bodies === undefined) return [];
      const isShared = bodies.some((body) => body.database !== database);
      const having = new Set(isShared ? this.#having(group, partition) : []).add(database);
      if (!bodies.every((body) => having.has(body.database))) {
        const since = this.#partly.get(group)?.since ?? now;
        if (!this.#isMarked(group, partition)) this.#partly.set(group, { databases: having, since });
        return [];
      }
      const { rowsWritten } = this.#sql.exec(
        `INSERT OR IGNORE INTO confirmed_${partition} (id, at) VALUES (?, ?)`,
        group,
        now,
      );
      if (rowsWritten > 0 && this.#waiting !== undefined) this.#waiting -= countOf(bodies);
      if (isShared) this.#forgetPartly(group, partition);
      return [group];
    });
  }

  #forgetPartly(group: number, partition: number): void {
    this.#sql.exec(`DELETE FROM partly_confirmed_${partition} WHERE id = ?`, group);
    this.#partly.delete(group);
  }

  /** Writes down which databases have groups that others have not had for a minute, so that a restart does not resend to those that have. */
  writePartlyConfirmed(now: number): void {
    for (const [id, { databases, since }] of this.#partly) {
      if (now - since < PARTLY_MS) continue;
      this.#sql.exec(
        `INSERT OR REPLACE INTO partly_confirmed_${partitionOf(id / IDS_PER_MS)} (id, databases) VALUES (?, ?)`,
        id,
        writeDatabases([...databases]),
      );
      this.#partly.delete(id);
    }
  }

  /** As far as `through` (an id), what is known of groups that are confirmed in part is on disk. */
  writtenThrough(through: number): number {
    const [first] = [...this.#partly.keys()].sort((a, b) => a - b);
    return first === undefined ? through : Math.min(through, first - 1);
  }

  /** Takes confirmations back: a database turned out not to have these groups. */
  unconfirm(ids: readonly number[]): void {
    for (const id of ids) {
      const partition = partitionOf(id / IDS_PER_MS);
      if (!this.#partitions.includes(partition)) continue;
      this.#sql.exec(`DELETE FROM confirmed_${partition} WHERE id = ?`, id);
      this.#forgetPartly(id, partition);
    }
    this.#lookAgainFrom(ids.reduce((first, id) => Math.min(first, id)));
  }

  /** Takes back the confirmation of every group received since a time (ms); gives how many were confirmed. */
  unconfirmSince(time: number): number {
    const first = time * IDS_PER_MS;
    let groups = 0;
    for (const partition of this.#partitions) {
      const range = `FROM confirmed_${partition} WHERE id >= ?`;
      groups += Number(this.#sql.exec(`SELECT COUNT(*) AS n ${range}`, first).one().n);
      this.#sql.exec(`DELETE ${range}`, first);
      this.#sql.exec(`DELETE FROM partly_confirmed_${partition} WHERE id >= ?`, first);
    }
    for (const id of [...this.#partly.keys()]) if (id >= first) this.#partly.delete(id);
    this.#lookAgainFrom(first);
    return groups;
  }

  /** Has a restarted log look for unconfirmed groups from this one on. */
  #lookAgainFrom(id: number): void {
    this.#waiting = undefined;
    const newest = this.#newest();
    if (newest === undefined) return;
    this.#sql.exec(
      `UPDATE groups_${partitionOf(newest.id / IDS_PER_MS)} SET confirmed_through = MIN(confirmed_through, ?) WHERE id = ?`,
      id - 1,
      newest.id,
    );
  }

  /** Every group up to this id was confirmed when the newest group was appended. */
  confirmedThrough(): number {
    return this.#newest()?.confirmed_through ?? 0;
  }

  /** The groups after `id` whose share a database has not confirmed, oldest first, read only as far as the caller takes them. */
  *unconfirmedAfter(id: number, database: number): Generator<Group> {
    for (const rows of this.#missing<GroupRow>(GROUP, id, database, GROUPS_PER_READ)) {
      yield* rows.map(toGroup);
    }
  }

  /** Entries of groups after `id` that are not confirmed. Counted once, then kept in memory. */
  entriesWaiting(id: number): number {
    this.#waiting ??= this.#countWaiting(id);
    return this.#waiting;
  }

  #countWaiting(id: number): number {
    return this.#partitions
      .filter((partition) => partition >= partitionOf(id / IDS_PER_MS))
      .flatMap((partition) => {
        const sql = `SELECT id, lines FROM groups_${partition} AS g WHERE id > ? AND ${IS_UNCONFIRMED(partition)}`;
        return this.#sql.exec<Pick<GroupRow, "id" | "lines">>(sql, id).toArray();
      })
      .reduce((sum, { id: group, lines }) => sum + countOf(readLines(lines, group)), 0);
  }

  /** When the first group after `id` was received (ms) whose share a database has not confirmed. */
  oldestAfter(id: number, database: number): number | undefined {
    for (const [first] of this.#missing<{ id: number }>("id", id, database, IDS_PER_READ)) {
      if (first !== undefined) return receivedAt(first.id);
    }
    return undefined;
  }

  /**
   * What a database has not confirmed, so many rows at a time. Each time is read to its end: a table cannot be dropped
   * under an open cursor.
   */
  *#missing<Row extends { id: number }>(
    columns: string,
    id: number,
    database: number,
    limit: number,
  ): Generator<Row[]> {
    for (const partition of this.#partitions) {
      if (partition < partitionOf(id / IDS_PER_MS)) continue;
      for (let last = id; ; ) {
        const rows = this.#sql
          .exec<Row>(
            `SELECT ${columns} FROM groups_${partition} AS g
             WHERE id > ? AND instr(lines, ?) > 0 AND ${IS_UNCONFIRMED(partition)} AND NOT EXISTS (
               SELECT 1 FROM partly_confirmed_${partition} AS p WHERE p.id = g.id AND instr(p.databases, ?) > 0
             ) ORDER BY id LIMIT ?`,
            last,
            beginningOf(database),
            writeDatabases([database]),
            limit,
          )
          .toArray();
        yield rows.filter((row) => !this.#partly.get(row.id)?.databases.has(database));
        const end = rows.at(-1);
        if (end === undefined || rows.length < limit) break;
        last = end.id;
      }
    }
  }

  /** When a group was last confirmed: the newest of those that are (ms). */
  lastConfirmed(): number | undefined {
    for (const partition of this.#partitions.toReversed()) {
      const [row] = this.#sql
        .exec<{ at: number }>(`SELECT at FROM confirmed_${partition} ORDER BY id DESC LIMIT 1`)
        .toArray();
      if (row !== undefined) return row.at;
    }
    return undefined;
  }

  /** The groups that are confirmed, after `id` and received before a time (ms), oldest first, read as far as they are taken. */
  *confirmedAfter(id: number, before: number): Generator<Group> {
    for (const partition of this.#partitions) {
      if (partition < partitionOf(id / IDS_PER_MS)) continue;
      for (let last = id; ; ) {
        const groups = this.#sql
          .exec<GroupRow>(
            `SELECT g.id, g.kind, g.lines, g.body
             FROM confirmed_${partition} AS c JOIN groups_${partition} AS g USING (id)
             WHERE c.id > ? AND c.id < ? ORDER BY c.id LIMIT ?`,
            last,
            before * IDS_PER_MS,
            GROUPS_PER_READ,
          )
          .toArray();
        yield* groups.map(toGroup);
        const end = groups.at(-1);
        if (end === undefined || groups.length < GROUPS_PER_READ) break;
        last = end.id;
      }
    }
  }

  /** Entries that this shard has ever taken. */
  get total(): number {
    return this.#total;
  }

  /** How many groups there are, confirmed or not, after `id` and received before a time (ms). */
  countGroups(id: number, before: number): number {
    return this.#partitions
      .filter((partition) => partition >= partitionOf(id / IDS_PER_MS))
      .map((partition) => `SELECT COUNT(*) AS count FROM groups_${partition} WHERE id > ? AND id < ?`)
      .reduce((sum, sql) => sum + this.#sql.exec<{ count: number }>(sql, id, before * IDS_PER_MS).one().count, 0);
  }

  /** The newest group's id. */
  get lastGroupId(): number {
    return this.#lastGroupId;
  }

  /** When the newest group was received (ms); 0 before the first. */
  get newestReceipt(): number {
    return receivedAt(this.#lastGroupId);
  }

  /** A group, unless its partition was dropped. */
  read(id: number): Group | undefined {
    const partition = partitionOf(id / IDS_PER_MS);
    if (!this.#partitions.includes(partition)) return undefined;
    const [row] = this.#sql.exec<GroupRow>(`SELECT ${GROUP} FROM groups_${partition} WHERE id = ?`, id).toArray();
    return row && toGroup(row);
  }

  #bodiesOf(group: number, partition: number): Omit<Body, "packed">[] | undefined {
    if (!this.#partitions.includes(partition)) return undefined;
    const [row] = this.#sql
      .exec<{ lines: string }>(`SELECT lines FROM groups_${partition} WHERE id = ?`, group)
      .toArray();
    return row && readLines(row.lines, group);
  }

  /** Drops the partitions in which every identifier has expired and every group is confirmed. */
  dropExpired(now: number): void {
    for (const partition of [...this.#partitions]) {
      const end = partition * HOUR_MS + PARTITION_MS;
      if (end > now - UNIQUENESS_MS) return;
      if (this.#hasUnconfirmed(partition)) continue;
      for (const table of TABLES) this.#sql.exec(`DROP TABLE ${table}_${partition}`);
      this.#partitions = this.#partitions.filter((other) => other !== partition);
    }
  }

  #hasUnconfirmed(partition: number): boolean {
    const unconfirmed = `SELECT 1 FROM groups_${partition} AS g WHERE ${IS_UNCONFIRMED(partition)} LIMIT 1`;
    return this.#sql.exec(unconfirmed).toArray().length > 0;
  }

  /** Bytes in use. */
  get size(): number {
    return this.#sql.databaseSize;
  }

  #newest(): { id: number; confirmed_through: number; total: number } | undefined {
    for (const partition of this.#partitions.toReversed()) {
      const [row] = this.#sql
        .exec<{ id: number; confirmed_through: number; total: number }>(
          `SELECT id, confirmed_through, total FROM groups_${partition} ORDER BY id DESC LIMIT 1`,
        )
        .toArray();
      if (row !== undefined) return row;
    }
    return undefined;
  }

  /** The partition of a time (ms), with its tables made when they are not there. */
  #openPartition(time: number): number {
    const partition = partitionOf(time);
    if (this.#partitions.includes(partition)) return partition;
    this.#sql.exec(partitionTables(partition));
    this.#partitions.push(partition);
    this.#partitions.sort((a, b) => a - b);
    return partition;
  }
}

/** Of a group `g`: that not all of its databases have it. */
const IS_UNCONFIRMED = (partition: number): string =>
  `NOT EXISTS (SELECT 1 FROM confirmed_${partition} AS c WHERE c.id = g.id)`;

/** Databases with a comma before and after each, so that one of them can be looked for. */
const writeDatabases = (databases: readonly number[]): string => `,${databases.join(",")},`;

const readDatabases = (text: string): number[] => text.slice(1, -1).split(",").map(Number);

/** What the bodies of a database begin with, as `writeLines` writes them. */
const beginningOf = (database: number): string => `"${database}"`;

/** A body's database (as text, so that it can be looked for), its size and bytes, and its lines relative to the group's receipt. */
type WrittenBody = [database: string, size: number, bytes: number, ...lines: number[][]];

function writeLines(bodies: readonly Body[], id: number): string {
  const { slice: now, quarter } = originOf(id);
  return JSON.stringify(
    bodies.map(
      ({ database, size, packed, lines }): WrittenBody => [
        String(database),
        size,
        packed.length,
        ...lines.map(({ slice, from, to, count }) => [slice - now, from - quarter, to - quarter, count]),
      ],
    ),
  );
}

function readLines(text: string, id: number): (Omit<Body, "packed"> & { readonly bytes: number })[] {
  const { slice: now, quarter } = originOf(id);
  return (JSON.parse(text) as WrittenBody[]).map(([database, size, bytes, ...lines]) => ({
    database: Number(database),
    size,
    bytes,
    lines: lines.map(([slice = 0, from = 0, to = 0, count = 0]) => ({
      slice: slice + now,
      from: from + quarter,
      to: to + quarter,
      count,
    })),
  }));
}

/** What most entries of a group have: the slice and the quarter hour of its receipt. */
const originOf = (id: number): { readonly slice: number; readonly quarter: number } => ({
  slice: sliceOf(receivedAt(id)),
  quarter: Math.floor(receivedAt(id) / QUARTER_HOUR_MS),
});

function toGroup({ id, kind, lines, body }: GroupRow): Group {
  let from = 0;
  const bodies = readLines(lines, id).map(({ bytes, ...rest }) => {
    const packed = new Uint8Array(body.slice(from, from + bytes));
    from += bytes;
    return { ...rest, packed };
  });
  return { id, kind: kindAt(kind), bodies };
}

/** The first id that a group of a partition can have. */
const firstIdOf = (partition: number): number => partition * HOUR_MS * IDS_PER_MS;

/** The partition that holds a time (ms), named by its first hour since 1970. */
const partitionOf = (time: number): number => floorTo(Math.floor(time), PARTITION_MS) / HOUR_MS;

/** When a group was received (ms), by its id. */
export const receivedAt = (id: number): number => Math.floor(id / IDS_PER_MS);
