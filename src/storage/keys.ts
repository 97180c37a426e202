import type { Execution } from "../env.ts";
import { type Permission, permits, prefixOf } from "../metering/permissions.ts";
import { withTimeout } from "../timeout.ts";
import { fromReplica, type Queryable } from "./databases.ts";
import { hashOf } from "./key-hash.ts";
import { PositiveCache } from "./positive-cache.ts";

/** Who calls: an API key, known by its id. The key itself is not kept. */
export type ApiKey = { readonly id: string; readonly livemode: boolean; readonly permission: Permission };

type KeyRow = { hash: string; id: string; livemode: number; permission: string | null };

/** Keys of either kind and mode. What does not look like one never reaches the database. */
const SECRET = /^[rs]k_(test|live)_[A-Za-z0-9_]{8,200}$/;

const VALID_KEYS = `
  SELECT hash, id, livemode, permission FROM api_keys
  WHERE hash IN (SELECT value FROM json_each(?1)) AND revoked_at IS NULL`;

const VALID_IDS = `
  SELECT id, livemode, permission FROM api_keys
  WHERE id IN (SELECT value FROM json_each(?1)) AND revoked_at IS NULL`;

const cache = new PositiveCache<ApiKey>();
const cacheById = new PositiveCache<ApiKey>();

/** How long a stream waits to hear of its key (ms) before its token alone decides. */
const PATIENCE_MS = 1_000;

/** The API key of a secret, unless it is malformed, unknown or revoked. A revoked key works on for at most FRESH_MS. */
export async function findKey(db: D1Database, secret: string, execution: Execution): Promise<ApiKey | undefined> {
  if (!SECRET.test(secret)) return undefined;
  return cache.get(secret, (secrets) => fromReplica(db, secrets, loadKeys), execution);
}

async function loadKeys(db: Queryable, secrets: readonly string[]): Promise<Map<string, ApiKey>> {
  const byHash = new Map(secrets.map((secret) => [hashOf(secret), secret]));
  const { results } = await db
    .prepare(VALID_KEYS)
    .bind(JSON.stringify([...byHash.keys()]))
    .all<KeyRow>();
  const found = new Map<string, ApiKey>();
  for (const row of results) {
    const secret = byHash.get(row.hash);
    const key = toKey(row);
    // The prefix decides the mode and whether it is restricted; a row that says otherwise is not this key.
    if (key !== undefined && secret?.startsWith(prefixOf(key))) found.set(secret, key);
  }
  return found;
}

/** The key of a row; nothing for a permission that this version does not know. */
function toKey({ id, livemode, permission }: Omit<KeyRow, "hash">): ApiKey | undefined {
  if (permission !== null && permission !== "ingest" && permission !== "read") return undefined;
  return { id, livemode: livemode === 1, permission: permission ?? "all" };
}

/**
 * Whether the database says that the API key behind a session does not work any more, is of another
 * mode, or may not do what the session does. When the database cannot answer, nothing is known against
 * the key.
 */
export async function isKnownUnentitled(
  db: D1Database,
  { id, livemode, permission }: ApiKey,
  execution: Execution,
): Promise<boolean> {
  try {
    const found = await withTimeout(
      cacheById.get(id, (ids) => fromReplica(db, ids, loadKeysById), execution),
      PATIENCE_MS,
    );
    return found === undefined || found.livemode !== livemode || !permits(found, permission);
  } catch {
    return false;
  }
}

async function loadKeysById(db: Queryable, ids: readonly string[]): Promise<Map<string, ApiKey>> {
  const { results } = await db.prepare(VALID_IDS).bind(JSON.stringify(ids)).all<Omit<KeyRow, "hash">>();
  const keys = results.map(toKey).filter((key) => key !== undefined);
  return new Map(keys.map((key) => [key.id, key]));
}
