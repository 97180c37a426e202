// What is counted. Durable Objects and the Worker share an isolate, and so these counts.
import { AsyncLocalStorage } from "node:async_hooks";

/** What Cloudflare bills, as counted since the last reset, and what tells how it comes about. */
export const NO_COUNTS = {
  /** HTTP requests, and calls of the queue consumer. */
  httpRequests: 0,
  consumerRuns: 0,
  /** Calls of customers' objects and of logs, and alarms. */
  meterCalls: 0,
  logCalls: 0,
  alarms: 0,
  /** Rows of Durable Objects; a set alarm is a row written. Rows of making and dropping tables are counted apart. */
  objectRowsRead: 0,
  objectRowsWritten: 0,
  alarmsSet: 0,
  tableRowsWritten: 0,
  databaseRowsRead: 0,
  databaseRowsWritten: 0,
  /** Operations of R2 that change or list objects (class A), and that read one (class B). */
  bucketWrites: 0,
  bucketReads: 0,
  /** Writes, reads and deletes of messages, per 64 KB; messages; and calls of sendBatch. */
  queueOperations: 0,
  messages: 0,
  sends: 0,
  /** Transactions of logs, and the rows of groups in them. */
  commits: 0,
  groups: 0,
  /** Milliseconds in these, and in D1's statements, as D1 says. */
  commitMs: 0,
  databaseMs: 0,
  /** Milliseconds while a call of a customer's object, of a log, was under way; calls of one object that overlap count once. */
  meterBusyMs: 0,
  logBusyMs: 0,
};

export type Counts = typeof NO_COUNTS;

const counting: Counts = { ...NO_COUNTS };

/** Where counts go that are the bench's own doing. */
const ignored: Counts = { ...NO_COUNTS };

const ignoring = new AsyncLocalStorage<boolean>();

/** Does something without counting the Worker's part in it. */
export const uncounted = <T>(work: () => T): T => ignoring.run(true, work);

/** The counts, to add to. */
export const counts = (): Counts => (ignoring.getStore() ? ignored : counting);

/** Combines two counts, number by number. */
export function combine(a: Counts, b: Counts, by: (a: number, b: number) => number): Counts {
  const combined = { ...a };
  for (const name of Object.keys(combined) as (keyof Counts)[]) combined[name] = by(a[name], b[name]);
  return combined;
}

/** Queues bill each message per 64 KB that begins; 100 bytes are metadata. */
const UNIT_BYTES = 64_000;
const METADATA_BYTES = 100;

export function queueUnits(body: unknown): number {
  const bytes = body instanceof Uint8Array || body instanceof ArrayBuffer ? body.byteLength : undefined;
  const text = typeof body === "string" ? body : (JSON.stringify(body) ?? "");
  return Math.ceil(((bytes ?? Buffer.byteLength(text)) + METADATA_BYTES) / UNIT_BYTES);
}

const open = new Map<string, { calls: number; since: number }>();

/** Makes a call of an object, which it gives as it is, and counts the time in which at least one is under way. */
export function busy<T>(field: "meterBusyMs" | "logBusyMs", name: string, start: () => T): T {
  const into = counts();
  const key = field + name;
  const object = open.get(key) ?? { calls: 0, since: performance.now() };
  object.calls++;
  open.set(key, object);
  const ended = (): void => {
    if (--object.calls > 0) return;
    open.delete(key);
    into[field] += performance.now() - object.since;
  };
  const call = start();
  if (call instanceof Object && "then" in call) void Promise.resolve(call).then(ended, ended);
  else ended();
  return call;
}
