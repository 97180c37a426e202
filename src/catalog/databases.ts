import type { Env } from "../env.ts";

/** An events database of a mode, by its place among them. */
export type EventsDatabase = { readonly name: string; readonly db: D1Database };

const TEST = "TEST_EVENTS";

/** The name of a mode's events database; test mode has one. */
export const nameOfDatabase = (livemode: boolean, place: number): string => (livemode ? `EVENTS_${place}` : TEST);

/** The events databases of a mode that are bound: live mode's from EVENTS_0 on, without a gap. */
export function eventsDatabases(env: Env, livemode: boolean): EventsDatabase[] {
  if (!livemode) return [{ name: TEST, db: env.TEST_EVENTS }];
  const databases: EventsDatabase[] = [];
  for (;;) {
    const name = nameOfDatabase(true, databases.length);
    const db = Reflect.get(env, name) as D1Database | undefined;
    if (db === undefined) return databases;
    databases.push({ name, db });
  }
}

/** A mode's events database. Throws when it is not bound. */
export function eventsDatabase(env: Env, livemode: boolean, place: number): D1Database {
  const db = livemode ? (Reflect.get(env, nameOfDatabase(true, place)) as D1Database | undefined) : env.TEST_EVENTS;
  if (db === undefined) throw new Error(`there is no database ${nameOfDatabase(livemode, place)}`);
  return db;
}
