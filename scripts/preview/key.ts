import { z } from "zod";
import { UNRESTRICTED } from "../../src/domain/permissions.ts";
import type { Cloudflare } from "../deploy/cloudflare.ts";
import { type Database, query } from "../deploy/database.ts";
import { newKey } from "../keys/keys.ts";

/** When a run of `npm run preview` makes a key: if there is none that works, each time, or not at all. */
export const KEY_CHOICES = ["first", "always", "never"] as const;
export type KeyChoice = (typeof KEY_CHOICES)[number];

/** A new test key of a preview, or `undefined` when none is to be made. Only the caller gets it. */
export async function previewKey(
  cloudflare: Cloudflare,
  database: Database,
  choice: KeyChoice,
): Promise<string | undefined> {
  if (choice === "never" || (choice === "first" && (await hasKey(cloudflare, database)))) return undefined;
  const { secret, sql } = newKey({ name: "preview", livemode: false, permissions: UNRESTRICTED }, Date.now());
  await query(cloudflare, database, sql);
  return secret;
}

const Count = z.tuple([z.object({ keys: z.number() })]);

async function hasKey(cloudflare: Cloudflare, database: Database): Promise<boolean> {
  const sql =
    "SELECT count(*) AS keys FROM api_keys WHERE livemode = 0 AND revoked_at IS NULL AND id <> 'key_self_test'";
  const [rows] = await query(cloudflare, database, sql);
  return Count.parse(rows)[0].keys > 0;
}
