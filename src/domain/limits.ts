import { DAY_MS, HOUR_MS, MINUTE_MS } from "./window.ts";

/**
 * Every limit that Stripe leaves open, in one place. README.md lists them for users;
 * the error for an input past one of them names the limit.
 */
export const LIMITS = {
  /** Keys in an event's payload. */
  payloadKeys: 50,
  /** Characters of a payload key. */
  payloadKeyLength: 100,
  /** Characters of a payload value, so also of a customer. */
  payloadValueLength: 500,
  /** Bytes of a payload as JSON. */
  payloadBytes: 8_000,
  /** Characters of an identifier. */
  identifierLength: 100,
  /** Dimensions that a meter declares. */
  dimensionKeys: 10,
  /** Combinations of values that are told apart, of a customer on a meter and in one database. */
  dimensionCombinations: 5_000,
  /** Characters of a meter's event name. */
  eventNameLength: 100,
  /** Characters of a meter's display name. */
  displayNameLength: 250,
  /** Characters of an Idempotency-Key header. */
  idempotencyKeyLength: 255,
  /** Bytes of a request body. */
  bodyBytes: 256_000,
  /** Bytes of the body of a stream's request. */
  streamBodyBytes: 1_000_000,
  /** Events in a stream's request. */
  streamEvents: 100,
  /** Characters of a cursor that holds values of dimensions. */
  cursorLength: 12_000,
  /** Meters of a request for usage, and values of a filter. */
  listItems: 20,
  /** Objects on one page of a list. */
  pageSize: 100,
  /** Rows of usage that are in memory for one page: windows, customers and values of dimensions, multiplied. */
  usageRows: 100_000,
  /** Files of the archive that are read for one page. */
  archiveReads: 200,
} as const;

/** How long an identifier stays taken, and an Idempotency-Key is remembered (ms). */
export const UNIQUENESS_MS = DAY_MS;

/** How long a session's token lasts (ms). */
export const SESSION_MS = 15 * MINUTE_MS;

/** How far back an event's timestamp may lie: 35 calendar days (ms). */
export const TIMESTAMP_PAST_MS = 35 * DAY_MS;

/** How far ahead an event's timestamp may lie: 5 minutes (ms). */
export const TIMESTAMP_AHEAD_MS = 5 * MINUTE_MS;

/** From which time between its timestamp and its receipt on an event is in the index of late ones (ms). */
export const LATE_MS = HOUR_MS;

/** Refused events of a code that an error report shows; the others are only counted. */
export const REJECTION_SAMPLES = 10;
