// One load on the counting Worker, until everything about it is done: stored, aggregated, audited, expired.
import { type Counts, combine, NO_COUNTS } from "./counted/counting.ts";
import { CUSTOMERS, Edgemeter, EVENT_NAME } from "./edgemeter.ts";
import { cpuMs, withWorkerd } from "./local-workerd.ts";
import type { Side } from "./sides.ts";

/** Old enough to be audited (ms). */
const SETTLED_MS = 5 * 60_000;

/** By then every identifier and answer of now has expired, every table of the log with it, and the day is closed (ms). */
const EXPIRED_MS = 40 * 3_600_000;

/** What is counted; `id` is that of its figures. */
export type CountedLoad = {
  readonly id: string;
  readonly name: string;
  readonly load: (edgemeter: Edgemeter) => Promise<unknown>;
};

export type CountedCase = Omit<CountedLoad, "load"> & {
  /** That D1 has in the end. */
  readonly events: number;
  /** All that was counted for them, but for what happens each minute anyway. Times of transactions are the load's alone. */
  readonly counts: Counts;
  /** Of these, what it took that they expired. */
  readonly expiry: Counts;
  /** What the scheduled handler takes each minute in which something was sent, however much. */
  readonly eachMinute: Counts;
  /** Making and dropping the log's tables of one time, of every shard: rows written. */
  readonly partitionRows: number;
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

export function runCase({ id, name, load }: CountedLoad, side: Side): Promise<CountedCase> {
  const { shards } = side.settings;
  const worker: Side = { ...side, counted: true };
  return withWorkerd([worker], async (workerd) => {
    const edgemeter = new Edgemeter(workerd, worker);
    const control = (path: string): Promise<Counts> => edgemeter.call(`/counted/${path}`);
    const minute = (ahead: number): Promise<Counts> => control(`minute?ahead=${ahead}`);
    await edgemeter.createMeter(EVENT_NAME);
    // Objects are awake, and caches full.
    await edgemeter.load(edgemeter.syncEvents(), { connections: 32, requests: CUSTOMERS });
    await edgemeter.drained();
    // What the warm-up left to the auditor is not the load's.
    const tablesMade = (await minute(SETTLED_MS)).tableRowsWritten;
    const before = { ...(await edgemeter.bytes()), events: await edgemeter.stored() };

    await control("reset");
    const cpu = await cpuMs();
    const started = performance.now();
    await load(edgemeter);
    await edgemeter.drained();
    const seconds = (performance.now() - started) / 1_000;
    const spent = (await cpuMs()) - cpu;
    const after = { ...(await edgemeter.bytes()), events: await edgemeter.stored() };
    const loaded = await control("counts");
    const audited = await minute(SETTLED_MS);
    const quiet = await minute(SETTLED_MS);
    const expired = await minute(EXPIRED_MS);
    const over = await minute(EXPIRED_MS);
    // Each minute, however long this load was: where a shard had events, a page of them and a note how far it came.
    const perShard: Counts = { ...NO_COUNTS, logCalls: shards, databaseRowsWritten: shards };
    const audit = minus(minus(minus(audited, loaded), minus(quiet, audited)), perShard);
    const expiry = minus(minus(expired, quiet), minus(over, expired));
    return {
      id,
      name,
      events: after.events - before.events,
      counts: { ...plus(plus(loaded, audit), expiry), commitMs: loaded.commitMs, databaseMs: loaded.databaseMs },
      expiry,
      eachMinute: plus(minus(over, expired), perShard),
      partitionRows: tablesMade + expiry.tableRowsWritten,
      seconds,
      cpuMs: spent,
      logBytes: after.log - before.log,
      databaseBytes: after.database - before.database,
    };
  });
}
