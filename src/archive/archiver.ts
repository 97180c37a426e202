import { DurableObject } from "cloudflare:workers";
import { objectNamed } from "../catalog/objects.ts";
import { SECOND_MS } from "../domain/window.ts";
import type { Env } from "../env.ts";
import { logError } from "../logger.ts";
import { archiveDatabase, archivedDatabases, type RunLimit } from "./archive.ts";

/** What an object's run may do: within D1's 1,000 queries and the 30 seconds of processor that an invocation has. */
const RUN = { steps: 20, ms: 20 * SECOND_MS } as const;

/** From one run to the next (ms), so that the database serves others in between. */
const PAUSE_MS = SECOND_MS;

const DATABASE = "database";

/**
 * Goes on with a database's archive where a minute's run ended, until there is nothing left to do: one object for each
 * database. It keeps the database's name alone; a death costs at most a minute, after which the schedule calls again.
 */
export class Archiver extends DurableObject<Env> {
  /** Has the object named after a database go on with its archive. */
  async begin(database: string): Promise<void> {
    this.ctx.storage.kv.put(DATABASE, database);
    if ((await this.ctx.storage.getAlarm()) === null) await this.ctx.storage.setAlarm(Date.now());
  }

  override async alarm(): Promise<void> {
    const name = this.ctx.storage.kv.get<string>(DATABASE);
    const known = archivedDatabases(this.env).find(({ database }) => database.name === name);
    if (known === undefined) return;
    const limit: RunLimit = { steps: RUN.steps, until: Date.now() + RUN.ms };
    try {
      if (await archiveDatabase(this.env, known, limit)) await this.ctx.storage.setAlarm(Date.now() + PAUSE_MS);
    } catch (error) {
      // An alarm that throws is repeated at once, and again and again; the schedule comes in a minute.
      logError("a database was not archived", error, { database: known.database.name });
    }
  }
}

/** Has a database's archive go on in an object of its own. */
export const goOn = (env: Env, database: string): Promise<void> =>
  objectNamed<Archiver>(env, env.ARCHIVER, database).begin(database);
