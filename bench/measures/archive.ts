// What the archive takes: of the processor, of D1 and of R2, until a slice is in files and dropped.
import { randomUUID } from "node:crypto";
import { DAY_MS, HOUR_MS } from "../../src/domain/window.ts";
import type { Counts } from "../counted/counting.ts";
import { CUSTOMERS, type Edgemeter, EVENT_NAME, STREAM_EVENTS, withEdgemeters } from "../edgemeter.ts";
import { cpuMs, type Database } from "../local-workerd.ts";
import { type Bench, figure, type Measured } from "../results.ts";
import { HOLD_ARCHIVE } from "../tables.ts";

/** Three files: with the step that ends it an export takes two minutes' runs, and so does a check. */
export const EVENTS = 150_000;

/** How much later a slice that has begun is over, and how much later it is old (ms). */
export const OVER_MS = 38 * HOUR_MS;
export const OLD_MS = 37 * DAY_MS;

/** Minutes after which a slice must have come to its next state. */
const MINUTES = 10;

const RELEASE = "DELETE FROM leases WHERE holder = 'bench'";
const FILES = "SELECT COUNT(*) AS files, SUM(bytes) AS bytes, SUM(rows) AS rows FROM archive_files";

/** The state of the first slice that has events. */
const STATE = "SELECT state FROM slices WHERE min_timestamp IS NOT NULL ORDER BY slice";

/** What was counted until a moment, and CPU (ms). */
type Taken = Pick<Counts, "databaseRowsRead" | "databaseRowsWritten" | "bucketWrites" | "bucketReads"> & {
  readonly cpuMs: number;
};

const FIELDS = ["databaseRowsRead", "databaseRowsWritten", "bucketWrites", "bucketReads", "cpuMs"] as const;

/** What was taken from one moment to another, less a quiet minute so many times. */
const between = (from: Taken, to: Taken, quiet?: Taken, minutes = 0): Taken =>
  Object.fromEntries(
    FIELDS.map((field) => [field, to[field] - from[field] - minutes * (quiet?.[field] ?? 0)]),
  ) as Taken;

export async function measureArchive({ sides: [present], progress }: Bench): Promise<Measured> {
  const side = { ...present, counted: true };
  return withEdgemeters([side], [], async (edgemeterOf, workerd) => {
    const edgemeter = edgemeterOf(side);
    const db = await workerd.database(side, "EVENTS_0");
    progress("events");
    await fillSlice(edgemeter);
    const archive = new Archive(edgemeter, db);
    progress("export and check");
    const [exported, checked] = await archive.pass(OVER_MS, ["exported", "checked"]);
    progress("drop");
    const [dropped] = await archive.pass(OLD_MS, ["archived"]);
    const { files, bytes, rows } = (await db.prepare(FILES).first<Record<"files" | "bytes" | "rows", number>>()) ?? {};
    if (!exported || !checked || !dropped || !files || !bytes || rows !== EVENTS)
      throw new Error("not all was archived");
    const all = [exported, checked, dropped];
    const sum = (field: (typeof FIELDS)[number]): number => all.reduce((total, taken) => total + taken[field], 0);
    const one = (id: string, name: string, unit: string, value: number, note = "") =>
      figure(`archive-${id}`, name, unit, { rounds: [value] }, { note });
    const cpu = ({ cpuMs }: Taken): number => (cpuMs * 1_000) / EVENTS;
    return {
      figures: [
        one("cpu-export", "export", "µs an event", cpu(exported), `${EVENTS} events of ${CUSTOMERS} customers`),
        one("cpu-check", "check", "µs an event", cpu(checked)),
        one("cpu-drop", "recount and drop", "µs an event", cpu(dropped)),
        one("rows-read", "rows read of D1", "rows an event", sum("databaseRowsRead") / EVENTS),
        one("rows-written", "rows written", "rows an event", sum("databaseRowsWritten") / EVENTS),
        one(
          "r2-writes",
          "R2 operations of class A",
          "operations a file",
          sum("bucketWrites") / files,
          `${files} files`,
        ),
        one("r2-reads", "R2 operations of class B", "operations a file", sum("bucketReads") / files),
        one("bytes-file", "bytes of a file", "KB", bytes / files / 1_000),
        one("bytes-event", "bytes of an event", "bytes", bytes / EVENTS),
      ],
    };
  });
}

/** Events with UUIDs as identifiers, of the last minutes. */
export async function fillSlice(edgemeter: Edgemeter): Promise<void> {
  let made = 0;
  const next = await edgemeter.streamEvents(() => ({
    event_name: EVENT_NAME,
    identifier: randomUUID(),
    payload: { stripe_customer_id: `cus_${made++ % CUSTOMERS}`, value: String(1 + (made % 1_000)) },
  }));
  await edgemeter.aggregated(next, { connections: 8, requests: EVENTS / STREAM_EVENTS }, STREAM_EVENTS);
}

export class Archive {
  readonly #edgemeter: Edgemeter;
  readonly #db: Database;

  constructor(edgemeter: Edgemeter, db: Database) {
    this.#edgemeter = edgemeter;
    this.#db = db;
  }

  /** What is taken until the slice has come to each of some states, as if it were so much later (ms). */
  async pass(ahead: number, states: readonly string[]): Promise<Taken[]> {
    // Whatever else is due by then is done while another has the lease.
    await this.#db.prepare(HOLD_ARCHIVE).run();
    for (const _ of [1, 2]) await this.#minute(ahead);
    const before = await this.#taken();
    await this.#minute(ahead);
    const quiet = between(before, await this.#taken());
    await this.#db.prepare(RELEASE).run();
    const passed: Taken[] = [];
    let last = await this.#taken();
    for (const state of states) {
      const minutes = await this.minutesTo(state, ahead);
      const now = await this.#taken();
      passed.push(between(last, now, quiet, minutes));
      last = now;
    }
    return passed;
  }

  #minute(ahead: number): Promise<Counts> {
    return this.#edgemeter.call(`/counted/minute?ahead=${ahead}`);
  }

  async #taken(): Promise<Taken> {
    return { ...(await this.#edgemeter.call("/counted/counts")), cpuMs: await cpuMs() };
  }

  /** Lets minutes pass until the slice is in a state; how many. */
  minutesTo(state: string, ahead: number): Promise<number> {
    return this.minutesUntil(async () => (await this.#db.prepare(STATE).first("state")) === state, ahead);
  }

  /** Lets minutes pass until something is so; how many. */
  async minutesUntil(isSo: () => Promise<boolean>, ahead: number): Promise<number> {
    for (let minutes = 1; minutes <= MINUTES; minutes++) {
      await this.#minute(ahead);
      if (await isSo()) return minutes;
    }
    throw new Error(`there is more to do after ${MINUTES} minutes`);
  }
}
