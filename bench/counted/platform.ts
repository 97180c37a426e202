// Counts what is done with the platform's objects. They are changed in place, since nothing takes others for them.
import { busy, counts, queueUnits } from "./counting.ts";

export type Env = Readonly<Record<string, unknown>>;

type Methods<T> = { [Name in keyof T]?: (real: T[Name]) => T[Name] };

const changed = new WeakSet<object>();

/** Replaces methods of an object, once. */
function replace<T extends object>(target: T, methods: Methods<T>): void {
  if (changed.has(target)) return;
  changed.add(target);
  for (const name of Object.keys(methods) as (keyof T)[]) {
    Object.defineProperty(target, name, { value: methods[name]?.(target[name]) });
  }
}

/** A binding is what it can do; what is not billed stays as it is. */
export function countBindings(env: Env): void {
  for (const [name, binding] of Object.entries(env)) {
    if (typeof binding !== "object" || binding === null) continue;
    if ("prepare" in binding) countDatabase(binding as D1Database);
    if ("sendBatch" in binding) countQueue(binding as Queue);
    if ("createMultipartUpload" in binding) countBucket(binding as R2Bucket);
    if ("getByName" in binding) countObjects(binding as DurableObjectNamespace, name.includes("LOG"));
  }
}

/** Every call of an object is a request to it. */
function countObjects(namespace: DurableObjectNamespace, isLog: boolean): void {
  const counted = (name: string, stub: object): object =>
    new Proxy(stub, {
      get:
        (_, method) =>
        (...args: readonly unknown[]) => {
          counts()[isLog ? "logCalls" : "meterCalls"]++;
          // A stub's methods are made as they are asked for, and are called as its own alone.
          const methods = stub as Record<string | symbol, (...args: readonly unknown[]) => unknown>;
          return busy(isLog ? "logBusyMs" : "meterBusyMs", name, () => methods[method]?.(...args));
        },
    });
  const replaced = (real: typeof namespace.getByName) => (name: string, options?: object) =>
    counted(name, real.call(namespace, name, options)) as DurableObjectStub<undefined>;
  replace(namespace, { getByName: replaced });
}

function countQueue(queue: Queue): void {
  replace(queue, {
    sendBatch: (real) => (messages) => {
      const sent = [...messages];
      counts().sends++;
      counts().messages += sent.length;
      for (const { body } of sent) counts().queueOperations += queueUnits(body);
      return real.call(queue, sent);
    },
  });
}

function countBucket(bucket: R2Bucket): void {
  const counted =
    <A extends unknown[], T>(field: "bucketWrites" | "bucketReads") =>
    (real: (...args: A) => T) =>
    (...args: A): T => {
      counts()[field]++;
      return real.apply(bucket, args);
    };
  replace(bucket as Pick<R2Bucket, "list" | "head"> & { put: unknown; get: unknown }, {
    put: counted("bucketWrites") as (real: unknown) => unknown,
    list: counted("bucketWrites"),
    get: counted("bucketReads") as (real: unknown) => unknown,
    head: counted("bucketReads"),
  });
}

type Sessions = { _sendOrThrow: (...query: unknown[]) => Promise<D1Result | D1Result[]> };

/** Each statement and each batch goes through a session, of a class that all databases share; so do results without rows. */
function countDatabase(db: D1Database): void {
  const sessions: Sessions = Object.getPrototypeOf(db.withSession());
  if (sessions._sendOrThrow === undefined) throw new Error("this workerd's D1 is not as the bench knows it");
  replace(sessions, {
    _sendOrThrow: (real) =>
      async function (this: Sessions, ...query) {
        const results = await real.apply(this, query);
        for (const { meta } of [results].flat()) {
          counts().databaseRowsRead += meta.rows_read;
          counts().databaseRowsWritten += meta.rows_written;
          counts().databaseMs += meta.duration;
        }
        return results;
      },
  });
}

/** What an object does with its storage. */
export function countStorage({ storage }: DurableObjectState): void {
  const { sql } = storage;
  replace(sql as { exec: (query: string, ...bindings: unknown[]) => Cursor }, {
    exec:
      (real) =>
      (query, ...bindings) => {
        if (/^\s*(CREATE|DROP)/.test(query)) return countTables(query, (statement) => real.call(sql, statement));
        if (/^\s*INSERT INTO groups/.test(query)) counts().groups++;
        return countRows(real.call(sql, query, ...bindings));
      },
  });
  replace(storage, {
    transactionSync: (real) => (work) => {
      const started = performance.now();
      try {
        return real.call(storage, work) as ReturnType<typeof work>;
      } finally {
        counts().commits++;
        counts().commitMs += performance.now() - started;
      }
    },
    setAlarm: (real) => (time, options) => {
      counts().alarmsSet++;
      counts().objectRowsWritten++;
      return real.call(storage, time, options);
    },
  });
}

type Cursor = SqlStorageCursor<Record<string, SqlStorageValue>>;

/** A cursor knows of several statements only what the last one did, so they are run one by one. */
function countTables(query: string, exec: (statement: string) => Cursor): Cursor {
  const cursors = query
    // A comment may hold a semicolon.
    .replaceAll(/--.*$/gm, "")
    .split(";")
    .filter((statement) => statement.trim() !== "")
    .map(exec);
  for (const cursor of cursors) {
    counts().tableRowsWritten += cursor.rowsWritten;
    counts().objectRowsRead += cursor.rowsRead;
  }
  const [first] = cursors;
  if (first === undefined) throw new Error("a query without a statement");
  return first;
}

/** Rows are written when a statement begins, and read as far as they are taken. */
function countRows(cursor: Cursor): Cursor {
  let read = 0;
  const countRead = (): void => {
    counts().objectRowsRead += cursor.rowsRead - read;
    read = cursor.rowsRead;
  };
  counts().objectRowsWritten += cursor.rowsWritten;
  countRead();
  for (const method of ["toArray", "one"] as const) {
    const take = cursor[method].bind(cursor);
    const value = () => {
      try {
        return take();
      } finally {
        countRead();
      }
    };
    Object.defineProperty(cursor, method, { value });
  }
  return cursor;
}
