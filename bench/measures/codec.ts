// What the log's layout takes of the processor, in this process: entries as text, and groups of them deflated.
import { randomUUID } from "node:crypto";
import { newEventId, timeOrderedId } from "../../src/domain/identifiers.ts";
import { laneOf } from "../../src/domain/placement.ts";
import { sliceOf } from "../../src/domain/window.ts";
import { type LogEntry, readEvents, writeEvent } from "../../src/log/codec.ts";
import { bodiesOf, linesOf } from "../../src/log/groups.ts";
import { CUSTOMERS } from "../edgemeter.ts";
import { type Bench, figure, inTurn, type Measured } from "../results.ts";

/** Events of a group: as sync events by 32 connections make them, and as streams do. */
const GROUPS = [7, 200];

const METER = timeOrderedId("mtr_", Date.now());

const STEPS = { write: "entries written", pack: "  packed", unpack: "  unpacked", read: "  read" } as const;

export async function measureCodec(bench: Bench): Promise<Measured> {
  const contestants = GROUPS.map((events) => [`${events}`, async (seconds: number) => timed(events, seconds)]);
  const taken = await inTurn(bench, {}, Object.fromEntries(contestants));
  const figures = GROUPS.flatMap((events) =>
    Object.entries(STEPS).map(([step, name]) =>
      figure(`codec-${step}-${events}`, `${name}, ${events} in a group`, "µs an event", taken(`${events}`, step)),
    ),
  );
  return { figures };
}

/** Takes each step of a group's way again and again (µs of processor time an event). */
function timed(events: number, seconds: number): Record<keyof typeof STEPS, number> {
  const entries = Array.from({ length: events }, (_, n) => entryOf(n));
  const placed = entries.map((entry) => {
    const { meter, customer, received, timestamp } = entry;
    return { database: 0, slice: sliceOf(received), lane: laneOf(meter, customer), timestamp, text: writeEvent(entry) };
  });
  const bodies = bodiesOf(placed);
  const lines = bodies.flatMap(linesOf);
  const one = (step: () => unknown): number => {
    const before = process.cpuUsage();
    const end = performance.now() + (seconds * 1_000) / Object.keys(STEPS).length;
    let times = 0;
    for (; performance.now() < end; times++) step();
    const { user, system } = process.cpuUsage(before);
    return (user + system) / times / events;
  };
  return {
    write: one(() => entries.map(writeEvent)),
    pack: one(() => bodiesOf(placed)),
    unpack: one(() => bodies.flatMap(linesOf)),
    read: one(() => lines.map((line) => readEvents(line.entries))),
  };
}

/** The n-th event, as the log keeps it. */
function entryOf(n: number): LogEntry {
  const now = Date.now();
  return {
    meter: METER,
    customer: `cus_${n % CUSTOMERS}`,
    dimensions: "",
    timestamp: now,
    id: newEventId(now),
    identifier: randomUUID(),
    value: 25,
    received: now,
    payload: undefined,
    apiKey: 1,
    aggregation: "additive",
  };
}
