import { DurableObject } from "cloudflare:workers";
import { type Env, settingsOf } from "../env.ts";
import { logError } from "../logger.ts";
import { accept, cancel, ifFresh, recognise } from "./commit.ts";
import type { Append, AppendOutcome, CancelOutcome, CancelRequest, Inquiry, LogStatus, Retrieval } from "./entries.ts";
import { cutIntoGroups, type GroupKind, type LogEntry } from "./groups.ts";
import type { Holder } from "./holders.ts";
import { bringForward } from "./migrations.ts";
import { IDS_PER_MS, Partitions, type StoredGroup } from "./partitions.ts";
import { Sender } from "./sender.ts";
import { shardNumber } from "./shard-name.ts";

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

/** Where it is stored, so that it survives this object. */
const RESEND = "resend";

/**
 * A shard of the log: where an event becomes durable and unique, and from where it is sent to the
 * aggregator until D1 has confirmed it. This object alone owns retry; the queue may lose, repeat,
 * delay or reorder what it carries.
 */
export class EventLog extends DurableObject<Env> {
  readonly #store: Partitions;
  readonly #sender: Sender;
  readonly #shard: number;
  #waiting: Waiting[] = [];
  #committing = false;
  #alarmIsSet = true;
  #resend: Resend | undefined;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#shard = shardNumber(ctx.id);
    ctx.storage.transactionSync(() => bringForward(ctx.storage.sql));
    this.#store = new Partitions(ctx.storage.sql);
    this.#resend = ctx.storage.kv.get<Resend>(RESEND);
    this.#sender = new Sender(env, this.#shard, this.#store, this.#resend?.through);
    void ctx.blockConcurrencyWhile(async () => {
      this.#alarmIsSet = (await ctx.storage.getAlarm()) !== null;
    });
  }

  /**
   * Makes events durable and unique; the answers come in their order, and only once they are on
   * disk. What arrives while a commit is being written goes into the next one together.
   */
  append(entries: readonly Append[]): Promise<AppendOutcome[]> {
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
    return {
      event: logged.event,
      group: { shard: this.#shard, id: logged.group },
      aggregated: this.#store.isConfirmed(logged.group),
      cancelled: holder.cancelled?.at,
    };
  }

  /** Notes that D1 has these groups. */
  confirm(ids: readonly number[]): void {
    const now = Date.now();
    this.#transact(() => this.#store.confirm(ids, now));
    this.#sender.confirm(ids, now);
    this.#endResend();
  }

  /**
   * The next groups that D1 is said to have, after `id` and received before a time (ms), in their order and
   * about as many as one statement takes: for the auditor.
   */
  confirmedAfter(id: number, before: number): StoredGroup[] {
    const groups: StoredGroup[] = [];
    let bytes = 0;
    for (const group of this.#store.confirmedAfter(id, before)) {
      groups.push(group);
      bytes += Buffer.byteLength(group.entries);
      if (bytes >= AUDITED_BYTES || groups.length >= AUDITED_GROUPS) break;
    }
    return groups;
  }

  /** When the first group was received (ms) that D1 has not confirmed; nothing when it has all. */
  oldestWaiting(): number | undefined {
    return this.#store.oldestAfter(this.#confirmedThrough());
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
      this.#armAlarm(Date.now() + ALARM_DELAY_MS);
      return unconfirmed;
    });
    this.#sender.lookBack(first - 1);
    return result;
  }

  /** How this shard is doing, for its operator. */
  status(): LogStatus {
    return {
      ...this.#store.waitingAfter(this.#confirmedThrough()),
      inFlight: this.#sender.inFlight,
      resent: this.#sender.resent,
      lastConfirmed: this.#store.lastConfirmed(),
      bytes: this.#store.size,
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
      this.#dropExpired();
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
  #dropExpired(): void {
    try {
      this.ctx.storage.transactionSync(() => this.#store.dropExpired(Date.now()));
    } catch (error) {
      this.#store.reload();
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

  /** What memory knows of a transaction that was rolled back is not so. */
  #forgetRolledBack(): void {
    this.#alarmIsSet = false;
    this.#store.reload();
  }

  /** One transaction: recognise, remember, append, arm the alarm. */
  #commit(entries: readonly Append[]): AppendOutcome[] {
    const now = this.#store.receiptTime(Date.now());
    const isFull = this.#store.size > settingsOf(this.env).LOG_HIGH_WATER_MB * 1_000_000;
    const known = this.#store.findLast(entries.map(({ key }) => key));
    const { outcomes, holders, events, rejections } = accept(entries, known, { now, isFull });
    this.#store.remember(holders);
    this.#appendGroups("events", events, now);
    this.#appendGroups("rejections", rejections, now);
    return outcomes;
  }

  /** Puts entries into groups that will be sent; within the transaction of whatever they came from. */
  #appendGroups(kind: GroupKind, entries: readonly object[], now: number): void {
    const texts = entries.map((entry) => JSON.stringify(entry));
    for (const group of cutIntoGroups(texts)) this.#store.append(kind, group, now, this.#sender.confirmedThrough);
    if (entries.length > 0 && !this.#alarmIsSet) this.#armAlarm(Date.now() + ALARM_DELAY_MS);
  }

  /** One transaction: check that the event can be cancelled, note it, and append its cancellation. */
  #commitCancellation(request: CancelRequest): CancelOutcome {
    const { key, id, keyDigest, requestDigest } = request;
    const now = this.#store.receiptTime(Date.now());
    // By its key a retry is known even when its event's identifier has expired, or is another event's.
    const retryKey = keyDigest === undefined ? undefined : `cancelled:${key}:${keyDigest}`;
    const earlier = retryKey === undefined ? undefined : this.#holderOf(retryKey, now);
    const holder = this.#store.findLast([key]).get(key);
    const { outcome, entry } = cancel(request, { earlier, holder, eventOf: (held) => this.#eventOf(held) }, now);
    if (entry === undefined || holder === undefined) return outcome;
    this.#store.cancel(key, holder, { id, at: now });
    if (retryKey !== undefined) {
      const response = { eventId: id, received: now, timestamp: now, keyDigest, reportDigest: requestDigest };
      this.#store.remember([{ key: retryKey, ...response }]);
    }
    this.#appendGroups("cancellations", [entry], now);
    return outcome;
  }

  #eventOf(holder: Holder): LogEntry {
    const logged = this.#store.eventOf(holder);
    if (logged === undefined) throw new Error("an identifier without its event");
    return logged.event;
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
