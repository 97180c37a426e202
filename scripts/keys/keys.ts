import { randomInt } from "node:crypto";
import { z } from "zod";
import { hashOf } from "../../src/catalog/key-hash.ts";
import { type Permissions, prefixOf, writePermissions } from "../../src/domain/permissions.ts";
import { CommandError } from "../command-error.ts";
import { table } from "../table.ts";
import { type Database, execute, sqlText } from "./database.ts";

/** What a new key is to be. */
type NewKey = { readonly name: string; readonly livemode: boolean; readonly permissions: Permissions };

/** A key as it is stored, also by others than this tool. Times in ms. */
type StoredKey = {
  readonly id: string;
  readonly name: string;
  readonly livemode: boolean;
  readonly permissions: string;
  readonly created: number;
  readonly revoked: number | undefined;
};

/** 44 characters of 62 are 262 bits: more than the hash of them has. */
const SECRET_LENGTH = 44;
const ID_LENGTH = 20;

const ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

const randomText = (length: number): string =>
  Array.from({ length }, () => ALPHABET.charAt(randomInt(ALPHABET.length))).join("");

/** A key that is made, created `now` (ms), once its `sql` is run. The secret is here alone: what is stored and run has its hash. */
export function newKey(key: NewKey, now: number): { id: string; secret: string; sql: string } {
  const id = `key_${randomText(ID_LENGTH)}`;
  const secret = prefixOf(key) + randomText(SECRET_LENGTH);
  const permissions = sqlText(writePermissions(key.permissions));
  const sql = `INSERT INTO api_keys (hash, id, name, livemode, created, permissions)
     VALUES (${sqlText(hashOf(secret))}, ${sqlText(id)}, ${sqlText(key.name)}, ${key.livemode ? 1 : 0}, ${now}, ${permissions})`;
  return { id, secret, sql };
}

/** Makes a key in a database, created `now` (ms). */
export async function createKey(database: Database, key: NewKey, now: number): Promise<{ id: string; secret: string }> {
  const { id, secret, sql } = newKey(key, now);
  await execute(database, [sql]);
  return { id, secret };
}

const Row = z
  .object({
    id: z.string(),
    name: z.string(),
    livemode: z.number(),
    permissions: z.string(),
    created: z.number(),
    revoked_at: z.number().nullable(),
  })
  .transform(
    ({ livemode, revoked_at, ...key }): StoredKey => ({
      ...key,
      livemode: livemode === 1,
      revoked: revoked_at ?? undefined,
    }),
  );

/** Every key, the oldest first. */
export async function listKeys(database: Database): Promise<StoredKey[]> {
  const [rows = []] = await execute(database, [
    "SELECT id, name, livemode, permissions, created, revoked_at FROM api_keys ORDER BY created, id",
  ]);
  return rows.map((row) => Row.parse(row));
}

/**
 * Revokes a key, `now` (ms), and says since when it is: earlier, when it was revoked before. Throws a
 * CommandError when there is none.
 */
export async function revokeKey(
  database: Database,
  id: string,
  now: number,
): Promise<{ revoked: number; before: boolean }> {
  const [changed = [], found = []] = await execute(database, [
    `UPDATE api_keys SET revoked_at = ${now} WHERE id = ${sqlText(id)} AND revoked_at IS NULL RETURNING id`,
    `SELECT revoked_at FROM api_keys WHERE id = ${sqlText(id)}`,
  ]);
  const [row] = found;
  if (row === undefined) throw new CommandError(`there is no key '${id}'; npm run keys -- list shows what there is.`);
  return { revoked: z.number().parse(row.revoked_at), before: changed.length === 0 };
}

/** Keys as a table with a head. */
export const keyTable = (keys: readonly StoredKey[]): string =>
  table([["id", "name", "mode", "may", "created", "revoked"], ...keys.map(cellsOf)]);

const cellsOf = ({ id, name, livemode, permissions, created, revoked }: StoredKey): readonly string[] => [
  id,
  // Another tool may have written the name, so control characters in it must not reach the terminal.
  name.replaceAll(/[\p{Cc}\p{Zl}\p{Zp}]/gu, "\u{fffd}"),
  livemode ? "live" : "test",
  permissions,
  time(created),
  revoked === undefined ? "" : time(revoked),
];

/** To the second. */
const time = (ms: number): string => new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");
