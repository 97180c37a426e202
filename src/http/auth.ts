import { type ApiKey, findKey, isKnown, type KeyName, nameOfId, nameOfSecret } from "../catalog/api-keys.ts";
import { err, ok, type Result } from "../domain/result.ts";
import type { Env, Execution } from "../env.ts";
import type { ApiError } from "./errors.ts";
import { readToken } from "./session-token.ts";
import { UnknownKeys } from "./unknown-keys.ts";

const BEARER = /^Bearer +(\S+) *$/i;
const BASIC = /^Basic +([A-Za-z0-9+/]+={0,2}) *$/i;

/** What tells who calls. */
export type Credentials = {
  /** The Authorization header. */
  readonly authorization: string | undefined;
  /** The client's address, as Cloudflare knows it. */
  readonly address: string | undefined;
  readonly env: Env;
  readonly execution: Execution;
  /** When the request came in (ms). */
  readonly now: number;
};

const unknownKeys = new UnknownKeys();

/**
 * Who calls, by an API key: `Bearer KEY`, or Basic with the key as user name (curl -u KEY:). Throws when
 * the database does not respond and this isolate does not know the key.
 */
export async function authenticate(credentials: Credentials): Promise<Result<ApiKey, ApiError>> {
  const { authorization } = credentials;
  if (!authorization) return err({ reason: "no_key" });
  const secret = secretOf(authorization);
  const name = secret === undefined ? undefined : nameOfSecret(secret);
  return name === undefined ? err({ reason: "invalid_key" }) : holderOf(name, credentials, { reason: "invalid_key" });
}

/**
 * Who streams, by the token of a session. The token alone proves nothing about its API key: that is looked
 * up as any other is, and must still be of the session's mode and allowed to ingest. Throws as `authenticate` does.
 */
export async function authenticateSession(credentials: Credentials): Promise<Result<ApiKey, ApiError>> {
  const token = BEARER.exec(credentials.authorization ?? "")?.[1];
  const session = await readToken(token ?? "", credentials.env.SESSION_SECRET, credentials.now);
  if (!session.ok) return session;
  const key = await holderOf(nameOfId(session.value.keyId), credentials, { reason: "invalid_session" });
  if (!key.ok) return key;
  const { livemode, permissions } = key.value;
  const isEntitled = livemode === session.value.livemode && permissions.has("ingest");
  return isEntitled ? key : err({ reason: "invalid_session" });
}

/** The API key of a name; `unknown` when there is none, or when the caller presents too many of those. */
async function holderOf(
  name: KeyName,
  { address, env, execution, now }: Credentials,
  unknown: ApiError,
): Promise<Result<ApiKey, ApiError>> {
  if (isKnown(name)) {
    const key = await findKey(env.DB, name, execution);
    return key === undefined ? err(unknown) : ok(key);
  }
  if (unknownKeys.isUnknown(name, now)) return err(unknown);
  const leave = await unknownKeys.mayAsk(env, address, name, now);
  if (leave === "refused") return err({ reason: "rate_limited" });
  const key = await findKey(env.DB, name, execution);
  if (key !== undefined) return ok(key);
  const isWithin = await unknownKeys.note(env, address, name, leave, now);
  return err(isWithin ? unknown : { reason: "rate_limited" });
}

function secretOf(header: string): string | undefined {
  const bearer = BEARER.exec(header)?.[1];
  if (bearer !== undefined) return bearer;
  const basic = BASIC.exec(header)?.[1];
  return basic === undefined ? undefined : Buffer.from(basic, "base64").toString("latin1").split(":", 1)[0];
}
