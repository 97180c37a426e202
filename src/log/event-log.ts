import { DurableObject } from "cloudflare:workers";
import { objectNamed } from "../catalog/objects.ts";
import { UNIQUENESS_MS } from "../domain/limits.ts";
import { databaseOf, databasesAt, laneOf, longerOf, ONE_DATABASE, type Placement } from "../domain/placement.ts";
import { sliceOf } from "../domain/window.ts";
import { type Env, settingsOf } from "../env.ts";
import { logError } from "../logger.ts";
import { type LogRejection, writeCancellation, writeEvent, writeRejection } from "./codec.ts";
import { type AcceptedEvent, accept, cancel, ifFresh, type Logged, recognise } from "./commit.ts";
import {
  type Ancestor,
  type Append,
  type AppendOutcome,
  CALL_VERSION,
  type CallContext,
  type CancelOutcome,
  type CancelRequest,
  CLOCKS_MS,
  type Inquiry,
  type LogProgress,
  type LogStatus,
  type Moved,
  type RemoteHolder,
  type Retrieval,
  type ShareName,
} from "./entries.ts";
import { cutIntoGroups, type Group, type GroupKind, type PlacedEntry } from "./groups.ts";
import type { EventPlace, Holder, StoredHolder } from "./holders.ts";
import { Inheritance, patiently } from "./inheritance.ts";
import { bringForward } from "./migrations.ts";
import { IDS_PER_MS, Partitions } from "./partitions.ts";
import { Sender } from "./sender.ts";
import { isLiveShard, placeOfShard, shardName, shardOfObject } from "./shard-name.ts";
import { longestWait } from "./throttle.ts";

/** How long after the sender's longest wait the alarm checks that the events were delivered (ms). */
const ALARM_MARGIN_MS = 500;

/** What the auditor gets at a time: bytes, since D1 binds up to 2 MB, and groups. */
const AUDITED_BYTES = 1_200_000;
const AUDITED_GROUPS = 1_000;

type Waiting = {
  readonly entries: readonly Append[];
  readonly resolve: (outcomes: (AppendOutcome | Moved)[]) => void;
  readonly reject: (error: unknown) => void;
};

/** A resend that is under way: what was received since a time (ms), up to the last group sent until then. */
type Resend = { readonly since: number; readonly through: number };

/** Entries that one commit takes, so that a burst does not become one transaction that takes seconds. */
const COMMIT_ENTRIES = 2_000;

/** What a shard says of an event that it does not have. */
const NOT_THERE: readonly CancelOutcome["outcome"][] = ["unknown", "too_old"];

/** What is stored by name, so that it survives this object: a resend, the placement, how many databases have shares. */
const RESEND = "resend";
const PLACEMENT = "placement";
const DATABASES = "databases";
/** For each database, up to which group it has all; while they differ, since a restart would look through all of it. */
const CONFIRMED = "confirmed";

/** How often each database's shares were sent in vain: a row or so for each outage, not for each group. */
const VAIN = "vain";

/** How far (ms of receipt) the foremost database may be ahead of what a restart knows, before that is written down. */
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
  /** When the alarm is due (ms); nothing when none is set. Until the platform has said so, at once. */
  #alarmAt: number | undefined = 0;
  #resend: Resend | undefined;
  /** The longest placement that a call has brought. */
  #placement: Placement;
  readonly #inheritance: Inheritance;
  /** The latest time (ms) that a caller and this log agreed on, since this log was started. */
  #agreed = 0;
  /** How often each database's shares were sent in vain of late, as it is stored. */
  #vain: readonly number[];
  /** How many databases have shares, as it is stored. */
  #databases: number;
  /** From an append to the alarm (ms). An earlier one would send before the tick that the sender waits for. */
  readonly #alarmDelay: number;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#shard = shardOfObject(ctx);
    this.#alarmDelay = longestWait(settingsOf(env).SEND_INTERVAL_MS) + ALARM_MARGIN_MS;
    this.#inheritance = new Inheritance(ctx.storage.kv, placeOfShard(this.#shard));
    ctx.storage.transactionSync(() => bringForward(ctx.storage.sql));
    this.#store = new Partitions(ctx.storage.sql);
    this.#resend = ctx.storage.kv.get<Resend>(RESEND);
    this.#placement = ctx.storage.kv.get<Placement>(PLACEMENT) ?? ONE_DATABASE;
    this.#databases = ctx.storage.kv.get<number>(DATABASES) ?? 0;
    this.#vain = ctx.storage.kv.get<number[]>(VAIN) ?? [];
    const start = {
      databases: this.#databases,
      confirmedThrough: (database: number) => this.#writtenThrough(database),
      vain: (database: number) => this.#vain[database] ?? 0,
      resentThrough: this.#resend?.through,
    };
    this.#sender = new Sender(env, this.#shard, this.#store, start);
    void ctx.blockConcurrencyWhile(async () => {
      this.#alarmAt = (await ctx.storage.getAlarm()) ?? undefined;
    });
  }

  /**
   * Makes events durable and unique; the answers come in their order, and only once they are on
   * disk. What arrives while a commit is being written goes into the next one together.
   */
  async append(entries: readonly Append[], context: CallContext): Promise<(AppendOutcome | Moved)[]> {
    await this.#meet(context);
    return new Promise((resolve, reject) => {
      this.#waiting.push({ entries, resolve, reject });
      if (this.#committing) return;
      this.#committing = true;
      this.#commitAll().catch((error: unknown) =>
        logError("a commit could not be undone", error, { shard: this.#shard }),
      );
    });
  }

  /**
   * Takes over what a caller knows and this log does not. Once the log has grown, it waits until all shards that its
   * keys came from have given them up. Throws when the clocks differ too much: then nobody can tell what is a day old.
   */
  async #meet(context: CallContext): Promise<void> {
    this.#check(context);
    this.#adopt(context);
    await this.#inheritance.takeOver(async (ancestor) => this.#ancestor(ancestor).handOver(this.#context()));
  }

  #check({ version, now }: CallContext): void {
    if (version !== CALL_VERSION) throw new Error("a call of another version");
    if (Math.abs(Date.now() - now) > CLOCKS_MS) {
      logError("the clocks of a caller and a log differ by minutes", "clocks_differ", { shard: this.#shard });
      throw new Error("the clocks of a caller and a log differ by minutes");
    }
    this.#agreed = Math.max(this.#agreed, now);
  }

  #adopt({ placement, shards }: Pick<CallContext, "placement" | "shards">): void {
    this.#inheritance.adopt(shards);
    if (longerOf(this.#placement, placement) === this.#placement) return;
    this.#placement = placement;
    this.ctx.storage.kv.put(PLACEMENT, placement);
  }

  #context(): CallContext {
    return {
      version: CALL_VERSION,
      placement: this.#placement,
      shards: this.#inheritance.shards,
      now: Date.now(),
    };
  }

  #ancestor(place: number): DurableObjectStub<Ancestor> {
    return objectNamed<Ancestor>(this.env, this.env.EVENT_LOG, shardName(isLiveShard(this.#shard), place));
  }

  /** Gives up the keys that are not this shard's own by the caller's history; durable when it answers. */
  handOver(context: CallContext): void {
    this.#check(context);
    this.#adopt(context);
  }

  /** Who held unique keys here last, whosever they are by now. Which of them still do is for the caller's clock to say. */
  holdersOf(keys: readonly string[]): RemoteHolder[] {
    return [...this.#store.findLast(keys)].map(([key, { received, reportDigest, keyDigest, event }]) => ({
      key,
      received,
      reportDigest,
      keyDigest,
      event: firstOf(event()),
    }));
  }

  /** Who holds unique keys in the shards that this one's keys came from; those alone that are not held here. */
  async #inherited(keys: readonly string[]): Promise<Map<string, Holder>> {
    const ancestors = this.#inheritance.ancestors(Date.now());
    if (ancestors.length === 0) return new Map();
    const now = Date.now();
    const here = this.#store.findLast(keys);
    const missing = [...new Set(keys)].filter((key) => ifFresh(here.get(key), now) === undefined);
    if (missing.length === 0) return new Map();
    const found = await Promise.all(
      ancestors.map((ancestor) => patiently(async () => this.#ancestor(ancestor).holdersOf(missing))),
    );
    // Of a key that several held, the last one holds it.
    const inOrder = found.flat().sort((a, b) => a.received - b.received);
    return new Map(inOrder.map(({ key, event, ...holder }) => [key, { ...holder, event: () => event }]));
  }

  #moved(key: string): Moved | undefined {
    return this.#inheritance.owns(key) ? undefined : { outcome: "moved", shards: this.#inheritance.shards };
  }

  /** What an append of each of these would be told if it is the retry of an accepted one; nothing for a new one. */
  async recall(inquiries: readonly Inquiry[], context: CallContext): Promise<(AppendOutcome | Moved | undefined)[]> {
    await this.#meet(context);
    const keys = inquiries.map(({ key }) => key);
    const inherited = await this.#inherited(keys);
    const now = Date.now();
    const holders = this.#store.findLast(keys);
    return inquiries.map((inquiry) => {
      const { key } = inquiry;
      return this.#moved(key) ?? recognise(inquiry, ifFresh(holders.get(key), now) ?? ifFresh(inherited.get(key), now));
    });
  }

  /**
   * Cancels an event received in the last 24 hours, once. Durable when it answers; its identifier
   * stays taken.
   */
  async cancel(request: CancelRequest, context: CallContext): Promise<CancelOutcome | Moved> {
    await this.#meet(context);
    // A cancellation is remembered for a day from when it came, which its event's shard may have to be asked for.
    const ancestors = this.#inheritance.ancestors(Date.now() - UNIQUENESS_MS);
    // A retry is looked for everywhere first: a later event of its identifier may be in another shard than its own.
    const earlier = ancestors.length === 0 ? undefined : await this.#earlierCancellation(request, ancestors);
    if (earlier !== undefined) return earlier;
    for (const ancestor of ancestors) {
      const call = async () => this.#ancestor(ancestor).cancelInherited(request, this.#context());
      const inherited = await patiently(call);
      if (!NOT_THERE.includes(inherited.outcome)) return inherited;
    }
    return this.#moved(request.key) ?? this.#cancelHere(request);
  }

  /** What an earlier attempt under the same Idempotency-Key was answered, here or by an ancestor. */
  async #earlierCancellation(request: CancelRequest, ancestors: readonly number[]): Promise<CancelOutcome | undefined> {
    const found = await Promise.all([
      this.#earlierHere(request),
      ...ancestors.map((ancestor) =>
        patiently(async () => this.#ancestor(ancestor).earlierInherited(request, this.#context())),
      ),
    ]);
    return found.find((outcome) => outcome !== undefined);
  }

  /** What this shard answered an earlier attempt at a cancellation under the same Idempotency-Key; nothing for a first one. */
  earlierInherited(request: CancelRequest, context: CallContext): CancelOutcome | undefined {
    this.#check(context);
    return this.#earlierHere(request);
  }

  #earlierHere(request: CancelRequest): CancelOutcome | undefined {
    const now = this.#store.receiptTime(Date.now());
    const retryKey = retryKeyOf(request);
    const earlier = retryKey === undefined ? undefined : this.#holderOf(retryKey, now);
    if (earlier?.cancelled === undefined) return undefined;
    return cancel(request, { earlier, holder: undefined, eventAt: (place) => this.#store.eventAt(place) }, now).outcome;
  }

  /** Likewise, of an event that this shard took when its key was this shard's. */
  cancelInherited(request: CancelRequest, context: CallContext): CancelOutcome {
    this.#check(context);
    return this.#cancelHere(request);
  }

  #cancelHere(request: CancelRequest): CancelOutcome {
    const outcome = this.#transact(() => this.#commitCancellation(request));
    if (outcome.outcome === "cancelled") this.#sender.sendSoon();
    return outcome;
  }

  /** An event by its unique key, while the log remembers it. */
  async retrieve(key: string, context: CallContext): Promise<Retrieval | Moved | undefined> {
    await this.#meet(context);
    const own = this.#moved(key) ?? this.#retrieveHere(key);
    if (own !== undefined) return own;
    for (const ancestor of this.#inheritance.ancestors(Date.now())) {
      const inherited = await patiently(async () => this.#ancestor(ancestor).retrieveInherited(key, this.#context()));
      if (inherited !== undefined) return inherited;
    }
    return undefined;
  }

  /** Likewise, of an event that this shard took when its key was this shard's. */
  retrieveInherited(key: string, context: CallContext): Retrieval | undefined {
    this.#check(context);
    return this.#retrieveHere(key);
  }

  #retrieveHere(key: string): Retrieval | undefined {
    const holder = this.#holderOf(key, Date.now());
    if (holder?.place === undefined) return undefined;
    const { event, place } = this.#store.eventAt(holder.place);
    const share = { group: holder.place.group, database: place.database };
    return {
      event,
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
    // It may have made others due sooner than they were.
    const due = this.#alarmAt === undefined ? undefined : this.#sender.nextDue();
    if (due !== undefined) this.#armAlarm(Math.max(due, now + this.#alarmDelay));
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
      bytes += group.bodies.reduce((sum, { size }) => sum + size, 0);
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

  /**
   * How far the entries have come, for readers: whatever it takes later is received no earlier than `now` says, but for
   * the differences of clocks. `isAwaited`: somebody waits for what is here, so it is sent at once.
   */
  progress(context: CallContext, isAwaited: boolean): LogProgress {
    this.#check(context);
    this.#adopt(context);
    if (isAwaited) this.#sender.sendNow();
    return {
      now: Date.now(),
      newest: this.#store.newestReceipt,
      oldestOf: this.#oldestOf(),
      shards: this.#inheritance.shards,
    };
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
      this.#armAlarm(Date.now() + this.#alarmDelay);
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
      movingUntil: this.#inheritance.movingUntil(Date.now()),
    };
  }

  /** Every group up to this id is confirmed, as far as disk or memory knows. */
  #confirmedThrough(): number {
    return Math.max(this.#store.confirmedThrough(), this.#sender.confirmedThrough);
  }

  /** Sends what is unconfirmed; called each minute for every shard, in case an alarm was lost. */
  async nudge(context: CallContext): Promise<void> {
    try {
      await this.#meet(context);
    } finally {
      // What waits is sent whatever the clocks and the other shards say.
      await this.alarm();
    }
  }

  override async alarm(): Promise<void> {
    this.#alarmAt = undefined;
    let due: number | undefined = 0;
    // A throw would end the alarm after six retries, so nothing here may throw before it is set again.
    try {
      this.#tidyUp();
      await this.#sender.send();
      due = this.#sender.nextDue();
    } catch (error) {
      logError("an alarm's work failed and will be tried again", error, { shard: this.#shard });
    }
    if (due !== undefined) this.#armAlarm(Math.max(due, Date.now() + this.#alarmDelay));
  }

  /** Failing to tidy up is no reason not to deliver. */
  #tidyUp(): void {
    try {
      this.ctx.storage.transactionSync(() => {
        // Not by this log's clock alone.
        this.#store.dropExpired(Math.min(Date.now(), this.#agreed));
        this.#store.writePartlyConfirmed(Date.now());
        this.#writeConfirmed();
        this.#writeVain();
      });
    } catch (error) {
      this.#forgetRolledBack();
      logError("expired tables were not dropped", error, { shard: this.#shard });
    }
  }

  async #commitAll(): Promise<void> {
    try {
      while (this.#waiting.length > 0) await this.#commitNext();
    } finally {
      // In the same turn as the last look at what waits, so that nothing is left waiting.
      this.#committing = false;
    }
  }

  async #commitNext(): Promise<void> {
    const calls = this.#nextCalls();
    const entries = calls.flatMap((call) => call.entries);
    const inherited = await this.#inheritedBy(calls);
    if (inherited === undefined) return;
    const now = Date.now();
    try {
      const outcomes = this.#commit(entries, inherited);
      let from = 0;
      for (const { entries: own, resolve } of calls) {
        resolve(outcomes.slice(from, from + own.length));
        from += own.length;
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

  /**
   * Who holds the keys of a commit in other shards: one call of each for all of it. When one of them does not answer,
   * the calls fail, and nothing else has happened.
   */
  async #inheritedBy(calls: readonly Waiting[]): Promise<Map<string, Holder> | undefined> {
    try {
      return await this.#inherited(calls.flatMap(({ entries }) => entries.map(({ key }) => key)));
    } catch (error) {
      for (const { reject } of calls) reject(error);
      return undefined;
    }
  }

  /** The calls of the next commit, as many as one may take. */
  #nextCalls(): Waiting[] {
    let entries = 0;
    const end = this.#waiting.findIndex((call) => {
      entries += call.entries.length;
      return entries > COMMIT_ENTRIES;
    });
    return this.#waiting.splice(0, end === -1 ? this.#waiting.length : Math.max(1, end));
  }

  /** Notes an outage, and its end. */
  #writeVain(): void {
    const vain = this.#sender.vain(Date.now());
    if (vain.every((count, database) => count === (this.#vain[database] ?? 0))) return;
    this.#vain = vain;
    this.ctx.storage.kv.put(VAIN, vain);
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
    this.#alarmAt = undefined;
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
  #commit(entries: readonly Append[], inherited: ReadonlyMap<string, Holder>): (AppendOutcome | Moved)[] {
    const now = this.#store.receiptTime(Date.now());
    const isFull = this.#store.size > settingsOf(this.env).LOG_HIGH_WATER_MB * 1_000_000;
    const here = this.#store.findLast(entries.map(({ key }) => key));
    const known = new Map<string, Holder>([...here, ...inherited]);
    for (const [key, holder] of here) if (ifFresh(holder, now) !== undefined) known.set(key, holder);
    const moved = (key: string): Moved | undefined => this.#moved(key);
    const { outcomes, events, others, rejections } = accept(entries, known, { now, isFull, moved });
    this.#writeAllOrEnd(() => {
      this.#appendGroups("rejections", rejections.map(inFirstDatabase), now);
      const placed = this.#appendGroups("events", this.#placed(events, now), now);
      this.#store.remember([
        ...placed,
        ...others.map((other) => ({ ...other, group: now * IDS_PER_MS, index: undefined })),
      ]);
    });
    return outcomes;
  }

  /**
   * What one turn writes goes to disk together. When a part of it fails, the object ends before the rest gets there, and
   * whoever waits is told nothing. `transactionSync` could take the part back, but SQLite then copies each page that the keys
   * touch, a page a key, in case it has to: that is a twentieth of what a stream's event costs.
   */
  #writeAllOrEnd(write: () => void): void {
    try {
      write();
    } catch (error) {
      logError("a commit failed halfway, and its log starts anew", error, { shard: this.#shard });
      this.ctx.abort("a commit failed halfway");
    }
  }

  /** Decides, once, which database and which slice each event belongs to. */
  #placed(events: readonly AcceptedEvent[], now: number): (PlacedEntry & AcceptedEvent)[] {
    const databases = databasesAt(this.#placement, now);
    const slice = sliceOf(now);
    return events.map(({ event, ...holder }) => ({
      ...holder,
      event,
      database: databaseOf(event.meter, event.customer, databases),
      slice,
      lane: laneOf(event.meter, event.customer),
      timestamp: event.timestamp,
      text: writeEvent(event),
    }));
  }

  /**
   * Puts entries into groups that will be sent; within the transaction of whatever they came from. Gives where each of
   * them is.
   */
  #appendGroups<E extends PlacedEntry>(kind: GroupKind, entries: readonly E[], now: number): (E & EventPlace)[] {
    if (entries.length === 0) return [];
    const databases = entries.reduce((most, { database }) => Math.max(most, database + 1), 0);
    if (databases > this.#databases) {
      this.ctx.storage.kv.put(DATABASES, databases);
      this.#databases = databases;
      this.#sender.open(databases);
    }
    const placed = cutIntoGroups(entries).flatMap((ofGroup) => {
      const group = this.#store.append(kind, ofGroup, now, this.#sender.confirmedThrough);
      this.#sender.took(group);
      return ofGroup.map((entry, index) => ({ ...entry, group: group.id, index }));
    });
    // One that is set rings soon enough, unless D1 is away.
    const soon = Date.now() + settingsOf(this.env).RESEND_AFTER_MS;
    if (this.#alarmAt === undefined || this.#alarmAt > soon) this.#armAlarm(Date.now() + this.#alarmDelay);
    return placed;
  }

  /** One transaction: check that the event can be cancelled, note it, and append its cancellation. */
  #commitCancellation(request: CancelRequest): CancelOutcome {
    const { key, id, keyDigest, requestDigest } = request;
    const now = this.#store.receiptTime(Date.now());
    // By its key a retry is known even when its event's identifier has expired, or is another event's.
    const retryKey = retryKeyOf(request);
    const earlier = retryKey === undefined ? undefined : this.#holderOf(retryKey, now);
    const holder = this.#store.findLast([key]).get(key);
    const eventAt = (place: EventPlace): Logged => this.#store.eventAt(place);
    const { outcome, stored } = cancel(request, { earlier, holder, eventAt }, now);
    if (stored === undefined || holder?.place === undefined) return outcome;
    const cancelled = { id, at: now, by: request.apiKey };
    this.#store.cancel(key, holder.place, cancelled);
    if (retryKey !== undefined) {
      const group = now * IDS_PER_MS;
      this.#store.remember([
        { key: retryKey, reportDigest: requestDigest, keyDigest, group, index: undefined, cancelled },
      ]);
    }
    const { entry, place } = stored;
    const text = writeCancellation(entry);
    this.#appendGroups(
      "cancellations",
      [{ ...place, lane: laneOf(entry.meter, entry.customer), timestamp: entry.timestamp, text }],
      now,
    );
    return outcome;
  }

  /** Who holds a unique key now; nothing when it is free. */
  #holderOf(key: string, now: number): StoredHolder | undefined {
    return ifFresh(this.#store.findLast([key]).get(key), now);
  }

  /** Has the alarm ring by then. One row, unless it is set for an earlier time. */
  #armAlarm(at: number): void {
    if (this.#alarmAt !== undefined && this.#alarmAt <= at) return;
    this.#alarmAt = at;
    void this.ctx.storage.setAlarm(at);
  }
}

/** What belongs to no customer goes where everybody finds it. */
const inFirstDatabase = (rejection: LogRejection): PlacedEntry => ({
  database: 0,
  slice: sliceOf(rejection.received),
  lane: 0,
  timestamp: rejection.received,
  text: writeRejection(rejection),
});

/** What another shard needs to know of an event. */
const firstOf = (event: ReturnType<Holder["event"]>): RemoteHolder["event"] =>
  event && { id: event.id, timestamp: event.timestamp, received: event.received };

/** What a cancellation's Idempotency-Key is remembered under, in the shard of its event. */
const retryKeyOf = ({ key, keyDigest }: CancelRequest): string | undefined =>
  keyDigest === undefined ? undefined : `cancelled:${key}:${keyDigest}`;
