import type { Execution } from "../env.ts";
import { withTimeout } from "../timeout.ts";
import { hashOf } from "./key-hash.ts";
import { PositiveCache } from "./positive-cache.ts";

/** Who calls: an API key, known by its id. The key itself is not kept. */
export type ApiKey = { readonly id: string; readonly livemode: boolean };

type KeyRow = { hash: string; id: string; livemode: number };

/** Secret keys of either mode. What does not look like one never reaches the database. */
const SECRET = /^sk_(test|live)_[A-Za-z0-9_]{8,200}$/;

const VALID_KEYS = `
  SELECT hash, id, livemode FROM api_keys
  WHERE hash IN (SELECT value FROM json_each(?1)) AND revoked_at IS NULL`;

const VALID_IDS = `
  SELECT id, livemode FROM api_keys
  WHERE id IN (SELECT value FROM json_each(?1)) AND revoked_at IS NULL`;

const cache = new PositiveCache<ApiKey>();
const cacheById = new PositiveCache<ApiKey>();

/** How long a stream waits to hear of its key (ms) before its token alone decides. */
const PATIENCE_MS = 1_000;

/** The API key of a secret, unless it is malformed, unknown or revoked. A revoked key works on for at most FRESH_MS. */
export async function findKey(db: D1Database, secret: string, execution: Execution): Promise<ApiKey | undefined> {
  if (!SECRET.test(secret)) return undefined;
  return cache.get(secret, (secrets) => loadKeys(db, secrets), execution);
}

async function loadKeys(db: D1Database, secrets: readonly string[]): Promise<Map<string, ApiKey>> {
  const byHash = new Map(secrets.map((secret) => [hashOf(secret), secret]));
  const { results } = await db
    .prepare(VALID_KEYS)
    .bind(JSON.stringify([...byHash.keys()]))
    .all<KeyRow>();
  const found = new Map<string, ApiKey>();
  for (const { hash, id, livemode } of results) {
    const secret = byHash.get(hash);
    // The prefix decides the mode; a row that says otherwise is not this key.
    if (secret?.startsWith(livemode ? "sk_live_" : "sk_test_")) found.set(secret, { id, livemode: livemode === 1 });
  }
  return found;
}

/**
 * Whether the database says that an API key does not work any more, or is of another mode. When the
 * database cannot answer, nothing is known against the key.
 */
export async function isKnownRevoked(db: D1Database, { id, livemode }: ApiKey, execution: Execution): Promise<boolean> {
  try {
    const found = await withTimeout(
      cacheById.get(id, (ids) => loadKeysById(db, ids), execution),
      PATIENCE_MS,
    );
    return found?.livemode !== livemode;
  } catch {
    return false;
  }
}

async function loadKeysById(db: D1Database, ids: readonly string[]): Promise<Map<string, ApiKey>> {
  const { results } = await db.prepare(VALID_IDS).bind(JSON.stringify(ids)).all<Omit<KeyRow, "hash">>();
  return new Map(results.map(({ id, livemode }) => [id, { id, livemode: livemode === 1 }]));
}
