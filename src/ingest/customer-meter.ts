import { DurableObject } from "cloudflare:workers";
import { orderAt, placedAt, tokenOf } from "../domain/identifiers.ts";
import { type Env, settingsOf } from "../env.ts";
import { appendAll } from "../log/calls.ts";
import type { Append, AppendOutcome, ClaimAppend, EventAppend, LogContext } from "../log/entries.ts";
import { FifoLock } from "./fifo-lock.ts";
import { RefusedKeys } from "./refused-keys.ts";

/** Writes that wait for their turn at most; the next one is refused at once. */
const LONGEST_LINE = 100;

/** What became of a write; `busy` when another one to this customer and meter was under way. */
export type RecordOutcome = AppendOutcome | { readonly outcome: "busy" };

/**
 * One customer on one meter: its writes happen one at a time. It stores nothing, so it costs
 * nothing at rest and may crash at will. The lock is the API's courtesy to callers; that an event
 * counts once rests on the log alone, since the platform may briefly run two of these.
 */
export class CustomerMeter extends DurableObject<Env> {
  readonly #lock = new FifoLock();
  readonly #refused = new RefusedKeys();
  /** The turn that is had, and by which event. */
  #serving: { readonly turn: number; readonly event: EventAppend } | undefined;
  /** The latest place in receipt order that an event got here. */
  #lastOrder = 0;

  /**
   * Appends an event to its log, when it is its turn. Its Idempotency-Key is claimed first, where it has
   * one of its caller's beside an identifier.
   */
  async record(event: EventAppend, claim: ClaimAppend | undefined, log: LogContext): Promise<RecordOutcome> {
    const turn = await this.#turnFor(event);
    if (turn === undefined) return { outcome: "busy" };
    this.#serving = { turn, event };
    try {
      const claimed = claim && (await this.#append(claim, log));
      return claimed === undefined || claimed.outcome === "accepted"
        ? await this.#append(this.#inOrder(event), log)
        : claimed;
    } finally {
      // The lease of this turn may have run out, and another event may have its turn by now.
      if (this.#serving.turn === turn) this.#serving = undefined;
      this.#lock.release(turn);
    }
  }

  /** A first attempt that meets another write is refused; a retry waits in line. */
  async #turnFor(event: EventAppend): Promise<number | undefined> {
    const { CONFLICT_WAIT_MS, RETRY_WAIT_MS } = settingsOf(this.env);
    const patience = this.#isRetry(event) ? RETRY_WAIT_MS : CONFLICT_WAIT_MS;
    const turn = await this.#lock.acquire(this.#lock.waiting < LONGEST_LINE ? patience : 0);
    if (turn === undefined && event.keyDigest !== undefined) this.#refused.add(event.keyDigest, Date.now());
    return turn;
  }

  /** Whether an event was refused a moment ago or has its turn now, by its Idempotency-Key; or the platform repeats a call. */
  #isRetry({ id, keyDigest }: EventAppend): boolean {
    const served = this.#serving?.event;
    if (served !== undefined && tokenOf(served.id) === tokenOf(id)) return true;
    return keyDigest !== undefined && (keyDigest === served?.keyDigest || this.#refused.has(keyDigest, Date.now()));
  }

  /**
   * Events are in receipt order as they have their turns: this object's clock gives their places, not those of
   * the edges that they came through.
   */
  #inOrder(event: EventAppend): EventAppend {
    this.#lastOrder = Math.max(orderAt(Date.now()), this.#lastOrder + 1);
    return { ...event, id: placedAt(this.#lastOrder, event.id) };
  }

  async #append(entry: Append, log: LogContext): Promise<AppendOutcome> {
    const outcome = (await appendAll(this.env, log, [entry])).get(entry);
    if (outcome === undefined) throw new Error("the log gave no answer for an entry");
    return outcome;
  }
}
