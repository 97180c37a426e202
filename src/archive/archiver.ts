import { DurableObject } from "cloudflare:workers";
import { objectNamed } from "../catalog/objects.ts";
import { SECOND_MS } from "../domain/window.ts";
import type { Env } from "../env.ts";
import { logError } from "../logger.ts";
import { type ArchivedDatabase, archiveDatabase, archivedDatabases, type RunLimit } from "./archive.ts";

/** What an object's run may do: within D1's 1,000 queries and the 30 seconds of processor that an invocation has. */
const RUN = { steps: 20, ms: 20 * SECOND_MS } as const;

/** From one run to the next (ms), so that the database serves others in between. */
const PAUSE_MS = SECOND_MS;

/** The databases that are left to go on with, in turn. */
const DATABASES = "databases";

/** The one object's name. */
export const ARCHIVER = "archiver";

/**
 * Goes on with the databases' archives where a minute's run ended, until there is nothing left to do: one database
 * after another, since an isolate has memory for one step. It keeps their names alone; a death costs at most a minute,
 * after which the schedule calls again.
 */
export class Archiver extends DurableObject<Env> {
  /** Has the archive of a database go on. */
  async begin(database: string): Promise<void> {
    this.#left = [...new Set([...this.#left, database])];
    if ((await this.ctx.storage.getAlarm()) === null) await this.ctx.storage.setAlarm(Date.now());
  }

  override async alarm(): Promise<void> {
    const [name, ...others] = this.#left;
    const known = archivedDatabases(this.env).find(({ database }) => database.name === name);
    const isLeft = known !== undefined && (await this.#run(known));
    this.#left = isLeft ? [...others, known.database.name] : others;
    if (this.#left.length > 0) await this.ctx.storage.setAlarm(Date.now() + PAUSE_MS);
  }

  async #run(known: ArchivedDatabase): Promise<boolean> {
    const limit: RunLimit = { steps: RUN.steps, until: Date.now() + RUN.ms };
    try {
      return await archiveDatabase(this.env, known, limit);
    } catch (error) {
      // An alarm that throws is repeated at once, and again and again; the schedule comes in a minute.
      logError("a database was not archived", error, { database: known.database.name });
      return false;
    }
  }

  get #left(): readonly string[] {
    return this.ctx.storage.kv.get<readonly string[]>(DATABASES) ?? [];
  }

  set #left(databases: readonly string[]) {
    this.ctx.storage.kv.put(DATABASES, databases);
  }
}

/** Has a database's archive go on beyond the minute's run. */
export const goOn = (env: Env, database: string): Promise<void> =>
  objectNamed<Archiver>(env, env.ARCHIVER, ARCHIVER).begin(database);
