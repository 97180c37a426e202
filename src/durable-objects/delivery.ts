/** Unconfirmed groups that may be on their way at once. Past it the backlog waits in the log. */
const MAX_GROUPS = 1_000;

/** Their events (UTF-16 units) at most: what a shard may keep D1 busy with. */
const MAX_CHARACTERS = 4_000_000;

/** The longest wait between two sendings of a group (ms). */
const MAX_DELAY_MS = 10 * 60_000;

/** A confirmation may take this many times as long as the last ones did. */
const LATENCY_FACTOR = 3;

/** What is left, after each confirmation, of a latency that was higher. */
const LATENCY_DECAY = 0.99;

type Sent = { readonly characters: number; attempts: number; sentAt: number; dueAt: number };

/**
 * Which groups of a log are on their way, and when each is due again: a bounded window over the
 * backlog, with growing delays. It lives in memory only; after a restart the log begins anew at
 * what was confirmed, and D1 ignores what it gets twice. Times in ms.
 */
export class Delivery {
  readonly #resendAfter: number;
  readonly #sent = new Map<number, Sent>();
  #characters = 0;
  #lastSent: number;
  /** When a group was last confirmed. */
  #confirmedAt = Number.NEGATIVE_INFINITY;
  /** How long confirmations took of late (ms): rises at once, falls slowly. */
  #latency = 0;

  /** `confirmedThrough`: every group up to this id is confirmed. */
  constructor(confirmedThrough: number, resendAfter: number) {
    this.#lastSent = confirmedThrough;
    this.#resendAfter = resendAfter;
  }

  /** Groups after this id were not sent yet. */
  get lastSent(): number {
    return this.#lastSent;
  }

  /** Notes that every group up to this id was sent or is confirmed. */
  caughtUp(id: number): void {
    this.#lastSent = Math.max(this.#lastSent, id);
  }

  /** Every group up to this id is confirmed. Groups are first sent in order, so the oldest on its way comes first. */
  get confirmedThrough(): number {
    const [oldest] = this.#sent.keys();
    return oldest === undefined ? this.#lastSent : oldest - 1;
  }

  get inFlight(): number {
    return this.#sent.size;
  }

  /** Whether one more group may be sent for the first time. */
  hasRoom(): boolean {
    return this.#sent.size < MAX_GROUPS && this.#characters < MAX_CHARACTERS;
  }

  /** Notes that a group is being sent, now or again. */
  send(id: number, characters: number, now: number): void {
    let sent = this.#sent.get(id);
    if (sent === undefined) {
      sent = { characters, attempts: 0, sentAt: now, dueAt: 0 };
      this.#sent.set(id, sent);
      this.#characters += characters;
      this.#lastSent = Math.max(this.#lastSent, id);
    }
    const delay = Math.min(this.#patience() * 2 ** sent.attempts, MAX_DELAY_MS);
    sent.attempts++;
    sent.sentAt = now;
    // Spread, so that what failed together does not come back together.
    sent.dueAt = now + delay * (1 + Math.random() / 4);
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
    const sent = this.#sent.get(id);
    if (sent === undefined) return;
    this.#sent.delete(id);
    this.#characters -= sent.characters;
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
