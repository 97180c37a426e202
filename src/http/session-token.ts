// A session's token proves by its signature who asked for it, so that a stream is admitted without a
// look into any database and nothing about a session is stored.
import { sign, verify } from "hono/jwt";
import * as z from "zod";
import type { ApiKey } from "../catalog/api-keys.ts";
import { SESSION_MS } from "../domain/limits.ts";
import { err, ok, type Result } from "../domain/result.ts";
import { SECOND_MS } from "../domain/window.ts";
import type { ApiError } from "./errors.ts";

/** Tells a token from an API key, to people and to secret scanners. */
const PREFIX = "token_";

const ALGORITHM = "HS256";

/** A shorter secret could be guessed from any token (characters). */
const SECRET_LENGTH = 32;

const Claims = z.object({
  /** The API key's id. */
  sub: z.string().min(1),
  livemode: z.boolean(),
  /** What the token is for, so that nothing else signed with the secret passes for one. */
  aud: z.literal("meter_event_stream"),
  /** Unix seconds. */
  exp: z.int(),
});

/** A session as its caller learns of it. Times in ms, on whole seconds as the token has them. */
type Session = { readonly token: string; readonly created: number; readonly expires: number };

/** A new session of an API key that may ingest. Yields `sessions_not_configured` where the deployment has no secret. */
export async function issueSession(
  { id, livemode }: Pick<ApiKey, "id" | "livemode">,
  secret: string | undefined,
  now: number,
): Promise<Result<Session, ApiError>> {
  if (!isUsable(secret)) return err({ reason: "sessions_not_configured" });
  const created = Math.floor(now / SECOND_MS) * SECOND_MS;
  const expires = created + SESSION_MS;
  const claims: z.output<typeof Claims> = { sub: id, livemode, aud: "meter_event_stream", exp: expires / SECOND_MS };
  return ok({ token: PREFIX + (await sign(claims, secret, ALGORITHM)), created, expires });
}

/**
 * The API key that a token stands for, by its id, and its mode. Whether the key still works is not the
 * token's to say. Yields `session_expired` only for a token that was genuine, else `invalid_session`.
 */
export async function readToken(
  token: string,
  secret: string | undefined,
  now: number,
): Promise<Result<{ keyId: string; livemode: boolean }, ApiError>> {
  if (!isUsable(secret)) return err({ reason: "sessions_not_configured" });
  if (!token.startsWith(PREFIX)) return err({ reason: "invalid_session" });
  const claims = await verifiedClaims(token.slice(PREFIX.length), secret);
  if (claims === undefined) return err({ reason: "invalid_session" });
  if (now >= claims.exp * SECOND_MS) return err({ reason: "session_expired" });
  return ok({ keyId: claims.sub, livemode: claims.livemode });
}

/** What a token says; nothing when it was not signed here. The expiry is the caller's: `verify` would look at it before the signature. */
async function verifiedClaims(jwt: string, secret: string): Promise<z.output<typeof Claims> | undefined> {
  try {
    return Claims.parse(await verify(jwt, secret, { alg: ALGORITHM, exp: false }));
  } catch {
    // Whatever the token provokes, it is no token of ours.
    return undefined;
  }
}

const isUsable = (secret: string | undefined): secret is string =>
  secret !== undefined && secret.length >= SECRET_LENGTH;
