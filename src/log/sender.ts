import { type Env, settingsOf } from "../env.ts";
import { logError } from "../logger.ts";
import { withTimeout } from "../timeout.ts";
import type { ShareName } from "./entries.ts";
import { countOf, type Group, type Share, shareOf } from "./groups.ts";
import { InFlight } from "./in-flight.ts";
import { encodeMessage, MESSAGE_BYTES, MESSAGE_HEADER_BYTES, MESSAGE_INFLATED_BYTES, sizeOf } from "./message.ts";
import type { Partitions } from "./partitions.ts";
import { isLiveShard } from "./shard-name.ts";
import { Throttle } from "./throttle.ts";

/** Messages that one sendBatch takes: the queue allows 256 KB. */
const MESSAGES_PER_SEND = 2;

/** How long a send to the queue may take (ms); what it carried is due again anyway. */
const SEND_TIMEOUT_MS = 20_000;

/** A share that was sent so often in vain is applied by itself from then on. */
const ALONE_AFTER = 2;

/** Where to begin: `databases` are those that ever had a share. */
type SenderStart = {
  readonly databases: number;
  /** Every group up to this id is confirmed by a database. */
  readonly confirmedThrough: (database: number) => number;
  /** How often a database's shares were sent in vain of late. */
  readonly vain: (database: number) => number;
  /** The last group of a resend that was under way when this log was last ended. */
  readonly resentThrough: number | undefined;
};

/**
 * Sends a log's groups to the aggregator, in messages of many, again and again until D1 has confirmed them. Each
 * database has a window of its own, so that one that does not answer delays no other.
 */
export class Sender {
  readonly #env: Env;
  readonly #shard: string;
  readonly #store: Partitions;
  readonly #windows: InFlight[] = [];
  readonly #throttle: Throttle;
  #timer: { readonly id: ReturnType<typeof setTimeout>; readonly at: number } | undefined;
  #sending = false;
  #resent = 0;

  constructor(env: Env, shard: string, store: Partitions, start: SenderStart) {
    const { databases, confirmedThrough, vain, resentThrough } = start;
    this.#env = env;
    this.#shard = shard;
    this.#store = store;
    this.#throttle = new Throttle(settingsOf(env).SEND_INTERVAL_MS, MESSAGE_BYTES);
    for (let database = 0; database < databases; database++) {
      this.#windows.push(this.#windowFrom(resentThrough ?? confirmedThrough(database), vain(database)));
    }
    if (resentThrough !== undefined) this.#lookBack(confirmedThrough);
  }

  #windowFrom(confirmedThrough: number, vain = 0): InFlight {
    return new InFlight(confirmedThrough, settingsOf(this.#env).RESEND_AFTER_MS, vain);
  }

  /** How many databases have shares. */
  get databases(): number {
    return this.#windows.length;
  }

  /** Opens windows for databases up to this number, before the first share of them is appended. */
  open(databases: number): void {
    while (this.#windows.length < databases) this.#windows.push(this.#windowFrom(this.#store.lastGroupId));
  }

  /** Every group up to this id is confirmed. */
  get confirmedThrough(): number {
    return this.#windows.reduce(
      (least, window) => Math.min(least, window.confirmedThrough),
      this.#windows.length === 0 ? 0 : Number.POSITIVE_INFINITY,
    );
  }

  /** The same, as far as one database is concerned. */
  confirmedThroughOf(database: number): number {
    return this.#windows[database]?.confirmedThrough ?? 0;
  }

  /** Shares that are on their way. */
  get inFlight(): number {
    return this.#windows.reduce((sum, window) => sum + window.count, 0);
  }

  /** Shares that were sent a second time or more since this log was started. */
  get resent(): number {
    return this.#resent;
  }

  /** How often each database's shares were sent in vain of late: an outage of it. `now` in ms. */
  vain(now: number): number[] {
    return this.#windows.map((window) => window.vain(now));
  }

  /** When there is something to send next (ms; 0 is at once); nothing when all is confirmed. */
  nextDue(): number | undefined {
    if (this.#backlogWaits()) return 0;
    const due = this.#windows.flatMap((window) => window.nextDue() ?? []);
    return due.length === 0 ? undefined : Math.min(...due);
  }

  /** The last group that was sent to any database, or is confirmed. */
  get lastSent(): number {
    return this.#windows.reduce((last, window) => Math.max(last, window.lastSent), 0);
  }

  /** Whether a group that was looked back for may be unconfirmed still. */
  get isLookingBack(): boolean {
    return this.#windows.some((window) => window.isLookingBack);
  }

  /**
   * Sends the unconfirmed groups after `from`, an id for each database, again beside new ones: after the store took
   * confirmations back.
   */
  lookBack(from: (database: number) => number): void {
    this.#lookBack(from);
    this.sendSoon();
  }

  #lookBack(from: (database: number) => number): void {
    for (const [database, window] of this.#windows.entries()) window.lookBack(from(database));
  }

  /** Forgets shares that D1 has; what they kept waiting follows. */
  confirm(shares: readonly ShareName[], now: number): void {
    for (const { group, database } of shares) this.#windows[database]?.confirm(group, now);
    if (this.#backlogWaits()) this.sendSoon();
  }

  /** Notes a group that was appended, which `sendSoon` will send. */
  took({ bodies }: Pick<Group, "bodies">): void {
    this.#throttle.took(
      countOf(bodies),
      bodies.reduce((sum, body) => sum + sizeOf(body), 0),
    );
  }

  /** Sends when the throttle lets it, so that a message carries many groups of a busy shard. */
  sendSoon(): void {
    if (this.#sending) return;
    const now = Date.now();
    const at = this.#throttle.next(now);
    if (this.#timer !== undefined && this.#timer.at <= at) return;
    clearTimeout(this.#timer?.id);
    this.#timer = { id: setTimeout(() => this.sendNow(), at - now), at };
  }

  /** Sends whatever the throttle says; what comes while it is sending waits for its turn. */
  sendNow(): void {
    clearTimeout(this.#timer?.id);
    this.#timer = undefined;
    if (this.#sending) return;
    this.#throttle.sends(Date.now());
    this.send().catch((error: unknown) =>
      logError("groups were not sent; the alarm will", error, { shard: this.#shard }),
    );
  }

  /** Sends the shares that are due again, then new ones while their database's window has room, then those of a look back. */
  async send(): Promise<void> {
    if (this.#sending) return;
    this.#sending = true;
    const queue = isLiveShard(this.#shard) ? this.#env.EVENT_QUEUE : this.#env.TEST_EVENT_QUEUE;
    try {
      let messages: Share[][];
      do {
        messages = this.#nextMessages(Date.now());
        if (messages.length === 0) return;
        const bodies = messages.map((shares) => ({ body: encodeMessage(shares), contentType: "bytes" as const }));
        await withTimeout(queue.sendBatch(bodies), SEND_TIMEOUT_MS);
        // Less than that was all there was. What came meanwhile waits for its turn.
      } while (messages.length === MESSAGES_PER_SEND);
    } finally {
      this.#sending = false;
    }
    if (this.#backlogWaits()) this.sendSoon();
  }

  /** The next shares to send, packed into messages. */
  #nextMessages(now: number): Share[][] {
    const messages: Share[][] = [];
    let bytes = MESSAGE_BYTES;
    let inflated = 0;
    for (const [database, window] of this.#windows.entries()) {
      for (const { group, again } of this.#nextGroups(now, database, window)) {
        const share = shareOf(this.#shard, group, database, window.attemptsOf(group.id) >= ALONE_AFTER);
        if (share === undefined) continue;
        const size = sizeOf(share);
        if (bytes + size > MESSAGE_BYTES || inflated + share.size > MESSAGE_INFLATED_BYTES) {
          if (messages.length === MESSAGES_PER_SEND) return messages;
          messages.push([]);
          bytes = MESSAGE_HEADER_BYTES;
          inflated = 0;
        }
        messages.at(-1)?.push(share);
        window.send(group.id, share.size, now);
        if (again) this.#resent++;
        bytes += size;
        inflated += share.size;
      }
    }
    return messages;
  }

  *#nextGroups(now: number, database: number, window: InFlight): Generator<{ group: Group; again: boolean }> {
    for (const id of window.due(now)) {
      const group = this.#store.read(id);
      if (group !== undefined) yield { group, again: true };
    }
    for (const group of this.#store.unconfirmedAfter(window.lastSent, database)) {
      if (!window.hasRoom()) return;
      yield { group, again: false };
    }
    // So that confirmed groups, and those of other databases, are not looked through once more.
    window.caughtUp(this.#store.lastGroupId);
    yield* this.#oldGroups(database, window);
  }

  *#oldGroups(database: number, window: InFlight): Generator<{ group: Group; again: boolean }> {
    const { behind } = window;
    if (behind === undefined) return;
    const { after, through } = behind;
    for (const group of this.#store.unconfirmedAfter(after, database)) {
      if (group.id > through) break;
      if (!window.hasRoomForOld()) return;
      if (window.has(group.id)) window.lookedBack(group.id);
      else yield { group, again: true };
    }
    window.lookedBack(through);
  }

  #backlogWaits(): boolean {
    return this.#windows.some((window, database) => {
      if (window.behind !== undefined && window.hasRoomForOld()) return true;
      return window.hasRoom() && this.#store.oldestAfter(window.lastSent, database) !== undefined;
    });
  }
}
