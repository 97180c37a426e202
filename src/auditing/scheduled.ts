import { allShards, eventLog } from "../durable-objects/stubs.ts";
import type { Env } from "../env.ts";
import { logError } from "../log.ts";
import { MINUTE_MS } from "../metering/windows.ts";
import { eventsDatabase } from "../storage/databases.ts";
import { auditLog } from "./audit-log.ts";
import { auditSummaries } from "./audit-summaries.ts";
import { BEGINNING, END, type Place } from "./days.ts";
import { readProgress, saveProgress } from "./progress.ts";

/** How old a group is before it is compared (ms): by then nothing about it is under way. */
export const SETTLED_MS = 2 * MINUTE_MS;

/** How long a shard's share of a run may take (ms). What is left comes with the next run. */
const RUN_MS = 20_000;

/** Rows of events whose days' summaries are recomputed in a run. */
const SAMPLE_ROWS = 5_000;

/**
 * The auditor's share of a minute: compares what each shard of the log had confirmed since its last run
 * with what D1 holds, and recomputes the summaries of the next few closed days, so that all are looked
 * at in turn. Repairs what differs, and says so in the log. `now` in ms.
 */
export async function auditSome(env: Env, now: number): Promise<void> {
  await Promise.all([
    ...allShards(env).map((shard) =>
      auditShard(env, shard, now).catch((error: unknown) => logError("a shard was not audited", error, { shard })),
    ),
    auditSample(env, now).catch((error: unknown) => logError("summaries were not audited", error)),
  ]);
}

async function auditShard(env: Env, shard: number, now: number): Promise<void> {
  const db = eventsDatabase(env);
  const name = `log-${shard}`;
  const from = (await readProgress<number>(db, name)) ?? 0;
  // What is not confirmed yet must be compared later, so it is not passed by.
  const before = Math.min(now - SETTLED_MS, (await eventLog(env, shard).status()).oldest ?? Number.POSITIVE_INFINITY);
  let last = from;
  let checked = 0;
  let repaired = 0;
  while (Date.now() < now + RUN_MS) {
    const page = await auditLog(env, shard, last, before);
    if (page.last === undefined) break;
    last = page.last;
    checked += page.checked;
    repaired += page.missing + page.altered;
  }
  if (last !== from) await saveProgress(db, { name, position: last, checked, repaired, now });
}

async function auditSample(env: Env, now: number): Promise<void> {
  const db = eventsDatabase(env);
  const from = (await readProgress<Place>(db, "summaries")) ?? BEGINNING;
  const { days, repaired, next } = await auditSummaries(env, from, SAMPLE_ROWS, now);
  const position = next === END ? BEGINNING : next;
  if (days > 0 || from !== BEGINNING) {
    await saveProgress(db, { name: "summaries", position, checked: days, repaired, now });
  }
}
