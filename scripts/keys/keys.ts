import { randomInt } from "node:crypto";
import { z } from "zod";
import { hashOf } from "../../src/catalog/key-hash.ts";
import { type Permissions, prefixOf, writePermissions } from "../../src/domain/permissions.ts";
import { CommandError } from "../command-error.ts";
import { NEXT_KEY_NUMBER, type RunSql, sqlText } from "../sql.ts";
import { table } from "../table.ts";

/** What a new key is to be. */
type NewKey = { readonly name: string; readonly livemode: boolean; readonly permissions: Permissions };

/** A key as it is stored, also by others than this tool. Times in ms. */
type StoredKey = {
  readonly id: string;
  /** What events carry. */
  readonly number: number;
  readonly name: string;
  readonly livemode: boolean;
  readonly permissions: string;
  readonly created: number;
  readonly used: number | undefined;
  readonly revoked: number | undefined;
};

/** 44 characters of 62 are 262 bits: more than the hash of them has. */
const SECRET_LENGTH = 44;
const ID_LENGTH = 20;

const ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

const randomText = (length: number): string =>
  Array.from({ length }, () => ALPHABET.charAt(randomInt(ALPHABET.length))).join("");

/** Makes a key, created `now` (ms). The secret is in the result alone: what is stored has its hash. */
export async function createKey(run: RunSql, key: NewKey, now: number): Promise<{ id: string; secret: string }> {
  const id = `key_${randomText(ID_LENGTH)}`;
  const secret = prefixOf(key) + randomText(SECRET_LENGTH);
  const permissions = sqlText(writePermissions(key.permissions));
  await run(`INSERT INTO api_keys (hash, id, number, name, livemode, created, permissions)
    VALUES (${sqlText(hashOf(secret))}, ${sqlText(id)}, ${NEXT_KEY_NUMBER}, ${sqlText(key.name)}, ${key.livemode ? 1 : 0}, ${now}, ${permissions})`);
  return { id, secret };
}

/** Whether there is a test key that works, other than a self-test's. */
export async function hasWorkingKey(run: RunSql): Promise<boolean> {
  const [keys = []] = await run(
    "SELECT 1 FROM api_keys WHERE livemode = 0 AND revoked_at IS NULL AND id <> 'key_self_test' LIMIT 1",
  );
  return keys.length > 0;
}

const Row = z
  .object({
    id: z.string(),
    number: z.number(),
    name: z.string(),
    livemode: z.number(),
    permissions: z.string(),
    created: z.number(),
    last_used: z.number().nullable(),
    revoked_at: z.number().nullable(),
  })
  .transform(
    ({ livemode, last_used, revoked_at, ...key }): StoredKey => ({
      ...key,
      livemode: livemode === 1,
      used: last_used ?? undefined,
      revoked: revoked_at ?? undefined,
    }),
  );

/** Every key, the oldest first. */
export async function listKeys(run: RunSql): Promise<StoredKey[]> {
  const [rows = []] = await run(
    "SELECT id, number, name, livemode, permissions, created, last_used, revoked_at FROM api_keys ORDER BY number",
  );
  return rows.map((row) => Row.parse(row));
}

/**
 * Revokes a key, `now` (ms), and says since when it is: earlier, when it was revoked before. Throws a
 * CommandError when there is none.
 */
export async function revokeKey(run: RunSql, id: string, now: number): Promise<{ revoked: number; before: boolean }> {
  const [changed = [], found = []] = await run(
    `UPDATE api_keys SET revoked_at = ${now} WHERE id = ${sqlText(id)} AND revoked_at IS NULL RETURNING id;
     SELECT revoked_at FROM api_keys WHERE id = ${sqlText(id)}`,
  );
  const [row] = found;
  if (row === undefined) throw new CommandError(`there is no key '${id}'; npm run keys -- list shows what there is.`);
  return { revoked: z.number().parse(row.revoked_at), before: changed.length === 0 };
}

/** Keys as a table with a head. */
export const keyTable = (keys: readonly StoredKey[]): string =>
  table([["id", "number", "name", "mode", "may", "created", "last used", "revoked"], ...keys.map(cellsOf)]);

const cellsOf = ({ id, number, name, livemode, permissions, created, used, revoked }: StoredKey): readonly string[] => [
  id,
  String(number),
  // Another tool may have written the name, so control characters in it must not reach the terminal.
  name.replaceAll(/[\p{Cc}\p{Zl}\p{Zp}]/gu, "\u{fffd}"),
  livemode ? "live" : "test",
  permissions,
  time(created),
  // Noted once an hour.
  used === undefined ? "never" : time(used).replace(/:\d\d:\d\dZ$/, ":00Z"),
  revoked === undefined ? "" : time(revoked),
];

/** To the second. */
const time = (ms: number): string => new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");
