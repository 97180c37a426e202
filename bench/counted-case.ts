// One load on the counting Worker, until everything about it is done: stored, aggregated, audited, expired.
import { type Counts, combine, NO_COUNTS } from "./counted/counts.ts";
import { Edgemeter } from "./edgemeter.ts";
import { EDGEMETER, type LocalWorkerd, type WorkerSpec, withWorkerd } from "./local-workerd.ts";

const COUNTED: WorkerSpec = { ...EDGEMETER, name: "counted", main: "bench/counted/index.ts" };

/** Old enough to be audited (ms). */
const SETTLED_MS = 5 * 60_000;

/** A day later the day of these events is closed, so that the auditor's sample has something to read (ms). */
const NEXT_DAY_MS = 26 * 3_600_000;

export type Load = (edgemeter: Edgemeter, worker: WorkerSpec, workerd: LocalWorkerd) => Promise<void>;

export type CountedCase = {
  readonly name: string;
  /** That D1 has in the end. */
  readonly events: number;
  /** All that was counted for them, but for what happens each minute anyway. */
  readonly counts: Counts;
  /** Of these, what dropping the slices took. */
  readonly expiry: Counts;
  /** What the scheduled handler takes each minute in which something was sent, however much. */
  readonly eachMinute: Counts;
  /** Making and dropping the tables of one slice of every shard: rows written. */
  readonly sliceRows: number;
  /** How long the load took, until aggregated (s). */
  readonly seconds: number;
  /** CPU of the whole process, counting included (ms). */
  readonly cpuMs: number;
  /** Bytes in the logs and in D1. */
  readonly logBytes: number;
  readonly databaseBytes: number;
};

const minus = (a: Counts, b: Counts): Counts => combine(a, b, (x, y) => x - y);

/** `warmUp` wakes objects and fills caches; what `load` then does is counted. */
export const runCase = (name: string, shards: number, warmUp: Load, load: Load): Promise<CountedCase> =>
  withWorkerd([COUNTED], async (workerd) => {
    const edgemeter = new Edgemeter(workerd, COUNTED);
    await edgemeter.createMeter();
    await warmUp(edgemeter, COUNTED, workerd);
    await edgemeter.drained();
    const control = (path: string): Promise<Counts> => controlled(edgemeter, path);
    // What the warm-up left to the auditor is not the load's.
    await control(`maintain?ahead=${SETTLED_MS}`);
    const tablesMade = (await control("counts")).tableRowsWritten;
    const before = {
      events: await edgemeter.stored(),
      log: await edgemeter.logBytes(),
      database: await edgemeter.databaseBytes(),
    };

    await control("reset");
    const cpu = await workerd.cpuMs();
    const started = performance.now();
    await load(edgemeter, COUNTED, workerd);
    await edgemeter.drained();
    const seconds = (performance.now() - started) / 1_000;
    const cpuMs = (await workerd.cpuMs()) - cpu;
    const logBytes = (await edgemeter.logBytes()) - before.log;
    const databaseBytes = (await edgemeter.databaseBytes()) - before.database;
    const loaded = await control("counts");
    const audited = await control(`maintain?ahead=${SETTLED_MS}`);
    const quiet = await control(`maintain?ahead=${SETTLED_MS}`);
    const sampled = await control(`maintain?ahead=${NEXT_DAY_MS}`);
    const expired = await control("expire");
    const expiry = minus(expired, sampled);
    // Once a minute, however long this load was: where a shard had events, a page of them and a note how far it came.
    const perShard: Counts = { ...NO_COUNTS, logCalls: shards, databaseRowsWritten: shards };
    const audit = minus(minus(minus(audited, loaded), minus(quiet, audited)), perShard);
    return {
      name,
      events: (await edgemeter.stored()) - before.events,
      counts: combine(combine(loaded, audit, add), expiry, add),
      expiry,
      eachMinute: combine(minus(sampled, quiet), perShard, add),
      sliceRows: tablesMade + expiry.tableRowsWritten,
      seconds,
      cpuMs,
      logBytes,
      databaseBytes,
    };
  });

const add = (x: number, y: number): number => x + y;

async function controlled(edgemeter: Edgemeter, path: string): Promise<Counts> {
  const { status, body } = await edgemeter.call("GET", `/counted/${path}`);
  if (status !== 200) throw new Error(`/counted/${path} answered ${status}: ${body}`);
  return JSON.parse(body);
}
