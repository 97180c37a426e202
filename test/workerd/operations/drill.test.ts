// The drill, `npm run drill`: a database with an archive is lost, and brought back with the operator's own commands.
import { env } from "cloudflare:workers";
import fc from "fast-check";
import { expect, inject, it } from "vitest";
import { auditArchive } from "../../../scripts/operate/audit-archive.ts";
import { resend } from "../../../scripts/operate/resend.ts";
import { restore } from "../../../scripts/operate/restore.ts";
import { table } from "../../../scripts/table.ts";
import type { Meter } from "../../../src/domain/meter.ts";
import { DAY_MS, HOUR_MS, receiptOf, SECOND_MS, sliceOf } from "../../../src/domain/window.ts";
import type { LogEntry } from "../../../src/log/codec.ts";
import { eventLog } from "../../../src/log/shards.ts";
import { anEntryOf, archivedDays, CLIENT, usageIn } from "../archive/restore-support.ts";
import { archive, cancel, empty, loseDatabase, statesOf, store } from "../archive/support.ts";
import { aStoredMeter, holdQueueAndClock, settle, tenEvents } from "../audit/audit-support.ts";
import { FUTURE } from "../support.ts";

const db = env.EVENTS_0;

/** Three slices that are in the archive alone by now, and two that have their tables still. */
const SLICES = [40, 39.5, 39, 5, 4.5].map((days) => sliceOf(FUTURE - days * DAY_MS));

const EVENTS = 1_000;

holdQueueAndClock();

/** A thousand events of twenty customers, drawn from the run's seed: one in five is late, one in ten cancelled. */
function drawnUsage(meters: readonly Meter[]): { entries: LogEntry[]; cancelled: LogEntry[] } {
  const usage = fc.record({
    meter: fc.constantFrom(...meters),
    slice: fc.constantFrom(...SLICES),
    second: fc.integer({ min: 0, max: (12 * HOUR_MS) / SECOND_MS - 1 }),
    late: fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, fc.integer({ min: HOUR_MS, max: 3 * DAY_MS })),
    customer: fc.integer({ min: 1, max: 20 }),
    value: fc.integer({ min: 1, max: 1_000_000 }),
    isCancelled: fc.oneof({ weight: 9, arbitrary: fc.constant(false) }, fc.constant(true)),
  });
  const drawn = fc.sample(usage, { seed: inject("seed"), numRuns: EVENTS }).map(({ isCancelled, ...each }) => {
    const received = receiptOf(each.slice).start + each.second * SECOND_MS;
    const changes = { customer: `cus_${each.customer}`, value: each.value, timestamp: received - each.late };
    return { isCancelled, entry: anEntryOf(each.meter, received, changes) };
  });
  return {
    entries: drawn.map(({ entry }) => entry),
    cancelled: drawn.filter(({ isCancelled }) => isCancelled).map(({ entry }) => entry),
  };
}

it("brings back all that a lost database had", async () => {
  await empty(db);
  const meters: Meter[] = [];
  for (const changes of [{}, { formula: "last" }, { eventTimeWindow: "hour" }] as const) {
    meters.push(await aStoredMeter({ livemode: true, ...changes }));
  }
  const { entries, cancelled } = drawnUsage(meters);
  await store(db, entries);
  await cancel(db, cancelled);
  await archive();
  const log = eventLog(env, "live-3");
  const [sum] = meters;
  if (sum === undefined) throw new Error("no meter");
  await tenEvents(sum, { shard: "live-3", log });

  const rows: string[][] = [["", "events", "sums", "survivors", "slices with tables", "in the archive alone"]];
  const look = async (when: string) => {
    const usage = await usageIn(db);
    const states = await statesOf(db);
    const archived = states.filter(({ state }) => state === "archived").length;
    const counts = [usage.events.length, usage.sums.length, usage.survivors.length, states.length - archived, archived];
    rows.push([when, ...counts.map(String)]);
    return usage;
  };
  const before = await look("before");
  expect(before.events).toHaveLength(EVENTS + 10);
  await loseDatabase(db);
  await look("after the loss");

  const said: string[] = [];
  const say = (line: string) => void said.push(line);
  await resend(CLIENT, {}, say);
  await settle(log);
  await look("npm run resend");
  await restore(CLIENT, { day: await archivedDays() }, say);
  const after = await look("npm run restore");
  const isRight = await auditArchive(CLIENT, await archivedDays(), say);
  console.log(`\n${table(rows)}\n\n${said.join("\n")}\n`);
  expect(after).toEqual(before);
  expect(isRight).toBe(true);
});
