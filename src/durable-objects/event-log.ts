import { DurableObject } from "cloudflare:workers";
import { type Env, settingsOf } from "../env.ts";
import { logError } from "../log.ts";
import {
  cutIntoGroups,
  encodeMessage,
  type Group,
  type GroupKind,
  HEADER_BYTES,
  type LoggedCancellation,
  type LoggedEvent,
  type LoggedRejection,
  MESSAGE_BYTES,
} from "../metering/groups.ts";
import { UNIQUENESS_MS } from "../metering/limits.ts";
import { withTimeout } from "../timeout.ts";
import { Delivery } from "./delivery.ts";
import type {
  AppendOutcome,
  CancelOutcome,
  Inquiry,
  NewCancellation,
  NewEntry,
  RetrievedEvent,
} from "./log-entries.ts";
import { LogStore } from "./log-store.ts";
import { shardNumber } from "./stubs.ts";

/** Messages that one sendBatch takes: the queue allows 256 KB. */
const MESSAGES_PER_SEND = 2;

/** How long a send to the queue may take (ms); what it carried is due again anyway. */
const SEND_TIMEOUT_MS = 30_000;

/** How long after an append the alarm checks that the events were delivered (ms). */
const ALARM_DELAY_MS = 2_000;

type Waiting = {
  readonly entries: readonly NewEntry[];
  readonly resolve: (outcomes: AppendOutcome[]) => void;
  readonly reject: (error: unknown) => void;
};

/**
 * A shard of the log: where an event becomes durable and unique, and from where it is sent to the
 * aggregator until D1 has confirmed it. This object alone owns retry; the queue may lose, repeat,
 * delay or reorder what it carries.
 */
export class EventLog extends DurableObject<Env> {
  readonly #store: LogStore;
  readonly #delivery: Delivery;
  readonly #shard: number;
  #waiting: Waiting[] = [];
  #committing = false;
  #sendTimer: ReturnType<typeof setTimeout> | undefined;
  #sending = false;
  #alarmIsSet = true;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#shard = shardNumber(ctx.id);
    this.#store = new LogStore(ctx.storage.sql);
    this.#delivery = new Delivery(this.#store.confirmedThrough(), settingsOf(env).RESEND_AFTER_MS);
    void ctx.blockConcurrencyWhile(async () => {
      this.#alarmIsSet = (await ctx.storage.getAlarm()) !== null;
    });
  }

  /**
   * Makes events durable and unique; the answers come in their order, and only once they are on
   * disk. What arrives while a commit is being written goes into the next one together.
   */
  append(entries: readonly NewEntry[]): Promise<AppendOutcome[]> {
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

  /** What an append of this event would have answered, were it the retry of an accepted one; nothing when it is new. */
  recall(inquiry: Inquiry): AppendOutcome | undefined {
    return this.#recognise(inquiry, Date.now());
  }

  /**
   * Cancels an event received in the last 24 hours, once. Durable when it answers; its identifier
   * stays taken.
   */
  cancel(request: NewCancellation): CancelOutcome {
    try {
      const outcome = this.ctx.storage.transactionSync(() => this.#commitCancellation(request));
      if (outcome.outcome === "cancelled") this.#sendSoon();
      return outcome;
    } catch (error) {
      this.#forgetRolledBack();
      throw error;
    }
  }

  /** An event by its unique key, while the log remembers it. */
  retrieve(key: string): RetrievedEvent | undefined {
    const holder = this.#store.find(key, Date.now());
    const logged = holder && this.#store.eventOf(holder);
    if (!logged) return undefined;
    return { event: logged.event, aggregated: this.#store.isConfirmed(logged.group), cancelled: holder.cancelled?.at };
  }

  /** Notes that D1 has these groups. */
  confirm(ids: readonly number[]): void {
    const now = Date.now();
    this.ctx.storage.transactionSync(() => this.#store.confirm(ids));
    for (const id of ids) this.#delivery.confirm(id, now);
    if (this.#backlogWaits()) this.#sendSoon();
  }

  /** Sends what is unconfirmed; called each minute for every shard, in case an alarm was lost. */
  async nudge(): Promise<void> {
    await this.alarm();
  }

  override async alarm(): Promise<void> {
    this.#alarmIsSet = false;
    // A throw would end the alarm after six retries, so nothing here may throw before it is set again.
    try {
      this.#dropExpired();
      await this.#send();
    } catch (error) {
      logError("an alarm's work failed and will be tried again", error, { shard: this.#shard });
    }
    if (this.#delivery.inFlight > 0 || this.#backlogWaits()) {
      const now = Date.now();
      // No later than this, since a confirmation may make a group due before it was.
      const latest = now + settingsOf(this.env).RESEND_AFTER_MS;
      this.#armAlarm(Math.min(latest, Math.max(this.#delivery.nextDue() ?? 0, now + ALARM_DELAY_MS)));
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
        this.#sendSoon();
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

  /** What memory knows of a transaction that was rolled back is not so. */
  #forgetRolledBack(): void {
    this.#alarmIsSet = false;
    this.#store.reload();
  }

  /** One transaction: recognise, remember, append, arm the alarm. */
  #commit(entries: readonly NewEntry[]): AppendOutcome[] {
    const now = this.#store.receiptTime(Date.now());
    const full = this.#store.size > settingsOf(this.env).LOG_HIGH_WATER_MB * 1_000_000;
    const events: string[] = [];
    const rejections: string[] = [];
    const outcomes = entries.map((entry): AppendOutcome => {
      const known = this.#recognise(entry, now);
      if (known !== undefined) return known;
      if (full) return { outcome: "full" };
      const { key, id, identifier, keyDigest, reportDigest } = entry;
      const timestamp = ("event" in entry ? entry.event.timestamp : undefined) ?? now;
      this.#store.remember(key, { eventId: id, received: now, timestamp, keyDigest, reportDigest });
      if ("event" in entry) {
        const logged: LoggedEvent = { ...entry.event, id, identifier, timestamp, received: now };
        events.push(JSON.stringify(logged));
      } else if ("rejection" in entry) {
        const logged: LoggedRejection = { ...entry.rejection, id, identifier, received: now };
        rejections.push(JSON.stringify(logged));
      }
      return { outcome: "accepted", received: now, timestamp };
    });
    this.#appendGroups("events", events, now);
    this.#appendGroups("rejections", rejections, now);
    return outcomes;
  }

  /** Puts entries into groups that will be sent; within the transaction of whatever they came from. */
  #appendGroups(kind: GroupKind, entries: readonly string[], now: number): void {
    for (const group of cutIntoGroups(entries)) this.#store.append(kind, group, now, this.#delivery.confirmedThrough);
    if (entries.length > 0 && !this.#alarmIsSet) this.#armAlarm(Date.now() + ALARM_DELAY_MS);
  }

  /** One transaction: check that the event can be cancelled, note it, and append its cancellation. */
  #commitCancellation(request: NewCancellation): CancelOutcome {
    const { key, id, meters, keyDigest, requestDigest } = request;
    const now = this.#store.receiptTime(Date.now());
    // By its key a retry is known even when its event's identifier has expired, or is another event's.
    const retryKey = keyDigest === "" ? undefined : `cancelled:${key}:${keyDigest}`;
    const first = retryKey === undefined ? undefined : this.#store.find(retryKey, now);
    if (first !== undefined) {
      return first.eventId === id || first.reportDigest === requestDigest
        ? { outcome: "cancelled", id: first.eventId, at: first.received }
        : { outcome: "key_reused" };
    }
    const holder = this.#store.findLast(key);
    if (holder === undefined) return { outcome: "unknown" };
    const { cancelled } = holder;
    if (cancelled?.id === id) return { outcome: "cancelled", id, at: cancelled.at };
    if (holder.received <= now - UNIQUENESS_MS) return { outcome: "too_old" };
    const logged = this.#store.eventOf(holder);
    if (logged === undefined) throw new Error("an identifier without its event");
    if (!meters.includes(logged.event.meter)) return { outcome: "other_meter" };
    if (cancelled !== undefined) return { outcome: "already_cancelled" };
    this.#store.cancel(key, holder, { id, at: now });
    if (retryKey !== undefined) {
      const answer = { eventId: id, received: now, timestamp: now, keyDigest, reportDigest: requestDigest };
      this.#store.remember(retryKey, answer);
    }
    const entry: LoggedCancellation = { ...logged.event, cancelled: now };
    this.#appendGroups("cancellations", [JSON.stringify(entry)], now);
    return { outcome: "cancelled", id, at: now };
  }

  /** What an event is to the log if its unique key is taken (design, promise 2). */
  #recognise({ key, id, keyDigest, reportDigest }: Inquiry, now: number): AppendOutcome | undefined {
    const holder = this.#store.find(key, now);
    if (holder === undefined) return undefined;
    const { received, timestamp } = holder;
    if (holder.eventId === id) return { outcome: "accepted", received, timestamp };
    const sameReport = holder.reportDigest === reportDigest;
    if (keyDigest === "" || holder.keyDigest !== keyDigest) return { outcome: "duplicate", sameReport };
    return sameReport ? { outcome: "accepted", received, timestamp } : { outcome: "key_reused" };
  }

  #backlogWaits(): boolean {
    return this.#delivery.hasRoom() && this.#store.hasUnconfirmedAfter(this.#delivery.lastSent);
  }

  /** Sends after a short while, so that a message carries many groups. */
  #sendSoon(): void {
    if (this.#sendTimer !== undefined || this.#sending) return;
    this.#sendTimer = setTimeout(() => {
      this.#sendTimer = undefined;
      this.#send().catch((error: unknown) =>
        logError("groups were not sent; the alarm will", error, { shard: this.#shard }),
      );
    }, settingsOf(this.env).SEND_DELAY_MS);
  }

  /** Sends the groups that are due again, then new ones while the window has room. */
  async #send(): Promise<void> {
    if (this.#sending) return;
    this.#sending = true;
    try {
      for (;;) {
        const messages = this.#nextMessages(Date.now());
        if (messages.length === 0) return;
        const bodies = messages.map((groups) => ({ body: encodeMessage(groups), contentType: "text" as const }));
        await withTimeout(this.env.EVENT_QUEUE.sendBatch(bodies), SEND_TIMEOUT_MS);
      }
    } finally {
      this.#sending = false;
    }
  }

  /** The next groups to send, packed into messages. */
  #nextMessages(now: number): Group[][] {
    const messages: Group[][] = [];
    let bytes = MESSAGE_BYTES;
    for (const group of this.#nextGroups(now)) {
      const size = Buffer.byteLength(group.entries) + HEADER_BYTES;
      if (bytes + size > MESSAGE_BYTES) {
        if (messages.length === MESSAGES_PER_SEND) break;
        messages.push([]);
        bytes = 0;
      }
      messages.at(-1)?.push({ shard: this.#shard, ...group });
      this.#delivery.send(group.id, group.entries.length, now);
      bytes += size;
    }
    return messages;
  }

  *#nextGroups(now: number): Generator<Omit<Group, "shard">> {
    for (const id of this.#delivery.due(now)) {
      const group = this.#store.read(id);
      if (group !== undefined) yield group;
    }
    for (const group of this.#store.unconfirmedAfter(this.#delivery.lastSent)) {
      if (!this.#delivery.hasRoom()) return;
      yield group;
    }
  }

  #armAlarm(at: number): void {
    this.#alarmIsSet = true;
    void this.ctx.storage.setAlarm(at);
  }
}
