import { eventsDatabase } from "../catalog/placement.ts";
import { MINUTE_MS } from "../domain/window.ts";
import { type Env, settingsOf } from "../env.ts";
import { allShards, eventLog } from "../log/shards.ts";
import { logError } from "../logger.ts";
import { auditLog } from "./audit-log.ts";
import { auditSummaries } from "./audit-summaries.ts";
import { BEGINNING, END, type Position } from "./days.ts";
import { logReach, SETTLED_MS } from "./full-audit.ts";
import { readProgress, saveProgress } from "./progress.ts";

/** How long the shards' share of a run may take (ms). What is left comes with the next run. */
const RUN_MS = 20_000;

/** How many pages of the log a run compares, of all shards. Each asks D1 up to three times, and a run may ask 1,000 times. */
const RUN_PAGES = 150;

/** Rows of events whose days' summaries are recomputed in a run. */
const SAMPLE_ROWS = 5_000;

/**
 * The auditor's share of a minute: compares what each shard of the log had confirmed since its last run
 * with what D1 holds, and recomputes the summaries of the next few closed days, so that all are looked
 * at in turn. Repairs what differs, and says so in the log. `now` in ms.
 */
export async function auditSome(env: Env, now: number): Promise<void> {
  await auditSample(env, now).catch((error: unknown) => logError("summaries were not audited", error));
  // One after the other: each holds some megabytes of events. Another one first each minute, so that a run
  // that does not come to its end leaves out none each time.
  const shards = allShards(env);
  const first = Math.floor(now / MINUTE_MS) % shards.length;
  for (const shard of [...shards.slice(first), ...shards.slice(0, first)]) {
    await auditShard(env, shard, now).catch((error: unknown) => logError("a shard was not audited", error, { shard }));
  }
}

async function auditShard(env: Env, shard: number, now: number): Promise<void> {
  const db = eventsDatabase(env);
  const shards = settingsOf(env).EVENT_LOG_SHARDS;
  const name = `log-${shard}`;
  const from = (await readProgress<number>(db, name)) ?? 0;
  // What is not confirmed yet must be compared later, so it is not passed by.
  const oldest = (await eventLog(env, shard).oldestWaiting()) ?? Number.POSITIVE_INFINITY;
  const before = Math.min(now - SETTLED_MS, oldest);
  const deadline = performance.now() + RUN_MS / shards;
  let last = from;
  let checked = 0;
  let repaired = 0;
  try {
    for (let page = 0; page < Math.ceil(RUN_PAGES / shards) && performance.now() < deadline; page++) {
      const audit = await auditLog(env, shard, last, before);
      if (audit.last === undefined) break;
      last = audit.last;
      checked += audit.checked;
      repaired += audit.missing + audit.altered;
    }
  } finally {
    // Also when a later page failed: what was found is not looked for again.
    if (last !== from) await saveProgress(db, { name, position: last, checked, repaired, now });
  }
}

async function auditSample(env: Env, now: number): Promise<void> {
  const db = eventsDatabase(env);
  const from = (await readProgress<Position>(db, "summaries")) ?? BEGINNING;
  const { days, repaired, next } = await auditSummaries(env, from, {
    rows: SAMPLE_ROWS,
    until: now,
    lessFrom: logReach(now),
  });
  const position = next === END ? BEGINNING : next;
  if (days > 0 || from !== BEGINNING) {
    await saveProgress(db, { name: "summaries", position, checked: days, repaired, now });
  }
}
