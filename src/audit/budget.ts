import { MINUTE_MS } from "../domain/window.ts";

/** Statements that one part of a minute's audit runs: D1 takes 1,000 of an invocation, and a minute has four such parts. */
const STATEMENTS = 200;

/** What a part of the audit may read of its databases before it stops. */
export class Budget {
  #rows: number;
  #statements: number;
  readonly #whole: Budget | undefined;

  constructor(rows: number, statements = STATEMENTS, whole?: Budget) {
    this.#rows = rows;
    this.#statements = statements;
    this.#whole = whole;
  }

  /** Without an end. */
  static unlimited(): Budget {
    return new Budget(Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY);
  }

  /** Rows that may still be read; not above zero once all were. */
  get rows(): number {
    return this.#rows;
  }

  get isSpent(): boolean {
    return this.#rows <= 0 || this.#statements <= 0;
  }

  /** Runs statements in one transaction and takes what they read from the budget. */
  async run<T>(db: D1Database, statements: D1PreparedStatement[]): Promise<D1Result<T>[]> {
    if (statements.length === 0) return [];
    const results = await db.batch<T>(statements);
    this.#spend(
      results.reduce((sum, { meta }) => sum + meta.rows_read, 0),
      statements.length,
    );
    return results;
  }

  #spend(rows: number, statements: number): void {
    this.#rows -= rows;
    this.#statements -= statements;
    if (this.#whole !== undefined) this.#whole.#spend(rows, statements);
  }

  /**
   * Works on some parts, one after the other, each with an equal portion of what is left. Another part begins in each
   * minute of `now` (ms), so that none is always the last.
   */
  async divide<P>(parts: readonly P[], now: number, work: (part: P, budget: Budget) => Promise<void>): Promise<void> {
    const first = Math.floor(now / MINUTE_MS) % parts.length;
    for (const [index, part] of [...parts.slice(first), ...parts.slice(0, first)].entries()) {
      if (this.isSpent) return;
      const left = parts.length - index;
      await work(part, new Budget(Math.ceil(this.#rows / left), Math.ceil(this.#statements / left), this));
    }
  }
}
