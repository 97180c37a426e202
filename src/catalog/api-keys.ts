import { type Permissions, prefixOf, readPermissions } from "../domain/permissions.ts";
import { HOUR_MS } from "../domain/window.ts";
import type { Execution } from "../env.ts";
import { loggedAs } from "../logger.ts";
import { hashOf } from "./key-hash.ts";
import { PositiveCache } from "./positive-cache.ts";
import { loaderOf, type Queryable } from "./queries.ts";

/** Who calls: an API key, known by its id. Its secret is kept in memory alone, as what it is looked up by. */
export type ApiKey = {
  readonly id: string;
  /** What its events and cancellations carry. */
  readonly number: number;
  readonly livemode: boolean;
  readonly permissions: Permissions;
};

/** What an API key is looked up by: its secret, or `id:` and its id. */
export type KeyName = string & { readonly __name: "key" };

type KeyRow = { hash: string; id: string; number: number; livemode: number; permissions: string };

/** Keys of either kind and mode. What does not look like one never reaches the database. */
const SECRET = /^[rs]k_(test|live)_[A-Za-z0-9_]{8,200}$/;

const ID = "id:";

const VALID_KEYS = `
  SELECT hash, id, number, livemode, permissions FROM api_keys
  WHERE hash IN (SELECT value FROM json_each(?1)) AND revoked_at IS NULL
  UNION
  SELECT hash, id, number, livemode, permissions FROM api_keys
  WHERE id IN (SELECT value FROM json_each(?2)) AND revoked_at IS NULL`;

const NAMES = "SELECT id, number FROM api_keys";

const cache = new PositiveCache<ApiKey>();

/** The name of a secret; nothing for what cannot be one. */
export const nameOfSecret = (secret: string): KeyName | undefined =>
  SECRET.test(secret) ? (secret as KeyName) : undefined;

export const nameOfId = (id: string): KeyName => `${ID}${id}` as KeyName;

/** Whether this isolate has met a key, by its secret or by its id, and may use it. */
export const isKnown = (name: KeyName): boolean => cache.has(name);

/**
 * The API key of a name, unless it is unknown or revoked. A revoked key works on for at most FRESH_MS. Throws
 * when the database does not answer and this isolate does not know the key.
 */
export const findKey = (db: D1Database, name: KeyName, execution: Execution): Promise<ApiKey | undefined> =>
  cache.get(name, loaderOf(db, lookUpKeys), execution);

const NOTE_USE = "UPDATE api_keys SET last_used = ?2 WHERE id = ?1 AND (last_used IS NULL OR last_used < ?3)";

/** The hour (since 1970) in which this isolate last noted the use of a key, by its id. */
const used = new Map<string, number>();

/** Notes that a key is in use, about once an hour and after the response. `now` in ms. */
export function noteUse(db: D1Database, { id }: ApiKey, now: number, execution: Execution): void {
  const hour = Math.floor(now / HOUR_MS);
  if (used.get(id) === hour) return;
  used.set(id, hour);
  const noted = db
    .prepare(NOTE_USE)
    .bind(id, now, hour * HOUR_MS)
    .run();
  execution.waitUntil(noted.catch(loggedAs("the use of a key was not noted", { key: id })));
}

/** Each key is found by its id too, so that an isolate which knows its secret knows its sessions. */
async function lookUpKeys(db: Queryable, names: readonly string[]): Promise<Map<string, ApiKey>> {
  const [ids, secrets] = [names.filter((name) => name.startsWith(ID)), names.filter((name) => !name.startsWith(ID))];
  const byHash = new Map(secrets.map((secret) => [hashOf(secret), secret]));
  const { results } = await db
    .prepare(VALID_KEYS)
    .bind(JSON.stringify([...byHash.keys()]), JSON.stringify(ids.map((name) => name.slice(ID.length))))
    .all<KeyRow>();
  const found = new Map<string, ApiKey>();
  for (const row of results) {
    const key = toKey(row);
    if (key === undefined) continue;
    found.set(nameOfId(key.id), key);
    const secret = byHash.get(row.hash);
    // The prefix decides the mode and whether it is restricted; a row that says otherwise is not this key.
    if (secret?.startsWith(prefixOf(key))) found.set(secret, key);
  }
  return found;
}

/** The key of a row; nothing for a permission that this version does not know. */
function toKey({ id, number, livemode, permissions }: KeyRow): ApiKey | undefined {
  const known = readPermissions(permissions);
  return known === undefined ? undefined : { id, number, livemode: livemode === 1, permissions: known };
}

/** The ids of all API keys by their numbers, and the numbers by their ids. */
export type KeyNames = { readonly ids: ReadonlyMap<number, string>; readonly numbers: ReadonlyMap<string, number> };

/** A hash that no secret has stands for the one that is not known. */
const REGISTER = `
  INSERT INTO api_keys (hash, id, number, name, livemode, created, revoked_at)
  SELECT 'unknown ' || value, value, (SELECT COALESCE(MAX(number), 0) FROM api_keys) + 1 + key, 'restored', ?2, ?3, ?3
  FROM json_each(?1)
  WHERE true
  ON CONFLICT DO NOTHING`;

/**
 * Gives keys of these ids, which the database does not know, their numbers: keys that are revoked `now` (ms), whose
 * secrets are not known. What all keys are called then.
 */
export async function registerKeys(
  db: D1Database,
  ids: readonly string[],
  livemode: boolean,
  now: number,
): Promise<KeyNames> {
  await db.prepare(REGISTER).bind(JSON.stringify(ids), Number(livemode), now).run();
  return namesOfKeys(db);
}

/** What the keys of both modes are called, also those that are revoked. */
export async function namesOfKeys(db: D1Database): Promise<KeyNames> {
  const { results } = await db.prepare(NAMES).all<Pick<KeyRow, "id" | "number">>();
  return {
    ids: new Map(results.map(({ id, number }) => [number, id])),
    numbers: new Map(results.map(({ id, number }) => [id, number])),
  };
}
