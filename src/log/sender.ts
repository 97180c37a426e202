import { type Env, settingsOf } from "../env.ts";
import { logError } from "../logger.ts";
import { withTimeout } from "../timeout.ts";
import { encodeMessage, type Group, HEADER_BYTES, MESSAGE_BYTES } from "./groups.ts";
import { InFlight } from "./in-flight.ts";
import type { Partitions, StoredGroup } from "./partitions.ts";

/** Messages that one sendBatch takes: the queue allows 256 KB. */
const MESSAGES_PER_SEND = 2;

/** How long a send to the queue may take (ms); what it carried is due again anyway. */
const SEND_TIMEOUT_MS = 30_000;

/** Sends a log's groups to the aggregator, in messages of many, again and again until D1 has confirmed them. */
export class Sender {
  readonly #env: Env;
  readonly #shard: number;
  readonly #store: Partitions;
  readonly #inFlight: InFlight;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #sending = false;
  #resent = 0;

  /** `resentThrough`: the last group of a resend that was under way when this log was last ended. */
  constructor(env: Env, shard: number, store: Partitions, resentThrough: number | undefined) {
    this.#env = env;
    this.#shard = shard;
    this.#store = store;
    const confirmedThrough = store.confirmedThrough();
    this.#inFlight = new InFlight(resentThrough ?? confirmedThrough, settingsOf(env).RESEND_AFTER_MS);
    if (resentThrough !== undefined) this.#inFlight.lookBack(confirmedThrough);
  }

  /** Every group up to this id is confirmed. */
  get confirmedThrough(): number {
    return this.#inFlight.confirmedThrough;
  }

  /** Groups that are on their way. */
  get inFlight(): number {
    return this.#inFlight.count;
  }

  /** Groups that were sent a second time or more since this log was started. */
  get resent(): number {
    return this.#resent;
  }

  /** When there is something to send next (ms; 0 is at once); nothing when all is confirmed. */
  nextDue(): number | undefined {
    return this.#backlogWaits() ? 0 : this.#inFlight.nextDue();
  }

  /** The last group that was sent, or is confirmed. */
  get lastSent(): number {
    return this.#inFlight.lastSent;
  }

  /** Whether a group that was looked back for may be unconfirmed still. */
  get isLookingBack(): boolean {
    return this.#inFlight.isLookingBack;
  }

  /** Sends the unconfirmed groups after this one again, beside new ones, after the store took confirmations back. */
  lookBack(from: number): void {
    this.#inFlight.lookBack(from);
    this.sendSoon();
  }

  /** Forgets groups that D1 has; what they kept waiting follows. */
  confirm(ids: readonly number[], now: number): void {
    for (const id of ids) this.#inFlight.confirm(id, now);
    if (this.#backlogWaits()) this.sendSoon();
  }

  /** Sends after a short while, so that a message carries many groups. */
  sendSoon(): void {
    if (this.#timer !== undefined || this.#sending) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.send().catch((error: unknown) =>
        logError("groups were not sent; the alarm will", error, { shard: this.#shard }),
      );
    }, settingsOf(this.#env).SEND_DELAY_MS);
  }

  /** Sends the groups that are due again, then new ones while the window has room, then those of a look back. */
  async send(): Promise<void> {
    if (this.#sending) return;
    this.#sending = true;
    try {
      for (;;) {
        const messages = this.#nextMessages(Date.now());
        if (messages.length === 0) return;
        const bodies = messages.map((groups) => ({ body: encodeMessage(groups), contentType: "text" as const }));
        await withTimeout(this.#env.EVENT_QUEUE.sendBatch(bodies), SEND_TIMEOUT_MS);
      }
    } finally {
      this.#sending = false;
    }
  }

  /** The next groups to send, packed into messages. */
  #nextMessages(now: number): Group[][] {
    const messages: Group[][] = [];
    let bytes = MESSAGE_BYTES;
    for (const { group, again } of this.#nextGroups(now)) {
      const size = Buffer.byteLength(group.entries) + HEADER_BYTES;
      if (bytes + size > MESSAGE_BYTES) {
        if (messages.length === MESSAGES_PER_SEND) break;
        messages.push([]);
        bytes = 0;
      }
      messages.at(-1)?.push({ shard: this.#shard, ...group });
      this.#inFlight.send(group.id, group.entries.length, now);
      if (again) this.#resent++;
      bytes += size;
    }
    return messages;
  }

  *#nextGroups(now: number): Generator<{ group: StoredGroup; again: boolean }> {
    for (const id of this.#inFlight.due(now)) {
      const group = this.#store.read(id);
      if (group !== undefined) yield { group, again: true };
    }
    for (const group of this.#store.unconfirmedAfter(this.#inFlight.lastSent)) {
      if (!this.#inFlight.hasRoom()) return;
      yield { group, again: false };
    }
    // So that confirmed groups are not looked through once more.
    this.#inFlight.caughtUp(this.#store.lastGroupId);
    yield* this.#oldGroups();
  }

  *#oldGroups(): Generator<{ group: StoredGroup; again: boolean }> {
    const { behind } = this.#inFlight;
    if (behind === undefined) return;
    const { after, through } = behind;
    for (const group of this.#store.unconfirmedAfter(after)) {
      if (group.id > through) break;
      if (!this.#inFlight.hasRoomForOld()) return;
      if (this.#inFlight.has(group.id)) this.#inFlight.lookedBack(group.id);
      else yield { group, again: true };
    }
    this.#inFlight.lookedBack(through);
  }

  #backlogWaits(): boolean {
    if (this.#inFlight.behind !== undefined && this.#inFlight.hasRoomForOld()) return true;
    return this.#inFlight.hasRoom() && this.#store.hasUnconfirmedAfter(this.#inFlight.lastSent);
  }
}
