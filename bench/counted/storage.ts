import { counts } from "./counting.ts";

/**
 * Counts what an object does with its storage. The platform's own objects are changed in place, since
 * a Durable Object takes no others.
 */
export function countStorage({ storage }: DurableObjectState): void {
  const exec = storage.sql.exec.bind(storage.sql);
  const countingExec = (query: string, ...bindings: unknown[]): SqlStorageCursor<Record<string, SqlStorageValue>> => {
    if (/^\s*(CREATE|DROP)/.test(query)) return countTables(query, exec);
    if (/^\s*INSERT INTO groups_/.test(query)) counts.groups++;
    const cursor = exec(query, ...bindings);
    countRows(cursor);
    return cursor;
  };
  Object.defineProperty(storage.sql, "exec", { value: countingExec });

  const transactionSync = storage.transactionSync.bind(storage);
  Object.defineProperty(storage, "transactionSync", {
    value: <T>(work: () => T): T => {
      const started = performance.now();
      try {
        return transactionSync(work);
      } finally {
        counts.commits++;
        counts.commitMs += performance.now() - started;
      }
    },
  });

  const setAlarm = storage.setAlarm.bind(storage);
  Object.defineProperty(storage, "setAlarm", {
    value: (time: number): Promise<void> => {
      counts.alarmsSet++;
      counts.objectRowsWritten++;
      return setAlarm(time);
    },
  });
}

/** A cursor knows of several statements only what the last one did, so they are run one by one. */
function countTables(query: string, exec: SqlStorage["exec"]): SqlStorageCursor<Record<string, SqlStorageValue>> {
  const statements = query.split(";").filter((statement) => statement.trim() !== "");
  const cursors = statements.map((statement) => exec(statement));
  for (const cursor of cursors) {
    counts.tables++;
    counts.tableRowsWritten += cursor.rowsWritten;
    counts.objectRowsRead += cursor.rowsRead;
  }
  const [first] = cursors;
  if (first === undefined) throw new Error("a statement without a statement");
  return first;
}

/** Rows are written when a statement begins, and read as far as they are taken. */
function countRows(cursor: SqlStorageCursor<Record<string, SqlStorageValue>>): void {
  let read = 0;
  const countRead = (): void => {
    counts.objectRowsRead += cursor.rowsRead - read;
    read = cursor.rowsRead;
  };
  counts.objectRowsWritten += cursor.rowsWritten;
  countRead();
  for (const method of ["toArray", "one"] as const) {
    const take = cursor[method].bind(cursor);
    Object.defineProperty(cursor, method, {
      value: () => {
        try {
          return take();
        } finally {
          countRead();
        }
      },
    });
  }
}
