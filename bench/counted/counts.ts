/** What Cloudflare bills, as this isolate has counted it since it was last reset, and what tells how it comes about. */
export type Counts = {
  /** HTTP requests. */
  httpRequests: number;
  /** Calls of the queue consumer. */
  consumerRuns: number;
  /** Calls of CustomerMeter and of EventLog, and alarms. */
  meterCalls: number;
  logCalls: number;
  alarms: number;
  /** Rows of Durable Objects; a set alarm is a row written. Without those of slices' tables. */
  objectRowsRead: number;
  objectRowsWritten: number;
  alarmsSet: number;
  /** Rows written by making and dropping a slice's tables, and how many tables that were. */
  tableRowsWritten: number;
  tables: number;
  databaseRowsRead: number;
  databaseRowsWritten: number;
  /** Writes, reads and deletes of messages, per 64 KB. */
  queueOperations: number;
  messages: number;
  /** Calls of sendBatch. */
  sends: number;
  /** Transactions of logs, and the rows of groups in them. */
  commits: number;
  groups: number;
  /** Time in these (ms). */
  commitMs: number;
  /** Time in D1's statements, as D1 says (ms). */
  databaseMs: number;
  /** While a call of a customer's object, of a log, was under way (ms); calls of one object that overlap count once. */
  meterBusyMs: number;
  logBusyMs: number;
};

export const NO_COUNTS: Readonly<Counts> = {
  httpRequests: 0,
  consumerRuns: 0,
  meterCalls: 0,
  logCalls: 0,
  alarms: 0,
  objectRowsRead: 0,
  objectRowsWritten: 0,
  alarmsSet: 0,
  tableRowsWritten: 0,
  tables: 0,
  databaseRowsRead: 0,
  databaseRowsWritten: 0,
  queueOperations: 0,
  messages: 0,
  sends: 0,
  commits: 0,
  groups: 0,
  commitMs: 0,
  databaseMs: 0,
  meterBusyMs: 0,
  logBusyMs: 0,
};

/** Combines two counts, number by number. */
export function combine(a: Counts, b: Counts, by: (a: number, b: number) => number): Counts {
  const combined = { ...a };
  for (const name of Object.keys(combined) as (keyof Counts)[]) combined[name] = by(a[name], b[name]);
  return combined;
}
