import type { Env } from "../env.ts";
import { logError } from "../logger.ts";

/** What an endpoint's calls count as, per API key and Cloudflare location; wrangler.toml has the figures. */
const LIMITED_AS = {
  sync_events: "SYNC_EVENTS_LIMIT",
  streams: "STREAMS_LIMIT",
  reads: "READS_LIMIT",
  administration: "ADMINISTRATION_LIMIT",
} as const;

/** The limit that an endpoint's calls count against. */
export type LimitClass = keyof typeof LIMITED_AS;

/** Counts a call of a key, and says whether it is within the limit of its class. */
export const isWithinLimit = (env: Env, limit: LimitClass, keyId: string): Promise<boolean> =>
  isAllowed(env[LIMITED_AS[limit]], keyId);

/**
 * Counts the refused events of a key's stream request, and says whether they are within the limit of
 * 1,000 in 10 seconds. The binding counts one at a time, so it is asked once for each event: that is
 * local to the location and costs little, and only callers whose events are refused pay for it.
 */
export async function refusedEventsAllowed(env: Env, keyId: string, count: number): Promise<boolean> {
  const each = Array.from({ length: count }, () => isAllowed(env.REFUSED_EVENTS_LIMIT, keyId));
  return (await Promise.all(each)).every(Boolean);
}

/** Counts one for `key`. While the limiter itself fails, nothing is refused: it protects, it does not decide. */
export async function isAllowed(limit: RateLimit | undefined, key: string): Promise<boolean> {
  if (limit === undefined) return true;
  try {
    return (await limit.limit({ key })).success;
  } catch (error) {
    logError("a rate limit was not counted", error);
    return true;
  }
}
