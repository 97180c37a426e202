import { eventsDatabase } from "../catalog/placement.ts";
import type { Env } from "../env.ts";
import { decodeMessage, type Group } from "../log/groups.ts";
import { eventLog } from "../log/shards.ts";
import { logError } from "../logger.ts";
import { applyGroups, isAboutData } from "./apply.ts";
import { applyOrPark } from "./poison.ts";

/** Events (UTF-16 units of their JSON) that one D1 transaction takes, so that it stays well under its 30 seconds. */
const TRANSACTION_CHARACTERS = 2_000_000;

/**
 * The queue consumer: applies the groups of a batch to D1, then confirms them to their logs.
 * Every message is acknowledged, also when D1 failed: the logs alone own retry, and send again what
 * was not confirmed.
 */
export async function consume(batch: MessageBatch, env: Env): Promise<void> {
  for (const groups of transactions(batch.messages.flatMap(readMessage))) await applyAndConfirm(groups, env);
  batch.ackAll();
}

async function applyAndConfirm(groups: readonly Group[], env: Env): Promise<void> {
  const db = eventsDatabase(env);
  const now = Date.now();
  try {
    await applyGroups(db, groups, now);
  } catch (error) {
    const [first, ...others] = groups;
    if (first === undefined || !isAboutData(error)) {
      logError("groups were not applied; their logs will send them again", error, {
        groups: groups.length,
        first: `${first?.shard}:${first?.id}`,
      });
    } else if (others.length > 0) {
      // One group's data must not hold up the others.
      const middle = Math.ceil(groups.length / 2);
      await applyAndConfirm(groups.slice(0, middle), env);
      await applyAndConfirm(groups.slice(middle), env);
    } else if (await takeApart(db, first, now)) {
      await confirm(groups, env);
    }
    return;
  }
  await confirm(groups, env);
}

/** Stores what D1 takes of a group that it refuses, and parks the rest; whether nothing is left to do. */
async function takeApart(db: D1Database, group: Group, now: number): Promise<boolean> {
  const where = { shard: group.shard, group: group.id };
  try {
    const parked = await applyOrPark(db, group, now);
    for (const { id, reason } of parked) logError("an entry was parked as a dead letter", reason, { ...where, id });
    return true;
  } catch (error) {
    logError("a group that D1 refuses was not taken apart; its log will send it again", error, where);
    return false;
  }
}

/** The groups of a message; none when it cannot be read, which only a log that runs other code can cause. */
function readMessage({ id, body }: Message): Group[] {
  try {
    return decodeMessage(String(body));
  } catch (error) {
    logError("a message was not read", error, { queueMessage: id });
    return [];
  }
}

function* transactions(groups: readonly Group[]): Generator<Group[]> {
  let current: Group[] = [];
  let characters = 0;
  for (const group of groups) {
    current.push(group);
    characters += group.entries.length;
    if (characters >= TRANSACTION_CHARACTERS) {
      yield current;
      current = [];
      characters = 0;
    }
  }
  if (current.length > 0) yield current;
}

/** Tells each log which of its groups are stored. A log that does not hear it sends them again. */
async function confirm(groups: readonly Group[], env: Env): Promise<void> {
  const byShard = Map.groupBy(groups, (group) => group.shard);
  await Promise.all(
    [...byShard].map(async ([shard, stored]) => {
      try {
        await eventLog(env, shard).confirm(stored.map((group) => group.id));
      } catch (error) {
        logError("groups were not confirmed", error, { shard, groups: stored.length });
      }
    }),
  );
}
