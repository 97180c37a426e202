import { env } from "cloudflare:workers";
import { vi } from "vitest";

/** What a call of D1 comes to. */
type Fate = <T>(call: () => Promise<T>) => Promise<T>;

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

const QUERIES: readonly (string | symbol)[] = ["first", "all", "run", "raw"];

/** Stands before the Worker's D1 until mocks are restored: each call of it, by whomever, meets its fate. */
export class HostileD1 {
  fate: Fate = D1.works;
  /** How often D1 was called, by anybody. */
  calls = 0;
  readonly #real = new WeakMap<D1PreparedStatement, D1PreparedStatement>();

  constructor() {
    const { DB } = env;
    const prepare = DB.prepare.bind(DB);
    const batch = DB.batch.bind(DB);
    vi.spyOn(DB, "prepare").mockImplementation((query) => this.#guard(prepare(query)));
    vi.spyOn(DB, "batch").mockImplementation(((statements: D1PreparedStatement[]) =>
      this.#meet(() => batch(statements.map((one) => this.#real.get(one) ?? one)))) as typeof batch);
  }

  #guard(statement: D1PreparedStatement): D1PreparedStatement {
    const guarded = new Proxy(statement, {
      get: (target, name) => {
        if (name === "bind") return (...values: unknown[]) => this.#guard(target.bind(...values));
        const value: unknown = Reflect.get(target, name);
        if (!QUERIES.includes(name) || typeof value !== "function") return value;
        return (...args: unknown[]) => this.#meet(() => value.apply(target, args) as Promise<unknown>);
      },
    });
    this.#real.set(guarded, statement);
    return guarded;
  }

  #meet<T>(call: () => Promise<T>): Promise<T> {
    this.calls++;
    return this.fate(call);
  }
}
