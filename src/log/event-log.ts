import { DurableObject } from "cloudflare:workers";
import { databaseOf, databasesAt, longerOf, ONE_DATABASE, type Placement } from "../domain/placement.ts";
import { sliceOf } from "../domain/window.ts";
import { type Env, settingsOf } from "../env.ts";
import { logError } from "../logger.ts";
import { type LogEntry, type LogRejection, writeCancellation, writeEvent, writeRejection } from "./codec.ts";
import { accept, cancel, ifFresh, type Logged, recognise } from "./commit.ts";
import type {
  Append,
  AppendOutcome,
  CancelOutcome,
  CancelRequest,
  Inquiry,
  LogStatus,
  Retrieval,
  ShareName,
} from "./entries.ts";
import { cutIntoGroups, type Group, type GroupKind, type PlacedEntry } from "./groups.ts";
import type { Holder } from "./holders.ts";
import { bringForward } from "./migrations.ts";
import { IDS_PER_MS, Partitions } from "./partitions.ts";
import { Sender } from "./sender.ts";
import { shardOfObject } from "./shard-name.ts";

/** How long after an append the alarm checks that the events were delivered (ms). */
const ALARM_DELAY_MS = 2_000;

/** What the auditor gets at a time: bytes, since D1 binds up to 2 MB, and groups. */
const AUDITED_BYTES = 1_200_000;
const AUDITED_GROUPS = 1_000;

type Waiting = {
  readonly entries: readonly Append[];
  readonly resolve: (outcomes: AppendOutcome[]) => void;
  readonly reject: (error: unknown) => void;
};

/** A resend that is under way: what was received since a time (ms), up to the last group sent until then. */
type Resend = { readonly since: number; readonly through: number };

/** What is stored by name, so that it survives this object: a resend, the placement, how many databases have shares. */
const RESEND = "resend";
const PLACEMENT = "placement";
const DATABASES = "databases";
/** For each database, up to which group it has all; while they differ, since a restart would look through all of it. */
const CONFIRMED = "confirmed";

/** How far ahead of the others (ms of receipt) a database is before that is written down, and how far from then on. */
const WRITE_CONFIRMED_MS = 60_000;

/**
 * A shard of the log: where an event becomes durable and unique, and from where it is sent to the
 * aggregator until D1 has confirmed it. This object alone owns retry; the queue may lose, repeat,
 * delay or reorder what it carries.
 */
export class EventLog extends DurableObject<Env> {
  readonly #store: Partitions;
  readonly #sender: Sender;
  readonly #shard: string;
  #waiting: Waiting[] = [];
  #committing = false;
  #alarmIsSet = true;
  #resend: Resend | undefined;
  /** The longest that a call has brought. */
  #placement: Placement;
  /** How many databases have shares, as it is stored. */
  #databases: number;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#shard = shardOfObject(ctx.id);
    ctx.storage.transactionSync(() => bringForward(ctx.storage.sql));
    this.#store = new Partitions(ctx.storage.sql);
    this.#resend = ctx.storage.kv.get<Resend>(RESEND);
    this.#placement = ctx.storage.kv.get<Placement>(PLACEMENT) ?? ONE_DATABASE;
    this.#databases = ctx.storage.kv.get<number>(DATABASES) ?? 0;
    const start = {
      databases: this.#databases,
      confirmedThrough: (database: number) => this.#writtenThrough(database),
      resentThrough: this.#resend?.through,
    };
    this.#sender = new Sender(env, this.#shard, this.#store, start);
    void ctx.blockConcurrencyWhile(async () => {
      this.#alarmIsSet = (await ctx.storage.getAlarm()) !== null;
    });
  }

  /**
   * Makes events durable and unique; the answers come in their order, and only once they are on
   * disk. What arrives while a commit is being written goes into the next one together. `placement` is what the
   * caller knows; the log decides by the longest that it has seen, and writes down what it decided.
   */
  append(entries: readonly Append[], placement: Placement = ONE_DATABASE): Promise<AppendOutcome[]> {
    this.#adopt(placement);
    return new Promise((resolve, reject) => {
      this.#waiting.push({ entries, resolve, reject });
      if (this.#committing) return;
      this.#committing = true;
      this.#commitAll()
        .catch((error: unknown) => logError("a commit could not be undone", error, { shard: this.#shard }))
        .finally(() => {
          this.#committing = false;
        });
    });
  }

  #adopt(placement: Placement): void {
    if (longerOf(this.#placement, placement) === this.#placement) return;
    this.#placement = placement;
    this.ctx.storage.kv.put(PLACEMENT, placement);
  }

  /** What an append of each of these would be told if it is the retry of an accepted one; nothing for a new one. */
  recall(inquiries: readonly Inquiry[]): (AppendOutcome | undefined)[] {
    const now = Date.now();
    const holders = this.#store.findLast(inquiries.map(({ key }) => key));
    return inquiries.map((inquiry) => recognise(inquiry, ifFresh(holders.get(inquiry.key), now)));
  }

  /**
   * Cancels an event received in the last 24 hours, once. Durable when it answers; its identifier
   * stays taken.
   */
  cancel(request: CancelRequest): CancelOutcome {
    const outcome = this.#transact(() => this.#commitCancellation(request));
    if (outcome.outcome === "cancelled") this.#sender.sendSoon();
    return outcome;
  }

  /** An event by its unique key, while the log remembers it. */
  retrieve(key: string): Retrieval | undefined {
    const holder = this.#holderOf(key, Date.now());
    const logged = holder && this.#store.eventOf(holder);
    if (!logged) return undefined;
    const share = { group: logged.group, database: logged.place.database };
    return {
      event: logged.event,
      shard: this.#shard,
      share,
      aggregated: this.#store.isConfirmed(share),
      cancelled: holder.cancelled,
    };
  }

  /** Notes that databases have these shares. */
  confirm(shares: readonly ShareName[]): void {
    const now = Date.now();
    this.#transact(() => this.#store.confirm(shares, now));
    this.#sender.confirm(shares, now);
    this.#endResend();
  }

  /**
   * The next groups that D1 is said to have, after `id` and received before a time (ms), in their order and
   * about as many as one statement takes: for the auditor.
   */
  confirmedAfter(id: number, before: number): Group[] {
    const groups: Group[] = [];
    let bytes = 0;
    for (const group of this.#store.confirmedAfter(id, before)) {
      groups.push(group);
      bytes += group.lines.reduce((sum, { entries }) => sum + Buffer.byteLength(entries), 0);
      if (bytes >= AUDITED_BYTES || groups.length >= AUDITED_GROUPS) break;
    }
    return groups;
  }

  /** How many groups there are, confirmed or not, after `id` and received before a time (ms): for the auditor. */
  countGroups(id: number, before: number): number {
    return this.#store.countGroups(id, before);
  }

  /** When the first group was received (ms) that a database has not confirmed; nothing when all have everything. */
  oldestWaiting(): number | undefined {
    const times = Object.values(this.#oldestOf());
    return times.length === 0 ? undefined : Math.min(...times);
  }

  #oldestOf(): Record<number, number> {
    const oldest: Record<number, number> = {};
    for (let database = 0; database < this.#sender.databases; database++) {
      const from = Math.max(this.#store.confirmedThrough(), this.#sender.confirmedThroughOf(database));
      const time = this.#store.oldestAfter(from, database);
      if (time !== undefined) oldest[database] = time;
    }
    return oldest;
  }

  /** Sends these groups again: D1 turned out not to have them. Durable when it answers. */
  sendAgain(ids: readonly number[]): void {
    if (ids.length === 0) return;
    this.#takeBack(
      ids.reduce((first, id) => Math.min(first, id)),
      () => this.#store.unconfirm(ids),
    );
  }

  /**
   * Sends every group received since a time (ms) again, as far as the log goes back and beside new ones; gives
   * how many had been confirmed. Nothing, without effect, while an earlier call's groups are not all confirmed.
   */
  sendAllSince(since: number): number | undefined {
    if (this.resendUnderWay() !== undefined) return undefined;
    const resend = { since, through: this.#sender.lastSent };
    const groups = this.#takeBack(since * IDS_PER_MS, () => {
      this.ctx.storage.kv.put(RESEND, resend);
      return this.#store.unconfirmSince(since);
    });
    this.#resend = resend;
    return groups;
  }

  /** Since when (ms) the groups are that a resend under way sends again; nothing when there is none. */
  resendUnderWay(): number | undefined {
    this.#endResend();
    return this.#resend?.since;
  }

  #endResend(): void {
    if (this.#resend === undefined || this.#sender.isLookingBack) return;
    this.ctx.storage.kv.delete(RESEND);
    this.#resend = undefined;
  }

  /** Takes confirmations back, of groups from `first` on, and sends what is unconfirmed from there. */
  #takeBack<T>(first: number, unconfirm: () => T): T {
    const result = this.#transact(() => {
      const unconfirmed = unconfirm();
      this.ctx.storage.kv.delete(CONFIRMED);
      this.#armAlarm(Date.now() + ALARM_DELAY_MS);
      return unconfirmed;
    });
    this.#sender.lookBack(() => first - 1);
    return result;
  }

  /** How this shard is doing, for its operator. */
  status(): LogStatus {
    const oldestOf = this.#oldestOf();
    const times = Object.values(oldestOf);
    return {
      entries: this.#store.entriesWaiting(this.#confirmedThrough()),
      oldest: times.length === 0 ? undefined : Math.min(...times),
      oldestOf,
      inFlight: this.#sender.inFlight,
      resent: this.#sender.resent,
      lastConfirmed: this.#store.lastConfirmed(),
      bytes: this.#store.size,
      total: this.#store.total,
    };
  }

  /** Every group up to this id is confirmed, as far as disk or memory knows. */
  #confirmedThrough(): number {
    return Math.max(this.#store.confirmedThrough(), this.#sender.confirmedThrough);
  }

  /** Sends what is unconfirmed; called each minute for every shard, in case an alarm was lost. */
  async nudge(): Promise<void> {
    await this.alarm();
  }

  override async alarm(): Promise<void> {
    this.#alarmIsSet = false;
    let due: number | undefined = 0;
    // A throw would end the alarm after six retries, so nothing here may throw before it is set again.
    try {
      this.#tidyUp();
      await this.#sender.send();
      due = this.#sender.nextDue();
    } catch (error) {
      logError("an alarm's work failed and will be tried again", error, { shard: this.#shard });
    }
    const now = Date.now();
    if (due !== undefined) {
      // No later than this, since a confirmation may make a group due before it was.
      const latest = now + settingsOf(this.env).RESEND_AFTER_MS;
      this.#armAlarm(Math.min(latest, Math.max(due, now + ALARM_DELAY_MS)));
    }
  }

  /** Failing to tidy up is no reason not to deliver. */
  #tidyUp(): void {
    try {
      this.ctx.storage.transactionSync(() => {
        this.#store.dropExpired(Date.now());
        this.#store.writePartlyConfirmed(Date.now());
        this.#writeConfirmed();
      });
    } catch (error) {
      this.#forgetRolledBack();
      logError("expired tables were not dropped", error, { shard: this.#shard });
    }
  }

  async #commitAll(): Promise<void> {
    while (this.#waiting.length > 0) {
      const calls = this.#waiting;
      this.#waiting = [];
      const now = Date.now();
      try {
        const outcomes = this.ctx.storage.transactionSync(() => this.#commit(calls.flatMap((call) => call.entries)));
        let from = 0;
        for (const { entries, resolve } of calls) {
          resolve(outcomes.slice(from, from + entries.length));
          from += entries.length;
        }
        this.#sender.sendSoon();
        // The answers leave once this is on disk (output gate); meanwhile the next group gathers.
        await this.ctx.storage.sync();
        // A clock that went back in between must not stretch the wait.
        const wait = settingsOf(this.env).GROUP_COMMIT_MS - Math.max(0, Date.now() - now);
        if (wait > 0) await scheduler.wait(wait);
      } catch (error) {
        for (const { reject } of calls) reject(error);
        this.#forgetRolledBack();
      }
    }
  }

  #transact<T>(work: () => T): T {
    try {
      return this.ctx.storage.transactionSync(work);
    } catch (error) {
      this.#forgetRolledBack();
      throw error;
    }
  }

  /**
   * What memory knows of a transaction that was rolled back is not so. With it goes which databases have a part of a
   * group, so what is not confirmed is sent again.
   */
  #forgetRolledBack(): void {
    this.#alarmIsSet = false;
    this.#databases = this.ctx.storage.kv.get<number>(DATABASES) ?? 0;
    this.#store.reload();
    this.#sender.lookBack((database) => this.#writtenThrough(database));
  }

  /** Every group up to this id is confirmed by a database, as far as disk knows. */
  #writtenThrough(database: number): number {
    const own = this.ctx.storage.kv.get<number[]>(CONFIRMED)?.[database] ?? 0;
    return Math.max(own, this.#store.confirmedThrough());
  }

  /** While one database is far behind, notes how far the others are, so that a restart begins there. */
  #writeConfirmed(): void {
    const through = Array.from({ length: this.#databases }, (_, database) =>
      this.#store.writtenThrough(this.#sender.confirmedThroughOf(database)),
    );
    const before = Math.max(...Array.from(through, (_, database) => this.#writtenThrough(database)));
    if (Math.max(...through) - before > WRITE_CONFIRMED_MS * IDS_PER_MS) this.ctx.storage.kv.put(CONFIRMED, through);
  }

  /** One transaction: recognise, remember, append, arm the alarm. */
  #commit(entries: readonly Append[]): AppendOutcome[] {
    const now = this.#store.receiptTime(Date.now());
    const isFull = this.#store.size > settingsOf(this.env).LOG_HIGH_WATER_MB * 1_000_000;
    const known = this.#store.findLast(entries.map(({ key }) => key));
    const { outcomes, holders, events, rejections } = accept(entries, known, { now, isFull });
    this.#store.remember(holders);
    this.#appendGroups("events", this.#placed(events, now), now);
    this.#appendGroups("rejections", rejections.map(inFirstDatabase), now);
    return outcomes;
  }

  /** Decides, once, which database and which slice each event belongs to. */
  #placed(events: readonly LogEntry[], now: number): PlacedEntry[] {
    const databases = databasesAt(this.#placement, now);
    const slice = sliceOf(now);
    return events.map((event) => ({
      database: databaseOf(event.meter, event.customer, databases),
      slice,
      timestamp: event.timestamp,
      text: writeEvent(event),
    }));
  }

  /** Puts entries into groups that will be sent; within the transaction of whatever they came from. */
  #appendGroups(kind: GroupKind, entries: readonly PlacedEntry[], now: number): void {
    if (entries.length === 0) return;
    const databases = entries.reduce((most, { database }) => Math.max(most, database + 1), 0);
    if (databases > this.#databases) {
      this.ctx.storage.kv.put(DATABASES, databases);
      this.#databases = databases;
      this.#sender.open(databases);
    }
    for (const lines of cutIntoGroups(entries)) this.#store.append(kind, lines, now, this.#sender.confirmedThrough);
    if (!this.#alarmIsSet) this.#armAlarm(Date.now() + ALARM_DELAY_MS);
  }

  /** One transaction: check that the event can be cancelled, note it, and append its cancellation. */
  #commitCancellation(request: CancelRequest): CancelOutcome {
    const { key, id, keyDigest, requestDigest } = request;
    const now = this.#store.receiptTime(Date.now());
    // By its key a retry is known even when its event's identifier has expired, or is another event's.
    const retryKey = keyDigest === undefined ? undefined : `cancelled:${key}:${keyDigest}`;
    const earlier = retryKey === undefined ? undefined : this.#holderOf(retryKey, now);
    const holder = this.#store.findLast([key]).get(key);
    const { outcome, stored } = cancel(request, { earlier, holder, eventOf: (held) => this.#eventOf(held) }, now);
    if (stored === undefined || holder === undefined) return outcome;
    this.#store.cancel(key, holder, { id, at: now, by: request.apiKey });
    if (retryKey !== undefined) {
      const response = { eventId: id, received: now, timestamp: now, keyDigest, reportDigest: requestDigest };
      this.#store.remember([{ key: retryKey, ...response }]);
    }
    const { entry, place } = stored;
    const text = writeCancellation(entry);
    this.#appendGroups("cancellations", [{ ...place, timestamp: entry.timestamp, text }], now);
    return outcome;
  }

  #eventOf(holder: Holder): Logged {
    const logged = this.#store.eventOf(holder);
    if (logged === undefined) throw new Error("an identifier without its event");
    return logged;
  }

  /** Who holds a unique key now; nothing when it is free. */
  #holderOf(key: string, now: number): Holder | undefined {
    return ifFresh(this.#store.findLast([key]).get(key), now);
  }

  #armAlarm(at: number): void {
    this.#alarmIsSet = true;
    void this.ctx.storage.setAlarm(at);
  }
}

/** What belongs to no customer goes where everybody finds it. */
const inFirstDatabase = (rejection: LogRejection): PlacedEntry => ({
  database: 0,
  slice: sliceOf(rejection.received),
  timestamp: rejection.received,
  text: writeRejection(rejection),
});
