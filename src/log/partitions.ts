import { UNIQUENESS_MS } from "../domain/limits.ts";
import { floorTo, HOUR_MS } from "../domain/window.ts";
import type { Group, GroupKind, LogEntry, PackedEntries } from "./groups.ts";
import { type Accepted, type Cancelled, findLastIn, type Holder, insertInto, markCancelled } from "./holders.ts";
import { partitionsOf, partitionTables } from "./migrations.ts";

/**
 * The tables of one EventLog shard. They come in partitions of time that take turns: dropping a table
 * is free, deleting its rows is not. For the partition that starts at S (hours since 1970):
 *
 * - `identifiers_S`: who holds an identifier, and whether it was cancelled. One small row per event.
 * - `groups_S`: the entries of a commit, once, as the queue carries them, and how many they are. One row per group.
 * - `confirmed_S`: the groups that D1 has, and when it said so (ms). A table of its own, since marking
 *   a group's row would write its whole body again.
 *
 * A group's id is the time it was received (ms) times 1,000 and a little more: it grows, is never
 * used again, and names its partition.
 */
const PARTITION_MS = 12 * HOUR_MS;

export const IDS_PER_MS = 1_000;

/** Groups that are read at a time. Each may have the size of a message, and a send takes two of those. */
const GROUPS_PER_READ = 5;

export type StoredGroup = Omit<Group, "shard">;

export class Partitions {
  readonly #sql: SqlStorage;
  /** Partitions with tables, oldest first. */
  #partitions: number[] = [];
  #lastGroupId = 0;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
    this.reload();
  }

  /** Reads from disk what is kept in memory: at the start, and after a transaction was rolled back. */
  reload(): void {
    this.#partitions = partitionsOf(this.#sql);
    this.#lastGroupId = this.#newest()?.id ?? 0;
  }

  /** The time of a commit (ms): the clock's, or later when the clock went back. */
  receiptTime(now: number): number {
    return Math.max(now, receivedAt(this.#lastGroupId));
  }

  /** Who held unique keys last, as far as the partitions remember; after 24 hours they are free again. */
  findLast(keys: readonly string[]): Map<string, Holder> {
    return findLastIn(this.#sql, this.#partitions.toReversed(), keys);
  }

  /** Remembers who holds unique keys, all received at the same time. One row each. */
  remember(accepted: readonly (Accepted & { readonly key: string })[]): void {
    const [first] = accepted;
    if (first === undefined) return;
    insertInto(this.#sql, this.#openPartition(first.received), accepted);
  }

  /** Notes that an event was cancelled. One row. */
  cancel(key: string, { received }: Accepted, cancelled: Cancelled): void {
    markCancelled(this.#sql, partitionOf(received), key, cancelled);
  }

  /** An event with all that was logged of it, and the group it is in; nothing for a claim. */
  eventOf({ eventId, received }: Accepted): { event: LogEntry; group: number } | undefined {
    if (eventId === undefined) return undefined;
    const partition = partitionOf(received);
    // A commit's groups have ids from the time it was received on; nearly always it is the first.
    for (let id = received * IDS_PER_MS - 1; ; ) {
      const [row] = this.#sql
        .exec<StoredGroup>(
          `SELECT id, kind, entries FROM groups_${partition} WHERE id > ? AND kind = 'events' ORDER BY id LIMIT 1`,
          id,
        )
        .toArray();
      if (row === undefined) return undefined;
      const events: LogEntry[] = JSON.parse(`[${row.entries}]`);
      const event = events.find((candidate) => candidate.id === eventId);
      if (event !== undefined) return { event, group: row.id };
      if (events.every((candidate) => candidate.received > received)) return undefined;
      id = row.id;
    }
  }

  /** Whether D1 has a group. */
  isConfirmed(group: number): boolean {
    const partition = partitionOf(group / IDS_PER_MS);
    return this.#sql.exec(`SELECT 1 FROM confirmed_${partition} WHERE id = ?`, group).toArray().length > 0;
  }

  /**
   * Appends a group. One row. `confirmedThrough` is written along for free: a restarted log looks
   * for unconfirmed groups from there on.
   */
  append(kind: GroupKind, { entries, count }: PackedEntries, received: number, confirmedThrough: number): void {
    const id = Math.max(received * IDS_PER_MS, this.#lastGroupId + 1);
    this.#sql.exec(
      `INSERT INTO groups_${this.#openPartition(id / IDS_PER_MS)} (id, kind, entry_count, confirmed_through, entries)
       VALUES (?, ?, ?, ?, ?)`,
      id,
      kind,
      count,
      confirmedThrough,
      entries,
    );
    this.#lastGroupId = id;
  }

  /** Marks groups as stored in D1; one row for each that was not yet. Groups of a dropped partition are ignored. */
  confirm(ids: readonly number[], now: number): void {
    for (const id of ids) {
      const partition = partitionOf(id / IDS_PER_MS);
      if (this.#partitions.includes(partition)) {
        this.#sql.exec(`INSERT OR IGNORE INTO confirmed_${partition} (id, at) VALUES (?, ?)`, id, now);
      }
    }
  }

  /** Takes confirmations back: D1 turned out not to have these groups. */
  unconfirm(ids: readonly number[]): void {
    for (const id of ids) {
      const partition = partitionOf(id / IDS_PER_MS);
      if (this.#partitions.includes(partition)) this.#sql.exec(`DELETE FROM confirmed_${partition} WHERE id = ?`, id);
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
    }
    this.#lookAgainFrom(first);
    return groups;
  }

  /** Has a restarted log look for unconfirmed groups from this one on. */
  #lookAgainFrom(id: number): void {
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

  /** The unconfirmed groups after `id`, oldest first, read only as far as the caller takes them. */
  *unconfirmedAfter(id: number): Generator<StoredGroup> {
    for (const partition of this.#partitions) {
      if (partition < partitionOf(id / IDS_PER_MS)) continue;
      for (let last = id; ; ) {
        const groups = this.#unconfirmed(partition, last, GROUPS_PER_READ);
        yield* groups;
        const end = groups.at(-1);
        if (end === undefined || groups.length < GROUPS_PER_READ) break;
        last = end.id;
      }
    }
  }

  /** Whether there is an unconfirmed group after `id`. */
  hasUnconfirmedAfter(id: number): boolean {
    return this.#partitions.some(
      (partition) => partition >= partitionOf(id / IDS_PER_MS) && this.#unconfirmed(partition, id, 1).length > 0,
    );
  }

  /** How many entries after a group are unconfirmed, and when the first of them was received (ms). */
  waitingAfter(id: number): { entries: number; oldest: number | undefined } {
    let entries = 0;
    let first: number | undefined;
    for (const partition of this.#partitions) {
      if (partition < partitionOf(id / IDS_PER_MS)) continue;
      const row = this.#sql
        .exec<{ entries: number | null; first: number | null }>(
          `SELECT SUM(entry_count) AS entries, MIN(id) AS first FROM groups_${partition} AS g
           WHERE id > ? AND NOT EXISTS (SELECT 1 FROM confirmed_${partition} AS c WHERE c.id = g.id)`,
          id,
        )
        .one();
      entries += row.entries ?? 0;
      first ??= row.first ?? undefined;
    }
    return { entries, oldest: first === undefined ? undefined : receivedAt(first) };
  }

  /** When the first unconfirmed group after `id` was received (ms). */
  oldestAfter(id: number): number | undefined {
    const [first] = this.unconfirmedAfter(id);
    return first === undefined ? undefined : receivedAt(first.id);
  }

  /** When D1 was last heard to have a group: the newest of those it has (ms). */
  lastConfirmed(): number | undefined {
    for (const partition of this.#partitions.toReversed()) {
      const [row] = this.#sql
        .exec<{ at: number }>(`SELECT at FROM confirmed_${partition} ORDER BY id DESC LIMIT 1`)
        .toArray();
      if (row !== undefined) return row.at || undefined;
    }
    return undefined;
  }

  /** The groups that D1 has confirmed, after `id` and received before a time (ms), oldest first, read as far as they are taken. */
  *confirmedAfter(id: number, before: number): Generator<StoredGroup> {
    for (const partition of this.#partitions) {
      if (partition < partitionOf(id / IDS_PER_MS)) continue;
      for (let last = id; ; ) {
        const groups = this.#sql
          .exec<StoredGroup>(
            `SELECT g.id, g.kind, g.entries FROM confirmed_${partition} AS c JOIN groups_${partition} AS g USING (id)
             WHERE c.id > ? AND c.id < ? ORDER BY c.id LIMIT ?`,
            last,
            before * IDS_PER_MS,
            GROUPS_PER_READ,
          )
          .toArray();
        yield* groups;
        const end = groups.at(-1);
        if (end === undefined || groups.length < GROUPS_PER_READ) break;
        last = end.id;
      }
    }
  }

  /** The newest group's id. */
  get lastGroupId(): number {
    return this.#lastGroupId;
  }

  /** A group, unless its partition was dropped. */
  read(id: number): StoredGroup | undefined {
    const partition = partitionOf(id / IDS_PER_MS);
    if (!this.#partitions.includes(partition)) return undefined;
    return this.#sql
      .exec<StoredGroup>(`SELECT id, kind, entries FROM groups_${partition} WHERE id = ?`, id)
      .toArray()[0];
  }

  /** Drops the partitions in which every identifier has expired and every group is confirmed. */
  dropExpired(now: number): void {
    for (const partition of [...this.#partitions]) {
      const end = partition * HOUR_MS + PARTITION_MS;
      if (end > now - UNIQUENESS_MS) return;
      if (this.#unconfirmed(partition, 0, 1).length > 0) continue;
      for (const table of ["identifiers", "groups", "confirmed"]) this.#sql.exec(`DROP TABLE ${table}_${partition}`);
      this.#partitions = this.#partitions.filter((other) => other !== partition);
    }
  }

  /** Bytes in use. */
  get size(): number {
    return this.#sql.databaseSize;
  }

  /** The next unconfirmed groups of a partition. Read to the end at once: a table cannot be dropped under an open cursor. */
  #unconfirmed(partition: number, afterId: number, limit: number): StoredGroup[] {
    return this.#sql
      .exec<StoredGroup>(
        `SELECT id, kind, entries FROM groups_${partition} AS g
         WHERE id > ? AND NOT EXISTS (SELECT 1 FROM confirmed_${partition} AS c WHERE c.id = g.id)
         ORDER BY id LIMIT ?`,
        afterId,
        limit,
      )
      .toArray();
  }

  #newest(): { id: number; confirmed_through: number } | undefined {
    for (const partition of this.#partitions.toReversed()) {
      const [row] = this.#sql
        .exec<{ id: number; confirmed_through: number }>(
          `SELECT id, confirmed_through FROM groups_${partition} ORDER BY id DESC LIMIT 1`,
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

/** The partition that holds a time (ms), named by its first hour since 1970. */
const partitionOf = (time: number): number => floorTo(Math.floor(time), PARTITION_MS) / HOUR_MS;

/** When a group was received (ms), by its id. */
const receivedAt = (id: number): number => Math.floor(id / IDS_PER_MS);
