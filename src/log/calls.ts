// How the edge calls the log: each call goes to the shard that its key belongs to, and says what the edge knows.
import { longerShards, ownerOf } from "../domain/shards.ts";
import type { Env } from "../env.ts";
import {
  type Append,
  type AppendOutcome,
  CALL_VERSION,
  type CallContext,
  type CancelOutcome,
  type CancelRequest,
  type Inquiry,
  type LogContext,
  type Moved,
  type Retrieval,
} from "./entries.ts";
import type { EventLog } from "./event-log.ts";
import { shardName } from "./shard-name.ts";
import { eventLog } from "./shards.ts";

/** How often a key may turn out to have moved on, while a log grows. */
const MOVES = 5;

/** What goes with a call to one shard. */
export const contextOf = ({ placement, shards }: LogContext): CallContext => ({
  version: CALL_VERSION,
  placement,
  shards,
  now: Date.now(),
});

type Answer<A> = A | Moved;

/**
 * Asks each shard once about all that is its own, and again elsewhere about what has moved. The answers by what was
 * asked. Throws when a log does not answer.
 */
async function ask<E extends { readonly key: string }, A extends object | undefined>(
  env: Env,
  context: LogContext,
  entries: readonly E[],
  call: (
    log: DurableObjectStub<EventLog>,
    entries: readonly E[],
    context: CallContext,
  ) => Promise<readonly Answer<A>[]>,
): Promise<Map<E, A>> {
  const answers = new Map<E, A>();
  let left = entries;
  let known = context;
  for (let move = 0; left.length > 0; move++) {
    if (move > MOVES) throw new Error("a key moved on again and again");
    const { shards } = known;
    const byShard = Map.groupBy(left, ({ key }) => ownerOf(key, shards));
    const moved: E[] = [];
    await Promise.all(
      [...byShard].map(async ([place, ofShard]) => {
        const log = eventLog(env, shardName(context.livemode, place));
        const outcomes = await call(log, ofShard, contextOf(known));
        if (outcomes.length !== ofShard.length) throw new Error("the log did not answer for every entry");
        for (const [position, entry] of ofShard.entries()) {
          const outcome = outcomes[position] as Answer<A>;
          if (!isMoved(outcome)) answers.set(entry, outcome);
          else {
            moved.push(entry);
            known = { ...known, shards: longerShards(known.shards, outcome.shards) };
          }
        }
      }),
    );
    left = moved;
  }
  return answers;
}

const isMoved = (outcome: object | undefined): outcome is Moved =>
  outcome !== undefined && "outcome" in outcome && outcome.outcome === "moved";

/** Appends entries; what came of each. Throws when a log does not answer. */
export const appendAll = <E extends Append>(
  env: Env,
  context: LogContext,
  entries: readonly E[],
): Promise<Map<E, AppendOutcome>> =>
  ask<E, AppendOutcome>(env, context, entries, (log, ofShard, call) => log.append(ofShard, call));

/** What an append of each of these would be told if it is the retry of an accepted one; nothing for a new one. */
export const recallAll = <E extends Inquiry>(
  env: Env,
  context: LogContext,
  inquiries: readonly E[],
): Promise<Map<E, AppendOutcome | undefined>> =>
  ask<E, AppendOutcome | undefined>(env, context, inquiries, (log, ofShard, call) => log.recall(ofShard, call));

/** Cancels an event. Throws when its log does not answer. */
export async function cancelIn(env: Env, context: LogContext, request: CancelRequest): Promise<CancelOutcome> {
  const outcomes = await ask<CancelRequest, CancelOutcome>(env, context, [request], async (log, _, call) => [
    await log.cancel(request, call),
  ]);
  const outcome = outcomes.get(request);
  if (outcome === undefined) throw new Error("the log gave no answer to a cancellation");
  return outcome;
}

/** An event by its unique key, while its log remembers it. */
export async function retrieveFrom(env: Env, context: LogContext, key: string): Promise<Retrieval | undefined> {
  const asked = { key };
  const found = await ask<typeof asked, Retrieval | undefined>(env, context, [asked], async (log, _, call) => [
    await log.retrieve(key, call),
  ]);
  return found.get(asked);
}
