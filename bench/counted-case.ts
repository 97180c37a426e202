// One load on the counting Worker, until everything about it is done: stored, aggregated, audited, expired.
import { type Counts, combine, NO_COUNTS } from "./counted/counting.ts";
import { CUSTOMERS, type Edgemeter, type Target, withEdgemeters } from "./edgemeter.ts";
import type { Pace } from "./load.ts";
import type { LocalWorkerd } from "./local-workerd.ts";
import type { Side } from "./sides.ts";
import { HOLD_ARCHIVE } from "./tables.ts";

/** Old enough to be audited (ms). */
const SETTLED_MS = 5 * 60_000;

/** By then every identifier and answer of now has expired, every table of the log with it (ms). */
const EXPIRED_MS = 40 * 3_600_000;

/** What is counted; `id` is that of its figures. */
export type CountedLoad = {
  readonly id: string;
  readonly name: string;
  readonly next: (edgemeter: Edgemeter) => Target | Promise<Target>;
  readonly pace: Pace;
  /** Events of a request. */
  readonly perRequest?: number;
};

export type CountedCase = Pick<CountedLoad, "id" | "name"> & {
  readonly perRequest: number;
  /** That D1 has in the end. */
  readonly events: number;
  /** All that was counted for them, but for what happens each minute anyway. Times of transactions are the load's alone. */
  readonly counts: Counts;
  /** Rows of D1 that the day's audit of sums reads, for each event that there is. */
  readonly rowsAudited: number;
  /** What the scheduled handler takes each minute in which something was sent, however much. */
  readonly eachMinute: Counts;
  /** How long the load took, until aggregated (s). */
  readonly seconds: number;
  /** CPU of the whole process, counting included (ms). */
  readonly cpuMs: number;
  /** Bytes in the logs and in D1. */
  readonly logBytes: number;
  readonly databaseBytes: number;
};

const minus = (a: Counts, b: Counts): Counts => combine(a, b, (x, y) => x - y);
const plus = (a: Counts, b: Counts): Counts => combine(a, b, (x, y) => x + y);

export function runCase({ id, name, next, pace, perRequest = 1 }: CountedLoad, side: Side): Promise<CountedCase> {
  const { shards } = side.settings;
  const worker: Side = { ...side, counted: true };
  return withEdgemeters([worker], [], async (edgemeterOf, workerd) => {
    const edgemeter = edgemeterOf(worker);
    await holdArchives(workerd, worker);
    const control = (path: string): Promise<Counts> => edgemeter.call(`/counted/${path}`);
    const minute = (ahead: number): Promise<Counts> => control(`minute?ahead=${ahead}`);
    // Objects are awake, and caches full.
    const warm = await edgemeter.aggregated(edgemeter.syncEvents(), { connections: 32, requests: CUSTOMERS });
    // What the warm-up left to the auditor is not the load's.
    await minute(SETTLED_MS);
    const before = await edgemeter.bytes();

    await control("reset");
    const { accepted, cpu, drained } = await edgemeter.aggregated(await next(edgemeter), pace, perRequest);
    const events = accepted * perRequest;
    const after = await edgemeter.bytes();
    const loaded = await control("counts");
    const audited = await minute(SETTLED_MS);
    const quiet = await minute(SETTLED_MS);
    const expired = await minute(EXPIRED_MS);
    const over = await minute(EXPIRED_MS);
    // Each minute, however long this load was: where a shard had events, a page of them and a note how far it came.
    const perShard: Counts = { ...NO_COUNTS, logCalls: shards, databaseRowsWritten: shards };
    const audit = minus(minus(minus(audited, loaded), minus(quiet, audited)), perShard);
    // By then the day's audit of sums is due as well, and a slice, whatever this load was.
    const passed = minus(minus(expired, quiet), minus(over, expired));
    const expiry = { ...passed, databaseRowsRead: 0, databaseRowsWritten: 0 };
    return {
      id,
      name,
      perRequest,
      events,
      counts: { ...plus(plus(loaded, audit), expiry), commitMs: loaded.commitMs, databaseMs: loaded.databaseMs },
      rowsAudited: passed.databaseRowsRead / (warm.accepted + events),
      eachMinute: plus(minus(over, expired), perShard),
      seconds: events / drained,
      cpuMs: cpu * events,
      logBytes: after.log - before.log,
      databaseBytes: after.database - before.database,
    };
  });
}

/** What an archive takes is measured apart: it would be in the minutes that are as if they were later. */
async function holdArchives(workerd: LocalWorkerd, side: Side): Promise<void> {
  const bindings = Object.keys(side.databases).filter((binding) => binding.includes("EVENTS"));
  for (const binding of bindings) await (await workerd.database(side, binding)).prepare(HOLD_ARCHIVE).run();
}
