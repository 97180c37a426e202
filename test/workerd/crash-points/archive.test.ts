// The archive's way from a slice to its files: whatever call fails, or kills the archiver, the next run goes on.
import { runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { beforeAll, expect, vi } from "vitest";
import { goOn } from "../../../src/archive/archiver.ts";
import type { SliceState } from "../../../src/aggregate/sql/slices.ts";
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
    ...["the slices", "the lease", "the next file", "the object read", "the keys' names", "the rows", "the meters"],
    ...["the bases", "the file's mark", "the files", "the next segment", "the move"],
  ],
  checked: [
    ...["the slices", "a waiting letter", "the lease", "the files", "the recount", "the recount's note"],
    ...["the next segment", "the drop"],
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
  const stub = env.ARCHIVER.getByName(NAME);
  await runInDurableObject(stub, (object) => {
    archiver = object;
  });
  await calls
    .meeting(meeting, () => watched(runDurableObjectAlarm(stub)))
    .catch((error: unknown) => {
      if (!String(error).includes(A_FAILURE)) throw error;
    });
}

/** Runs until the slice is not in a phase any more. */
async function runOutOf(phase: Phase, calls: ArchiveCalls, meeting?: () => Meeting): Promise<void> {
  for (let runs = 0; (await stateNow()) === phase; runs++) {
    expect(runs).toBeLessThan(RUNS);
    await anotherRun(calls, meeting?.());
  }
}

async function ends(story: SliceStory, calls: ArchiveCalls): Promise<void> {
  await runOutOf("open", calls);
  await runOutOf("sealed", calls);
  await runOutOf("exported", calls);
  vi.setSystemTime(OLD);
  await runOutOf("checked", calls);
  await story.check();
}

/** What tells a call from all others: not when it was made, and not whose lease it is. */
function identityOf({ name, what }: ArchiveCall): string {
  if (["the lease", "the lease's end", "the list of objects", "a shard's word"].includes(name)) return name;
  return name + what.replaceAll(/\d{13,}/g, (number) => (Number(number) < OVER ? number : "now"));
}

/** Each call that is made in a phase meets a fault once, when it is first made; then all work. */
const each = (phase: Phase, strike: Meeting): Crash => [
  "the next run goes on, and each event is in one file",
  async () => {
    const story = await SliceStory.begin(meters, phase);
    const calls = new ArchiveCalls();
    const struck = new Map<string, string>();
    await runOutOf(phase, calls, () => {
      let hasStruck = false;
      return (call, made) => {
        const identity = identityOf(made);
        if (hasStruck || struck.has(identity)) return call();
        struck.set(identity, made.name);
        hasStruck = true;
        return strike(call, made);
      };
    });
    expect([...struck.values()]).toEqual(expect.arrayContaining([...PHASES[phase]]));
    // A new call needs a name, and its place above.
    expect([...struck.values()]).not.toContain("");
    await ends(story, calls);
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

const evicted = (phase: Phase): Crash => [
  "each event is in one file",
  async () => {
    const story = await SliceStory.begin(meters, phase);
    const calls = new ArchiveCalls();
    let hasStruck = false;
    await anotherRun(calls, (call) => {
      if (!hasStruck) end("eviction");
      hasStruck = true;
      return call();
    });
    expect(hasStruck).toBe(true);
    await ends(story, calls);
  },
];

const faults = (phase: Phase): Record<string, Crash> => ({
  "it fails": each(phase, fails),
  "its answer is lost": each(phase, losesItsAnswer),
  "the archiver dies before it": each(phase, dies),
  "the archiver dies after it": each(phase, diesAfterIt),
  "the archiver is evicted meanwhile": evicted(phase),
});

crashPoints("crash-points/archive.test.ts", {
  "each call of a seal": faults("open"),
  "each call of an export": faults("sealed"),
  "each call of a check": faults("exported"),
  "each call of a drop": faults("checked"),
});
