import { eventLog } from "../durable-objects/stubs.ts";
import type { Env } from "../env.ts";
import { logError } from "../log.ts";
import { decodeMessage, type Group } from "../metering/groups.ts";
import { eventsDatabase } from "../storage/databases.ts";
import { applyGroups } from "./apply-groups.ts";

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
  try {
    await applyGroups(eventsDatabase(env), groups, Date.now());
  } catch (error) {
    if (groups.length > 1 && isAboutData(error)) {
      // One group's data must not hold up the others.
      for (const group of groups) await applyAndConfirm([group], env);
      return;
    }
    const first = groups[0];
    logError("groups were not applied; their logs will send them again", error, {
      groups: groups.length,
      first: `${first?.shard}:${first?.id}`,
    });
    return;
  }
  await confirm(groups, env);
}

/** Whether D1 refused what it was given, rather than failed: trying the same again would end the same. */
const isAboutData = (error: unknown): boolean =>
  /constraint|malformed JSON|overflow|too big|datatype mismatch/i.test(error instanceof Error ? error.message : "");

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
