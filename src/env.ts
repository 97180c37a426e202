import * as z from "zod";

/** Lets work go on after the answer. */
export type Execution = Pick<ExecutionContext, "waitUntil">;

const count = (min: number, max: number) => z.coerce.number().int().min(min).max(max);

const LOCATION_HINTS = ["", "wnam", "enam", "sam", "weur", "eeur", "apac", "oc", "afr", "me"] as const;

/** Where Durable Objects can be created; "" for near its first caller. */
export type LocationHint = (typeof LOCATION_HINTS)[number];

export const isLocationHint = (text: string): text is LocationHint => LOCATION_HINTS.some((hint) => hint === text);

const Settings = z.object({
  EVENT_LOG_SHARDS: count(1, 1_000),
  TEST_EVENT_LOG_SHARDS: count(1, 1_000),
  LOCATION_HINT: z.enum(LOCATION_HINTS),
  JURISDICTION: z.enum(["", "eu", "fedramp"]),
  CONFLICT_WAIT_MS: count(0, 10_000),
  RETRY_WAIT_MS: count(0, 10_000),
  GROUP_COMMIT_MS: count(0, 1_000),
  SEND_INTERVAL_MS: count(1, 15_000),
  RESEND_AFTER_MS: count(1, 3_600_000),
  LOG_HIGH_WATER_MB: count(1, 10_000),
  DATABASE_HIGH_WATER_MB: count(1, 10_000),
  EVENTS_HOT_DAYS: count(2, 400),
  AUDIT_ROWS_A_MINUTE: count(0, 10_000_000),
});

/** The settings of wrangler.toml's `[vars]`, as numbers. */
export type Settings = Readonly<z.output<typeof Settings>>;

/**
 * Limits of requests in a time, per API key or client address and location. wrangler.toml has the figures; a
 * limit whose block is not there does not exist.
 */
export type RateLimitName =
  | "SYNC_EVENTS_LIMIT"
  | "STREAMS_LIMIT"
  | "READS_LIMIT"
  | "ADMINISTRATION_LIMIT"
  | "REFUSED_EVENTS_LIMIT"
  | "UNKNOWN_KEYS_LIMIT";

/** What wrangler.toml binds. */
export type Env = Readonly<
  {
    /** The control database: keys, meters, settings. */
    DB: D1Database;
    /** Live mode's events databases: EVENTS_1 and on are there when wrangler.toml has them; see `eventsDatabases`. */
    EVENTS_0: D1Database;
    TEST_EVENTS: D1Database;
    EVENT_QUEUE: Queue;
    TEST_EVENT_QUEUE: Queue;
    CUSTOMER_METER: DurableObjectNamespace;
    EVENT_LOG: DurableObjectNamespace;
    ARCHIVER: DurableObjectNamespace;
    /** Where events are archived; without it all stay in D1. */
    ARCHIVE?: R2Bucket;
    /** Signs the tokens of streams; without it there are no streams. */
    SESSION_SECRET?: string;
    /** The fingerprint of code and settings, given by `npm run deploy`; without it the version has no name. */
    DEPLOYED_VERSION?: string;
  } & Partial<Record<RateLimitName, RateLimit>> &
    Record<keyof Settings, string>
>;

const parsed = new WeakMap<Env, Settings>();

/** Parses the settings once per isolate. Throws, naming the setting, when one is out of range. */
export function settingsOf(env: Env): Settings {
  let settings = parsed.get(env);
  if (settings === undefined) {
    settings = Settings.parse(env);
    parsed.set(env, settings);
  }
  return settings;
}
