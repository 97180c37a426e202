import type { Env, Execution } from "../env.ts";
import { err, ok, type Result } from "../metering/result.ts";
import { type ApiKey, findKey, isKnownUnentitled } from "../storage/keys.ts";
import type { ApiError } from "./errors.ts";
import { readToken } from "./session-tokens.ts";

const BEARER = /^Bearer +(\S+) *$/i;
const BASIC = /^Basic +([A-Za-z0-9+/]+={0,2}) *$/i;

/** Who calls, by the Authorization header: `Bearer KEY`, or Basic with the key as user name (curl -u KEY:). */
export async function authenticate(
  header: string | undefined,
  db: D1Database,
  execution: Execution,
): Promise<Result<ApiKey, ApiError>> {
  if (!header) return err({ reason: "no_key" });
  const secret = secretOf(header);
  const key = secret === undefined ? undefined : await findKey(db, secret, execution);
  return key === undefined ? err({ reason: "invalid_key" }) : ok(key);
}

/** Who streams, by the token of a session; refused once its API key is known not to be entitled to it any more. `now` in ms. */
export async function authenticateSession(
  header: string | undefined,
  { DB, SESSION_SECRET }: Env,
  execution: Execution,
  now: number,
): Promise<Result<ApiKey, ApiError>> {
  const token = header === undefined ? undefined : BEARER.exec(header)?.[1];
  const key = await readToken(token ?? "", SESSION_SECRET, now);
  if (!key.ok) return key;
  return (await isKnownUnentitled(DB, key.value, execution)) ? err({ reason: "invalid_session" }) : key;
}

function secretOf(header: string): string | undefined {
  const bearer = BEARER.exec(header)?.[1];
  if (bearer !== undefined) return bearer;
  const basic = BASIC.exec(header)?.[1];
  return basic === undefined ? undefined : Buffer.from(basic, "base64").toString("latin1").split(":", 1)[0];
}
