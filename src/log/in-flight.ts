/** Unconfirmed groups that may be on their way to a database at once. Past it the backlog waits in the log. */
const MAX_GROUPS = 1_000;

/** Their entries (bytes) at most: what a shard may keep a database busy with. */
const MAX_BYTES = 4_000_000;

/** What share of both the groups of a resend may take, so that new ones always find room beside them. */
const RESEND_SHARE = 0.5;

/** The longest wait between two sendings of a group (ms). */
const MAX_DELAY_MS = 10 * 60_000;

/** A confirmation may take this many times as long as the last ones did. */
const LATENCY_FACTOR = 3;

/** What is left, after each confirmation, of a latency that was higher. */
const LATENCY_DECAY = 0.99;

type Sent = {
  readonly bytes: number;
  /** Whether a resend looked back for it. */
  readonly isOld: boolean;
  attempts: number;
  sentAt: number;
  dueAt: number;
};

/** A look back at older groups: all up to `from` are confirmed, all up to `after` are on their way again or confirmed. */
type LookBack = { from: number; after: number; through: number };

/**
 * Which groups of a log are on their way to a database, and when each is due again: a bounded window over the
 * backlog, with growing delays. A resend looks back at older groups, which share the window with the
 * new ones. It lives in memory only; after a restart the log begins anew at
 * what was confirmed, and D1 ignores what it gets twice. Times in ms.
 */
export class InFlight {
  readonly #resendAfter: number;
  readonly #sent = new Map<number, Sent>();
  #bytes = 0;
  #old = { groups: 0, bytes: 0 };
  #lookBack: LookBack | undefined;
  #lastSent: number;
  /** When a group was last confirmed. */
  #confirmedAt = Number.NEGATIVE_INFINITY;
  /** How long confirmations took of late (ms): rises at once, falls slowly. */
  #latency = 0;
  /** As often groups were sent in vain before this log was last started. */
  #vain: number;

  /**
   * `confirmedThrough`: every group up to this id is confirmed. `vain`: how often groups were sent in vain of late, so
   * that a restart during an outage does not begin with short delays again.
   */
  constructor(confirmedThrough: number, resendAfter: number, vain = 0) {
    this.#lastSent = confirmedThrough;
    this.#resendAfter = resendAfter;
    this.#vain = vain;
  }

  /** How often groups were sent in vain, when nothing was confirmed for a while; 0 when something was. `now` in ms. */
  vain(now: number): number {
    if (now - this.#confirmedAt <= this.#resendAfter) return 0;
    let most = this.#vain;
    for (const { attempts } of this.#sent.values()) most = Math.max(most, attempts - 1);
    return most;
  }

  /** Groups after this id were not sent yet. */
  get lastSent(): number {
    return this.#lastSent;
  }

  /** Notes that every group up to this id was sent or is confirmed. */
  caughtUp(id: number): void {
    this.#lastSent = Math.max(this.#lastSent, id);
  }

  /** Has the groups after `from` that were sent before sent again, beside new ones; those of an earlier look back too. */
  lookBack(from: number): void {
    const before = this.#lookBack ?? { after: from, through: from };
    this.#lookBack = {
      from: Math.min(from, this.confirmedThrough),
      after: Math.min(from, before.after),
      through: Math.max(this.#lastSent, before.through),
    };
    this.#endLookBack();
  }

  /** The groups to look back at still; nothing when all of them are on their way. */
  get behind(): { readonly after: number; readonly through: number } | undefined {
    return this.#lookBack !== undefined && this.#lookBack.after < this.#lookBack.through ? this.#lookBack : undefined;
  }

  /** Whether a group that was looked back for may be unconfirmed still. */
  get isLookingBack(): boolean {
    return this.#lookBack !== undefined;
  }

  /** Notes that the look back need not look at groups up to this id any more. */
  lookedBack(id: number): void {
    if (this.#lookBack !== undefined) this.#lookBack.after = Math.max(this.#lookBack.after, id);
    this.#endLookBack();
  }

  #endLookBack(): void {
    if (this.behind === undefined && this.#old.groups === 0) this.#lookBack = undefined;
  }

  /** How often a group was sent that is on its way. */
  attemptsOf(id: number): number {
    return this.#sent.get(id)?.attempts ?? 0;
  }

  /** Whether a group is on its way. */
  has(id: number): boolean {
    return this.#sent.has(id);
  }

  /**
   * Every group up to this id is confirmed. New groups are first sent in order, so the oldest on its way
   * comes first; while old ones are looked back for, they hold it where the look back began.
   */
  get confirmedThrough(): number {
    if (this.#lookBack !== undefined) return this.#lookBack.from;
    const [oldest] = this.#sent.keys();
    return oldest === undefined ? this.#lastSent : oldest - 1;
  }

  get count(): number {
    return this.#sent.size;
  }

  /** Whether one more group may be sent for the first time. */
  hasRoom(): boolean {
    return this.#sent.size < MAX_GROUPS && this.#bytes < MAX_BYTES;
  }

  /** Whether one more group may be sent that was looked back for. */
  hasRoomForOld(): boolean {
    const { groups, bytes } = this.#old;
    return this.hasRoom() && groups < MAX_GROUPS * RESEND_SHARE && bytes < MAX_BYTES * RESEND_SHARE;
  }

  /** Notes that a group is being sent, now or again. */
  send(id: number, bytes: number, now: number): void {
    const sent = this.#sent.get(id) ?? this.#begin(id, bytes, now);
    const delay = Math.min(this.#patience() * 2 ** sent.attempts, MAX_DELAY_MS);
    sent.attempts++;
    sent.sentAt = now;
    // Spread, so that what failed together does not come back together.
    sent.dueAt = now + delay * (1 + Math.random() / 4);
  }

  #begin(id: number, bytes: number, now: number): Sent {
    const isOld = id <= (this.behind?.through ?? Number.NEGATIVE_INFINITY);
    const sent = { bytes, isOld, attempts: this.#vain, sentAt: now, dueAt: 0 };
    this.#sent.set(id, sent);
    this.#count(sent, 1);
    if (isOld) this.lookedBack(id);
    else this.#lastSent = Math.max(this.#lastSent, id);
    return sent;
  }

  #count({ bytes, isOld }: Sent, sign: 1 | -1): void {
    this.#bytes += sign * bytes;
    if (!isOld) return;
    this.#old.groups += sign;
    this.#old.bytes += sign * bytes;
  }

  /** The groups to send again now. */
  due(now: number): number[] {
    return [...this.#sent].filter(([, sent]) => sent.dueAt <= now).map(([id]) => id);
  }

  /** When the next group is due again, or nothing when none is on its way. */
  nextDue(): number | undefined {
    let next: number | undefined;
    for (const { dueAt } of this.#sent.values()) next = next === undefined ? dueAt : Math.min(next, dueAt);
    return next;
  }

  /**
   * Forgets a confirmed group. The confirmation of one that had failed, after a silence, says that
   * D1 is back: the others need not sit out delays that grew while it was away. While D1 is only
   * slow there is no silence, and what it takes to answer makes the delays longer.
   */
  confirm(id: number, now: number): void {
    const silence = now - this.#confirmedAt;
    // Also that of a group confirmed before: D1 has answered.
    this.#confirmedAt = now;
    this.#vain = 0;
    const sent = this.#sent.get(id);
    if (sent === undefined) return;
    this.#sent.delete(id);
    this.#count(sent, -1);
    this.#endLookBack();
    this.#latency = Math.max(now - sent.sentAt, this.#latency * LATENCY_DECAY);
    if (sent.attempts > 1 && silence > this.#resendAfter) this.#shortenDelays(now);
  }

  #shortenDelays(now: number): void {
    this.#latency = 0;
    for (const sent of this.#sent.values()) {
      if (sent.attempts > 1) {
        sent.attempts = 1;
        sent.sentAt = now;
        sent.dueAt = Math.min(sent.dueAt, now + this.#resendAfter);
      }
    }
  }

  /** How long a first confirmation is waited for. */
  #patience(): number {
    return Math.max(this.#resendAfter, this.#latency * LATENCY_FACTOR);
  }
}
