// The archive's way from a slice to its files: whatever call fails, or kills the archiver, the next run goes on.
import { runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { beforeAll, expect, vi } from "vitest";
import { LOCAL_KEYS } from "../../../scripts/local-keys.ts";
import { goOn } from "../../../src/archive/archiver.ts";
import type { SliceState } from "../../../src/aggregate/sql/slices.ts";
import { DAY_MS, HOUR_MS, MINUTE_MS, receiptOf, sliceOf } from "../../../src/domain/window.ts";
import type { Archiver } from "../../../src/index.ts";
import { aLogEntry } from "../../support/builders.ts";
import { type ArchiveCall, ArchiveCalls, type Meeting } from "../archive/calls.ts";
import {
  archive,
  archivedRows,
  asStored,
  cancel,
  empty,
  hasTable,
  objectKeys,
  statesOf,
  store,
} from "../archive/support.ts";
import { createdMeter, FUTURE, storedIn } from "../support.ts";
import { A_FAILURE, befall, contextOf, type Fault, watched } from "./faults.ts";
import { type Crash, crashPoints } from "./table.ts";

const NAME = "EVENTS_0";
const db = env.EVENTS_0;

/** All events are received at the beginning of a slice. */
const BEGIN = receiptOf(sliceOf(FUTURE)).start + MINUTE_MS;
const SLICE = sliceOf(BEGIN);
const OVER = receiptOf(SLICE).end + 25 * HOUR_MS + 1;
const OLD = receiptOf(SLICE).end + 35 * DAY_MS;

/** Longer than a lease (ms). */
const LEASE_MS = 3 * MINUTE_MS;

/** Runs after which all must be done. */
const RUNS = 60;

/** In the state of each phase, the calls that are made of it. */
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
    ...["the slices", "the lease", "the files", "the recount", "the recount's note", "the next segment", "the drop"],
  ],
} as const satisfies Partial<Record<SliceState, readonly string[]>>;

type Phase = keyof typeof PHASES;

const meters = { sum: "", last: "" };

beforeAll(async () => {
  meters.sum = (await createdMeter({}, LOCAL_KEYS.live)).id;
  meters.last = (await createdMeter({ "default_aggregation[formula]": "last" }, LOCAL_KEYS.live)).id;
});

/** What must not change while a slice is archived. */
async function whatCounts(): Promise<unknown> {
  const [sums, survivors] = await db.batch([
    db.prepare("SELECT * FROM sums"),
    db.prepare("SELECT series, window_start, rank, timestamp, id, value, vacated FROM survivors"),
  ]);
  return [sums?.results, survivors?.results];
}

/** A slice of events on time and late, one cancelled, of two meters, which has come to a phase; and a stray object. */
async function aSlice(phase: Phase): Promise<{ calls: ArchiveCalls; ends: () => Promise<void> }> {
  await empty(db);
  vi.useFakeTimers({ toFake: ["Date"], now: BEGIN });
  vi.spyOn(console, "error").mockImplementation(() => {});
  const anEntry = (value: number, ago = 0, changes = {}) =>
    aLogEntry({ meter: meters.sum, value, timestamp: BEGIN - ago, received: BEGIN, ...changes });
  const last = { meter: meters.last, aggregation: "latest_of_quarter_hour" } as const;
  const events = [anEntry(1), anEntry(2, 0, last), anEntry(4, 20 * DAY_MS), anEntry(8), anEntry(16, 0, last)];
  await store(db, events);
  await cancel(db, events.slice(3, 4));
  const stored = await storedIn(db, meters.sum, meters.last);
  const counted = await whatCounts();
  await env.ARCHIVE.put(`events/day=2040-06-15/db=00/slice=${SLICE}/late=1/00009.parquet`, "not of this slice");
  vi.setSystemTime(OVER);
  for (let steps = 0; phase !== "open" && (await stateNow()) !== phase; )
    await archive(NAME, { steps: ++steps, until: OVER + 1 });
  if (phase === "checked") vi.setSystemTime(OLD);
  const calls = new ArchiveCalls();
  const ends = async (): Promise<void> => {
    vi.setSystemTime(OLD);
    for (let runs = 0; (await stateNow()) !== "archived"; runs++) {
      expect(runs).toBeLessThan(RUNS);
      await anotherRun(calls);
    }
    expect(await hasTable(db, SLICE)).toBe(false);
    const rows = (await archivedRows(db, SLICE)).map(asStored);
    expect(rows.sort((a, b) => (a.id < b.id ? -1 : 1))).toEqual(stored);
    const { results } = await db.prepare("SELECT key FROM archive_files ORDER BY key").all<{ key: string }>();
    expect(await objectKeys()).toEqual(results.map(({ key }) => key));
    expect(await whatCounts()).toEqual(counted);
    expect(await db.prepare("SELECT base_value FROM survivors").first("base_value")).toBe(16);
  };
  return { calls, ends };
}

const stateNow = async (): Promise<string | undefined> => (await statesOf(db))[0]?.state;

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

/** What tells a call from all others: not when it was made, and not whose lease it is. */
const identityOf = ({ name, what }: ArchiveCall): string => {
  const values = what
    .replaceAll(/"[0-9a-f-]{36}"/g, "holder")
    .replaceAll(/\d{13,}/g, (n) => (Number(n) < OVER ? n : "now"));
  return ["the lease", "the lease's end", "the list of objects", "a shard's word"].includes(name)
    ? name
    : name + values;
};

/** Each call that is made in a phase meets a fault once, when it is first made; then all work. */
const each = (phase: Phase, strike: Meeting): Crash => [
  "the next run goes on, and each event is in one file",
  async () => {
    const { calls, ends } = await aSlice(phase);
    const struck = new Map<string, string>();
    let hasStruck = false;
    const meeting: Meeting = (call, made) => {
      const identity = identityOf(made);
      if (hasStruck || struck.has(identity)) return call();
      struck.set(identity, made.name);
      hasStruck = true;
      return strike(call, made);
    };
    for (let runs = 0; (await stateNow()) === phase; runs++) {
      expect(runs).toBeLessThan(RUNS);
      hasStruck = false;
      await anotherRun(calls, meeting);
    }
    expect([...struck.values()]).toEqual(expect.arrayContaining([...PHASES[phase]]));
    await ends();
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
    const { calls, ends } = await aSlice(phase);
    let hasStruck = false;
    await anotherRun(calls, (call) => {
      if (!hasStruck) end("eviction");
      hasStruck = true;
      return call();
    });
    expect(hasStruck).toBe(true);
    await ends();
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
