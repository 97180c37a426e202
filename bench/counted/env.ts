import type { Env } from "../../src/env.ts";
import { Busy, counts, queueUnits, replacing, timed } from "./counting.ts";

const wrapped = new WeakMap<object, Env>();

/** The bindings, with what is done through them counted. */
export function countingEnv(env: Env): Env {
  let counting = wrapped.get(env);
  if (counting === undefined) {
    counting = {
      ...env,
      DB: countingDatabase(env.DB),
      EVENT_QUEUE: countingQueue(env.EVENT_QUEUE),
      CUSTOMER_METER: countingNamespace(env.CUSTOMER_METER, meterBusy, () => {
        counts.meterCalls++;
      }),
      EVENT_LOG: countingNamespace(env.EVENT_LOG, logBusy, () => {
        counts.logCalls++;
      }),
    };
    wrapped.set(env, counting);
  }
  return counting;
}

const meterBusy = new Busy((ms) => {
  counts.meterBusyMs += ms;
});

export const logBusy = new Busy((ms) => {
  counts.logBusyMs += ms;
});

/** Every call of an object is a request to it. */
function countingNamespace<T extends DurableObjectNamespace>(namespace: T, busy: Busy, count: () => void): T {
  const countingStub = <S extends object>(name: string, stub: S): S =>
    new Proxy(stub, {
      get:
        (_, method) =>
        (...args: readonly unknown[]) => {
          count();
          // A stub's methods are made as they are asked for, and are called as its own alone.
          const methods = stub as Record<string | symbol, (...args: readonly unknown[]) => unknown>;
          return timed(() => methods[method]?.(...args), busy.start(name));
        },
    });
  return replacing(namespace, (property) =>
    property === "getByName"
      ? (name: string, options?: DurableObjectNamespaceGetDurableObjectOptions) =>
          countingStub(name, namespace.getByName(name, options))
      : undefined,
  );
}

function countingQueue(queue: Queue): Queue {
  return replacing(queue, (property) =>
    property === "sendBatch"
      ? (messages: MessageSendRequest[]) => {
          counts.sends++;
          for (const { body } of messages) {
            counts.messages++;
            counts.queueOperations += queueUnits(String(body));
          }
          return queue.sendBatch(messages);
        }
      : undefined,
  );
}

/** The statements behind counting ones: a batch takes no others. */
const originals = new WeakMap<object, D1PreparedStatement>();

function countingDatabase(db: D1Database): D1Database {
  const prepare = (sql: string): D1PreparedStatement => countingStatement(db.prepare(sql));
  const batch = async (statements: D1PreparedStatement[]): Promise<D1Result[]> =>
    (await db.batch(statements.map((statement) => originals.get(statement) ?? statement))).map(counted);
  // Here a session is the database itself.
  const methods: Record<string | symbol, unknown> = { prepare, batch, withSession: () => counting };
  const counting = replacing(db, (property) => methods[property]);
  return counting;
}

function countingStatement(statement: D1PreparedStatement): D1PreparedStatement {
  const all = async (): Promise<D1Result<Record<string, unknown>>> => counted(await statement.all());
  const methods: Record<string | symbol, unknown> = {
    bind: (...values: unknown[]) => countingStatement(statement.bind(...values)),
    all,
    run: all,
    // The platform's own says nothing of rows.
    first: async (column?: string) => {
      const [row] = (await all()).results;
      if (row === undefined) return null;
      return column === undefined ? row : (row[column] ?? null);
    },
  };
  const counting = replacing(statement, (property) => methods[property]);
  originals.set(counting, statement);
  return counting;
}

function counted<T>(result: D1Result<T>): D1Result<T> {
  counts.databaseRowsRead += result.meta.rows_read;
  counts.databaseRowsWritten += result.meta.rows_written;
  counts.databaseMs += result.meta.duration;
  return result;
}
