import { DurableObject } from "cloudflare:workers";
import { orderOf, raisedAbove } from "../domain/identifiers.ts";
import { type Env, settingsOf } from "../env.ts";
import type { AppendOutcome, NewClaim, NewEntry, NewEvent } from "../log/entries.ts";
import { eventLog } from "../log/shards.ts";
import { Lock } from "./fifo-lock.ts";
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
  readonly #lock = new Lock();
  readonly #refused = new RefusedKeys();
  /** The Idempotency-Key whose request has its turn, by its digest. */
  #serving: string | undefined;
  /** The latest place in receipt order that an event got here. */
  #lastOrder = 0;

  /**
   * Appends an event to its log, when it is its turn. Its Idempotency-Key is claimed first, where it has
   * one of its caller's beside an identifier.
   */
  async record(event: NewEvent, claim: NewClaim | undefined): Promise<RecordOutcome> {
    const { keyDigest } = event;
    const turn = await this.#turnFor(keyDigest);
    if (turn === undefined) return { outcome: "busy" };
    this.#serving = keyDigest;
    try {
      const claimed = claim && (await this.#append(claim));
      return claimed === undefined || claimed.outcome === "accepted"
        ? await this.#append(this.#inOrder(event))
        : claimed;
    } finally {
      this.#serving = undefined;
      this.#lock.release(turn);
    }
  }

  /** A first attempt that meets another write is refused; a retry, known by its key, waits in line. */
  async #turnFor(keyDigest: string | undefined): Promise<number | undefined> {
    const { CONFLICT_WAIT_MS, RETRY_WAIT_MS } = settingsOf(this.env);
    const isRetry =
      keyDigest !== undefined && (keyDigest === this.#serving || this.#refused.has(keyDigest, Date.now()));
    const patience = isRetry ? RETRY_WAIT_MS : CONFLICT_WAIT_MS;
    const turn = await this.#lock.acquire(this.#lock.waiting < LONGEST_LINE ? patience : 0);
    if (keyDigest === undefined) return turn;
    if (turn === undefined) this.#refused.add(keyDigest, Date.now());
    else this.#refused.delete(keyDigest);
    return turn;
  }

  /** Events are in receipt order as they have their turns, also when the clocks of two edges differ. */
  #inOrder(event: NewEvent): NewEvent {
    const id = raisedAbove(event.id, this.#lastOrder);
    this.#lastOrder = orderOf(id);
    return { ...event, id };
  }

  async #append(entry: NewEntry): Promise<AppendOutcome> {
    const [outcome] = await eventLog(this.env, entry.shard).append([entry]);
    if (outcome === undefined) throw new Error("the log gave no answer for an entry");
    return outcome;
  }
}
