import { env } from "cloudflare:workers";
import { vi } from "vitest";
import { eventsDatabases } from "../../src/catalog/databases.ts";

/** A statement, and what it is bound to. */
export type Query = { readonly sql: string; readonly values: readonly unknown[] };

/** What a call of D1 comes to. */
type Fate = <T>(call: () => Promise<T>, queries: readonly Query[]) => Promise<T>;

const OUTAGE = "D1_ERROR: D1 DB is overloaded. Requests queued for too long.";

/** The fates of D1's calls. */
export const D1 = {
  works: (call) => call(),
  isAway: async () => {
    throw new Error(OUTAGE);
  },
  losesItsAnswer: async (call) => {
    await call();
    throw new Error("D1_ERROR: Network connection lost.");
  },
} as const satisfies Record<string, Fate>;

const allDatabases = (): D1Database[] => [
  env.DB,
  ...[true, false].flatMap((livemode) => eventsDatabases(env, livemode).map(({ db }) => db)),
];

const QUERIES: readonly (string | symbol)[] = ["first", "all", "run", "raw"];

/** Stands before databases of the Worker until mocks are restored: each call of one, by any caller, meets its fate. */
export class HostileD1 {
  fate: Fate = D1.works;
  /** How often they were called, by any caller. */
  calls = 0;
  readonly #real = new WeakMap<D1PreparedStatement, Query & { readonly statement: D1PreparedStatement }>();

  /** Before all databases, unless some are named. */
  constructor(databases: readonly D1Database[] = allDatabases()) {
    for (const db of databases) this.#standBefore(db);
  }

  #standBefore(db: D1Database): void {
    const prepare = db.prepare.bind(db);
    const batch = db.batch.bind(db);
    vi.spyOn(db, "prepare").mockImplementation((sql) => this.#guard(prepare(sql), { sql, values: [] }));
    vi.spyOn(db, "batch").mockImplementation(((statements: D1PreparedStatement[]) =>
      this.#meet(
        () => batch(statements.map((one) => this.#real.get(one)?.statement ?? one)),
        statements.flatMap((one) => this.#real.get(one) ?? []),
      )) as typeof batch);
  }

  #guard(statement: D1PreparedStatement, query: Query): D1PreparedStatement {
    const guarded = new Proxy(statement, {
      get: (target, name) => {
        if (name === "bind") return (...values: unknown[]) => this.#guard(target.bind(...values), { ...query, values });
        const value: unknown = Reflect.get(target, name);
        if (!QUERIES.includes(name) || typeof value !== "function") return value;
        return (...args: unknown[]) => this.#meet(() => value.apply(target, args) as Promise<unknown>, [query]);
      },
    });
    this.#real.set(guarded, { ...query, statement });
    return guarded;
  }

  #meet<T>(call: () => Promise<T>, queries: readonly Query[]): Promise<T> {
    this.calls++;
    return this.fate(call, queries);
  }
}
