import { eventLog } from "../durable-objects/event-log-client.ts";
import type { Env } from "../env.ts";
import { logError } from "../log.ts";
import { decodeMessage, type Group } from "../metering/groups.ts";
import { eventsDatabase } from "../storage/databases.ts";
import { applyGroups } from "./apply-groups.ts";

/** Bytes of messages that one D1 transaction takes, so that it stays well under its 30 seconds. */
const TRANSACTION_CHARACTERS = 2_000_000;

/**
 * The queue consumer: applies the groups of a batch to D1, then confirms them to their logs.
 * Every message is acknowledged, also when D1 failed: the logs alone own retry, and send again what
 * was not confirmed.
 */
export async function consume(batch: MessageBatch, env: Env): Promise<void> {
  for (const groups of transactions(batch.messages.flatMap(readMessage))) {
    try {
      await applyGroups(eventsDatabase(env), groups);
    } catch (error) {
      logError("groups were not applied; their logs will send them again", error, { groups: groups.length });
      continue;
    }
    await confirm(groups, env);
  }
  batch.ackAll();
}

/** The groups of a message; none when it cannot be read, which only a log that runs other code can cause. */
function readMessage({ id, body }: Message): Group[] {
  try {
    return decodeMessage(String(body));
  } catch (error) {
    logError("a message was not read", error, { message: id });
    return [];
  }
}

function* transactions(groups: readonly Group[]): Generator<Group[]> {
  let current: Group[] = [];
  let characters = 0;
  for (const group of groups) {
    current.push(group);
    characters += group.events.length;
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
