// The archive's way from a slice to its files: whatever call fails, or kills the archiver, the next run goes on.
import { runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { beforeAll, expect, vi } from "vitest";
import type { SliceState } from "../../../src/aggregate/sql/slices.ts";
import { ARCHIVER, goOn } from "../../../src/archive/archiver.ts";
import type { Archiver } from "../../../src/index.ts";
import { type ArchiveCall, ArchiveCalls, type Meeting } from "../archive/calls.ts";
import { LEASE_MS, type Meters, NAME, OLD, OVER, RUNS, SliceStory, someMeters, stateNow } from "../archive/slice.ts";
import { A_FAILURE, befall, contextOf, type Fault, watched } from "./faults.ts";
import { type Crash, crashPoints } from "./table.ts";

/** The calls that are made while the slice is in a state. */
const PHASES = {
  open: ["the slices", "the record of shards", "a shard's word", "the seal"],
  sealed: [
    ...["the slices", "the lease", "the last file", "the next segment", "the rows", "the keys' names", "the object"],
    ...["the file's row", "the files", "the list of objects", "the deletion", "the move"],
  ],
  exported: [
    ...["the slices", "the lease", "the next file", "the object read", "the keys' names", "the rows"],
    ...["the file's mark", "the files", "the next segment", "the move"],
  ],
  checked: [
    ...["the slices", "a waiting letter", "the lease", "the files", "the recount", "the object's head", "the meters"],
    ...["the bases", "the recount's note", "the next segment", "the drop"],
  ],
} as const satisfies Partial<Record<SliceState, readonly string[]>>;

type Phase = keyof typeof PHASES;

let meters: Meters;

beforeAll(async () => {
  meters = await someMeters();
});

/** The archiver that is at work. */
let archiver: Archiver;

/** One run of the archiver's object, after the lease of one that died. */
async function anotherRun(calls: ArchiveCalls, meeting: Meeting = (call) => call()): Promise<void> {
  vi.setSystemTime(Date.now() + LEASE_MS);
  await goOn(env, NAME);
  // A new stub each time: one that has seen its object die fails for ever.
  const stub = env.ARCHIVER.getByName(ARCHIVER);
  await runInDurableObject(stub, (object) => {
    archiver = object;
  });
  await calls
    .meeting(meeting, () => watched(runDurableObjectAlarm(stub)))
    .catch((error: unknown) => {
      if (!String(error).includes(A_FAILURE)) throw error;
    });
}

/** What tells a call from all others: not when it was made, and not whose lease it is. */
function identityOf({ name, what }: ArchiveCall): string {
  if (["the lease", "the lease's end", "the list of objects", "a shard's word"].includes(name)) return name;
  return name + what.replaceAll(/\d{13,}/g, (number) => (Number(number) < OVER ? number : "now"));
}

/**
 * The story in which each call meets a fault once in each phase, when it is first made, at most one in a run; then the
 * slice is archived all the same. The names of the calls that met it, by phase.
 */
async function play(strike: Meeting): Promise<Record<Phase, string[]>> {
  const story = await SliceStory.begin(meters, "open");
  const calls = new ArchiveCalls();
  const names: Record<Phase, string[]> = { open: [], sealed: [], exported: [], checked: [] };
  for (const phase of ["open", "sealed", "exported", "checked"] as const) {
    if (phase === "checked") vi.setSystemTime(OLD);
    const struck = new Set<string>();
    for (let runs = 0; (await stateNow()) === phase; runs++) {
      expect(runs).toBeLessThan(RUNS);
      let hasStruck = false;
      await anotherRun(calls, (call, made) => {
        const identity = identityOf(made);
        if (hasStruck || struck.has(identity)) return call();
        struck.add(identity);
        names[phase].push(made.name);
        hasStruck = true;
        return strike(call, made);
      });
    }
  }
  await story.check();
  return names;
}

const played = new Map<Meeting, ReturnType<typeof play>>();

/** A phase of the story with a fault, which is played once. */
const each = (phase: Phase, strike: Meeting): Crash => [
  "the next run goes on, and each event is in one file",
  async () => {
    const known = played.get(strike) ?? play(strike);
    played.set(strike, known);
    const names = (await known)[phase];
    expect(names).toEqual(expect.arrayContaining([...PHASES[phase]]));
    // A new call needs a name, and its place above.
    expect(names).not.toContain("");
  },
];

const fails: Meeting = async () => {
  throw new Error(A_FAILURE);
};

const losesItsAnswer: Meeting = async (call) => {
  await call();
  throw new Error(A_FAILURE);
};

/** The archiver's object meets its end. */
const end = (fault: Fault): void => befall(archiver, fault);

const dies: Meeting = () => {
  end("abort");
  return new Promise(() => {});
};

const diesAfterIt: Meeting = async (call) => {
  await call();
  await contextOf(archiver).storage.sync();
  end("abort");
  return new Promise(() => {});
};

/** It is evicted when its run ends, in which everything is done that there is to do. */
const evicted: Crash = [
  "each event is in one file",
  async () => {
    const story = await SliceStory.begin(meters, "open");
    vi.setSystemTime(OLD);
    let calls = 0;
    await anotherRun(new ArchiveCalls(), (call) => {
      if (calls++ === 0) end("eviction");
      return call();
    });
    expect(calls).toBeGreaterThan(0);
    await story.check();
  },
];

const faults = (phase: Phase): Record<string, Crash> => ({
  "it fails": each(phase, fails),
  "its answer is lost": each(phase, losesItsAnswer),
  "the archiver dies before it": each(phase, dies),
  "the archiver dies after it": each(phase, diesAfterIt),
});

crashPoints("crash-points/archive.test.ts", {
  "each call of a seal": faults("open"),
  "each call of an export": faults("sealed"),
  "each call of a check": faults("exported"),
  "each call of a drop": faults("checked"),
  "while it works": { "the archiver is evicted": evicted },
});
