import { DurableObject } from "cloudflare:workers";
import { type Env, settingsOf } from "../env.ts";
import { Lock } from "./lock.ts";
import type { AppendOutcome, NewEvent } from "./log-entries.ts";
import { eventLog } from "./stubs.ts";

/** What became of a write; `busy` when another one to this customer and meter was under way. */
export type RecordOutcome = AppendOutcome | { readonly outcome: "busy" };

/**
 * One customer on one meter: its writes happen one at a time. It stores nothing, so it costs
 * nothing at rest and may crash at will. The lock is the API's courtesy to callers; that an event
 * counts once rests on the log alone, since the platform may briefly run two of these.
 */
export class CustomerMeter extends DurableObject<Env> {
  readonly #lock = new Lock();

  /** Appends an event to its log, when it is its turn. */
  async record(event: NewEvent): Promise<RecordOutcome> {
    const turn = await this.#lock.acquire(settingsOf(this.env).CONFLICT_WAIT_MS);
    if (turn === undefined) return { outcome: "busy" };
    try {
      const [outcome] = await eventLog(this.env, event.shard).append([event]);
      if (outcome === undefined) throw new Error("the log gave no answer for an event");
      return outcome;
    } finally {
      this.#lock.release(turn);
    }
  }
}
