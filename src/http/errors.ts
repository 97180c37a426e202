import type { MeteringError, OtherRange } from "../domain/errors.ts";
import { LIMITS } from "../domain/limits.ts";
import type { Permission } from "../domain/permissions.ts";
import { SECOND_MS } from "../domain/window.ts";

/** Stripe's two APIs: v1 (forms, unix seconds) and v2 (JSON, RFC 3339). */
export type ApiVersion = "v1" | "v2";

/** Failures of a request outside the rules of metering. */
type RequestError =
  | { readonly reason: "no_key" }
  | { readonly reason: "invalid_key" }
  /** No token of a session, a forged one, or one whose API key is revoked, of the other mode, or may not ingest. */
  | { readonly reason: "invalid_session" }
  | { readonly reason: "session_expired" }
  /** The deployment has no secret to sign and check tokens with. */
  | { readonly reason: "sessions_not_configured" }
  /** A key that may not do what the call needs. */
  | { readonly reason: "permission_denied"; readonly needs: Permission }
  /** A test key, for what concerns the data of both modes. */
  | { readonly reason: "live_key_required" }
  | { readonly reason: "no_such_dead_letter"; readonly id: string }
  /** What D1 says of a dead letter's data still. */
  | { readonly reason: "still_refused"; readonly id: string; readonly cause: string }
  /** A dead letter that was redriven before, or discarded: it cannot be the other too. */
  | { readonly reason: "letter_ended"; readonly id: string; readonly as: "redriven" | "discarded" }
  /** What was received before a request was not in the databases within the time that it would wait. */
  | { readonly reason: "not_included_in_time"; readonly seconds: number }
  /** The archive holds its lease of a database; it gives it up within a step. */
  | { readonly reason: "archive_at_work" }
  | { readonly reason: "unknown_url"; readonly method: string; readonly path: string }
  | { readonly reason: "method_not_allowed"; readonly method: string; readonly path: string; readonly allowed: string }
  | { readonly reason: "body_too_large"; readonly limit: number }
  | { readonly reason: "unsupported_content_type"; readonly expected: string }
  | { readonly reason: "unsupported_content_encoding"; readonly encoding: string }
  /** A v1 parameter that is there, but empty. */
  | { readonly reason: "empty_parameter"; readonly param: string }
  | { readonly reason: "malformed_body"; readonly message: string }
  /** Something that this service needs did not respond; what came of the request is unknown. */
  | { readonly reason: "unavailable" };

export type ApiError = MeteringError | RequestError;

type Status = 400 | 401 | 403 | 404 | 405 | 409 | 413 | 415 | 429 | 503;

/** How clients see one kind of error: constants, or functions of the error where they depend on it. */
type Row<E extends ApiError> = {
  readonly status: Status | ((error: E) => Status);
  readonly message: string | ((error: E) => string);
  /** `error.param`, absent unless given. */
  readonly param?: string | ((error: E) => string | undefined);
  /** v1's `error.type`, `invalid_request_error` unless given; `error.code`, absent unless given; its status, if not v2's. */
  readonly v1?: { readonly type?: "api_error" | "idempotency_error"; readonly code?: string; readonly status?: Status };
  /** v2's `error.code`; `error.type`, unless given `invalid_request_error` with 400 and 404, and absent with others. */
  readonly v2: {
    readonly code: string;
    readonly type?: "idempotency_error" | "rate_limit" | "temporary_session_expired";
  };
  /** `error.doc_url` (v2 needs one for an expired session), absent unless given. */
  readonly docUrl?: string;
  /** What `stripe-should-retry` says; an SDK decides by the status when it is absent. */
  readonly retry?: boolean;
  /** What `retry-after` says (s): only where a retry can help. */
  readonly retryAfterS?: number;
  readonly headers?: (error: E) => Readonly<Record<string, string>>;
};

/** A request that is at fault itself, which v2 has one code for. */
const INVALID = { status: 400, v2: { code: "invalid_fields" } } as const;

const NOT_FOUND = { v1: { code: "resource_missing" }, v2: { code: "not_found" } } as const;

const UNAUTHORIZED = {
  status: 401,
  v2: { code: "unauthorized" },
  headers: () => ({ "www-authenticate": 'Bearer realm="edgemeter"' }),
} as const;

const FORBIDDEN = { status: 403, v2: { code: "forbidden" } } as const;

/** A failure of the service that a retry can outlast. */
const UNAVAILABLE = { status: 503, v1: { type: "api_error" }, retry: true, retryAfterS: 2 } as const;

const paramOf = ({ param }: { readonly param?: string | undefined }): string | undefined => param;
const payloadParam = ({ key }: { readonly key: string }): string => `payload[${key}]`;
const ownMessage = ({ message }: { readonly message: string }): string => message;
const fault = (error: { readonly key: string; readonly fault: string }): string =>
  `Invalid ${payloadParam(error)}: ${error.fault}`;
const noActiveMeter = ({ eventName }: { readonly eventName: string }): string =>
  `No active meter found for event name "${eventName}".`;

const RANGE_PARAM = { summary: undefined, timestamp: "timestamp", receipt: "created", export: "from" } as const;
const rangeParam = ({ instead }: { readonly instead: OtherRange }): string | undefined => RANGE_PARAM[instead.of];
const NEEDING = {
  summary: "This range begins or ends within a quarter hour, so it needs events",
  timestamp: "This page needs events",
  receipt: "This page needs events",
  export: "This range may have events",
} as const;
const needing = ({ of }: OtherRange): string => NEEDING[of];

/** What a message says to ask for instead. */
function asking(instead: OtherRange): string {
  if (instead.of === "summary") {
    const { start, end } = instead.aligned;
    return `The nearest quarter hours need none: from ${start / SECOND_MS} to ${end / SECOND_MS}.`;
  }
  if (instead.of === "export") return `Export those of a later time on: from=${Math.ceil(instead.from / SECOND_MS)}.`;
  const param = RANGE_PARAM[instead.of];
  return "from" in instead
    ? `Ask for events from a later time on: ${param}[gte]=${Math.ceil(instead.from / SECOND_MS)}.`
    : `Ask for events before an earlier time: ${param}[lt]=${Math.floor(instead.before / SECOND_MS)}.`;
}

/** Stripe's statuses, codes and messages for every reason (docs/wire-contract.md, section 2). */
const ROWS: { readonly [R in ApiError["reason"]]: Row<Extract<ApiError, { reason: R }>> } = {
  invalid_field: { ...INVALID, message: ownMessage, param: paramOf },
  unknown_parameter: {
    ...INVALID,
    message: ({ param }) => `Received unknown parameter: ${param}`,
    param: paramOf,
    v1: { code: "parameter_unknown" },
  },
  missing_parameter: {
    ...INVALID,
    message: ({ param }) => `Missing required param: ${param}.`,
    param: paramOf,
    v1: { code: "parameter_missing" },
  },
  empty_parameter: {
    ...INVALID,
    message: ({ param }) =>
      `You passed an empty string for '${param}'. We assume empty values are an attempt to unset a parameter; however '${param}' cannot be unset. You should remove '${param}' from your request or supply a non-empty value.`,
    param: paramOf,
    v1: { code: "parameter_invalid_empty" },
    docUrl: "https://stripe.com/docs/error-codes/parameter-invalid-empty",
  },
  no_meter: { status: 400, message: noActiveMeter, param: "event_name", v2: { code: "no_meter" } },
  archived_meter: { status: 400, message: noActiveMeter, param: "event_name", v2: { code: "archived_meter" } },
  payload_no_customer_defined: {
    status: 400,
    message: ({ key }) => `Customer mapping key ${key} not found in payload.`,
    param: payloadParam,
    v2: { code: "payload_no_customer_defined" },
  },
  invalid_customer: { ...INVALID, message: fault, param: payloadParam },
  invalid_dimension: { ...INVALID, message: fault, param: payloadParam },
  payload_no_value_defined: {
    status: 400,
    message: ({ key }) => `Value key ${key} not found in payload.`,
    param: payloadParam,
    v2: { code: "payload_no_value_defined" },
  },
  payload_invalid_value: {
    status: 400,
    message: ({ value }) =>
      `The value in the event payload ${hasTooManyDigits(value) ? "can have" : "must be a positive integer of"} at most 15 digits. Received ${value}.`,
    param: payloadParam,
    v2: { code: "payload_invalid_value" },
  },
  missing_dimension_payload_keys: {
    status: 400,
    message: ({ keys }) =>
      `The event payload lacks ${keys.join(", ")}, which its meter declares in dimension_payload_keys.`,
    param: ({ keys: [key = ""] }) => payloadParam({ key }),
    v1: { code: "missing_dimension_payload_keys" },
    v2: { code: "missing_dimension_payload_keys" },
  },
  timestamp_too_far_in_past: {
    status: 400,
    message: ({ earliest }) =>
      `The event timestamp cannot be more than 35 days in past. Expected a timestamp greater than or equal to ${Math.ceil(earliest / SECOND_MS)}.`,
    param: "timestamp",
    v2: { code: "timestamp_too_far_in_past" },
  },
  timestamp_in_future: {
    status: 400,
    message: ({ latest }) =>
      `The event timestamp cannot be more than 5 minutes in the future. Expected a timestamp less than or equal to ${Math.floor(latest / SECOND_MS)}.`,
    param: "timestamp",
    v2: { code: "timestamp_in_future" },
  },
  too_many_concurrent_requests: {
    status: 409,
    message: "Cannot create multiple usage events for the same customer, meter concurrently.",
    v1: { code: "too_many_concurrent_requests" },
    v2: { code: "too_many_concurrent_requests" },
    retryAfterS: 1,
  },
  duplicate_meter_event: {
    status: 400,
    message: ({ identifier }) => `An event already exists with identifier ${identifier}.`,
    param: "identifier",
    v2: { code: "duplicate_meter_event" },
    retry: false,
  },
  idempotency_key_reused: {
    status: 409,
    message: ({ key }) =>
      `Keys for idempotent requests can only be used with the same parameters they were first used with. Try using a key other than '${key}' if you meant to execute a different request.`,
    v1: { type: "idempotency_error", status: 400 },
    v2: { code: "idempotency_error", type: "idempotency_error" },
    retry: false,
  },
  invalid_cancel_configuration: {
    status: 400,
    message: (error) => NOT_CANCELLED[error.cause](error),
    param: ({ cause }) => (cause === "other_meter" ? "event_name" : "cancel[identifier]"),
    v2: { code: "invalid_cancel_configuration" },
    retry: false,
  },
  no_such_event: {
    ...NOT_FOUND,
    status: ({ param }) => (param === "identifier" ? 404 : 400),
    message: ({ id }) => `No such meter event: '${id}'`,
    param: paramOf,
  },
  meter_name_taken: {
    ...INVALID,
    message: ({ eventName }) =>
      `An active meter already exists for event name '${eventName}'. To create a new meter with the same event name, first deactivate the currently active meter.`,
    param: "event_name",
  },
  no_such_meter: {
    ...NOT_FOUND,
    status: ({ param }) => (param === "id" ? 404 : 400),
    message: ({ id }) => `No such meter: '${id}'`,
    param: paramOf,
  },
  no_such_summary: {
    ...NOT_FOUND,
    status: 400,
    message: ({ id }) => `No such meter event summary in this range: '${id}'`,
    param: paramOf,
  },
  no_such_core_event: { ...NOT_FOUND, status: 404, message: ({ id }) => `No such event: '${id}'`, param: "id" },
  misaligned_time: {
    ...INVALID,
    message: ({ param, seconds, expectedSeconds, grouping }) =>
      `${param} ${seconds} should be aligned with ${grouping === "hour" ? "hourly" : "daily"} boundaries (expected ${expectedSeconds}) because the \`value_grouping_window\` is ${grouping}.`,
    param: paramOf,
  },
  usage_too_large: {
    ...INVALID,
    message: `This needs more than ${LIMITS.usageRows.toLocaleString("en")} sums at once. Ask for a shorter range, longer windows, or fewer values of dimensions.`,
  },
  archived_range_unaligned: {
    status: 400,
    message: ({ instead }) =>
      `${needing(instead)} that are in more than ${LIMITS.archiveReads} files of the archive. ${asking(instead)}`,
    param: rangeParam,
    v1: { code: "archived_range_unaligned" },
    v2: { code: "archived_range_unaligned" },
  },
  archived_range_deleted: {
    status: 400,
    message: ({ instead }) => `${needing(instead)} that are deleted. ${asking(instead)}`,
    param: rangeParam,
    v1: { code: "archived_range_deleted" },
    v2: { code: "archived_range_deleted" },
  },
  no_key: {
    ...UNAUTHORIZED,
    message:
      "You did not provide an API key. You need to provide your API key in the Authorization header, using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY'), or as the user name of Basic auth.",
  },
  invalid_key: { ...UNAUTHORIZED, message: "Invalid API Key provided." },
  invalid_session: {
    ...UNAUTHORIZED,
    message:
      "Invalid session token provided. Create a session with POST /v2/billing/meter_event_session, and use its authentication_token with Bearer auth.",
  },
  session_expired: {
    ...UNAUTHORIZED,
    message: "The session of this token has expired. Create a new one with POST /v2/billing/meter_event_session.",
    v2: { code: "billing_meter_event_session_expired", type: "temporary_session_expired" },
    docUrl: "/docs",
  },
  sessions_not_configured: {
    status: 503,
    message:
      "This deployment has no sessions for streams: it needs SESSION_SECRET, a random secret of at least 32 characters.",
    v1: { type: "api_error" },
    v2: { code: "sessions_not_configured" },
    // Only its operator can change that.
    retry: false,
  },
  permission_denied: {
    ...FORBIDDEN,
    message: ({ needs }) =>
      `The API key provided may not make this call, which needs ${needs === "manage" ? "an unrestricted key (sk_…)" : `the permission '${needs}'`}.`,
  },
  live_key_required: {
    ...FORBIDDEN,
    message: "This concerns the data of both modes, so it needs a live key.",
  },
  no_such_dead_letter: {
    ...NOT_FOUND,
    status: 404,
    message: ({ id }) => `No such dead letter: '${id}'`,
    param: "id",
  },
  still_refused: {
    status: 400,
    message: ({ id, cause }) => `The database still refuses the dead letter '${id}': ${cause}`,
    param: "id",
    v1: { code: "still_refused" },
    v2: { code: "still_refused" },
  },
  letter_ended: {
    status: 400,
    message: ({ id, as }) => `The dead letter '${id}' was ${as} before.`,
    param: "id",
    v1: { code: "letter_ended" },
    v2: { code: "letter_ended" },
  },
  not_included_in_time: {
    ...UNAVAILABLE,
    message: ({ seconds }) =>
      `Not all that was received before this request was in the databases within ${seconds} seconds (edgemeter-wait). Send it again, or leave the header out for what is there. While an entry waits as a dead letter, no wait succeeds.`,
    v1: { type: "api_error", code: "not_included_in_time" },
    v2: { code: "not_included_in_time" },
  },
  archive_at_work: {
    status: 409,
    message: "The archive is at work on the events database. Send the request again in a moment.",
    v1: { code: "archive_at_work" },
    v2: { code: "archive_at_work" },
    retryAfterS: 1,
  },
  rate_limited: {
    status: 429,
    message: "Too many requests hit the API too quickly. We recommend an exponential backoff of your requests.",
    v1: { code: "rate_limit" },
    v2: { code: "account_rate_limit_exceeded", type: "rate_limit" },
    retryAfterS: 10,
  },
  unknown_url: {
    status: 404,
    message: ({ method, path }) => `Unrecognized request URL (${method}: ${path}).`,
    v2: { code: "not_found" },
  },
  method_not_allowed: {
    status: 405,
    message: ({ method, path, allowed }) => `Unrecognized request method (${method}: ${path}). Allowed: ${allowed}.`,
    v2: { code: "method_not_allowed" },
    headers: ({ allowed }) => ({ allow: allowed }),
  },
  body_too_large: {
    ...INVALID,
    status: 413,
    message: ({ limit }) => `The request body can have at most ${limit} bytes.`,
  },
  unsupported_content_type: {
    ...INVALID,
    status: 415,
    message: ({ expected }) => `Invalid request: check that its Content-Type is ${expected}.`,
  },
  unsupported_content_encoding: {
    ...INVALID,
    status: 415,
    message: ({ encoding }) =>
      `The Content-Encoding '${encoding}' is not supported. Send the body as it is, or with gzip.`,
    headers: () => ({ "accept-encoding": "gzip" }),
  },
  malformed_body: { ...INVALID, message: ownMessage },
  log_full: {
    ...UNAVAILABLE,
    message:
      "The event log is full until its events are aggregated. Send the request again later, with the same identifiers or Idempotency-Key.",
    v2: { code: "log_full" },
  },
  setting_changed: {
    ...UNAVAILABLE,
    message: ({ setting, configured, recorded }) =>
      `This deployment is configured with ${setting} = ${configured || '""'}, but its data was recorded with ${recorded || '""'}. It accepts no events until the setting is put back.`,
    v2: { code: "setting_changed" },
  },
  databases_changed: {
    ...UNAVAILABLE,
    message: ({ recorded }) =>
      `This deployment is configured with fewer events databases than the ${recorded} that its events are in. It responds again when EVENTS_0 to EVENTS_${recorded - 1} are in wrangler.toml.`,
    v2: { code: "databases_changed" },
  },
  unavailable: {
    ...UNAVAILABLE,
    message:
      "The request could not be finished. It is safe to send it again with the same identifier or Idempotency-Key.",
    v2: { code: "service_unavailable" },
  },
};

type NotCancelled = Extract<ApiError, { reason: "invalid_cancel_configuration" }>;

/** Why an event cannot be cancelled. */
const NOT_CANCELLED: { readonly [C in NotCancelled["cause"]]: (error: NotCancelled) => string } = {
  unknown: ({ identifier }) => `No event with identifier ${identifier} was received in the last 24 hours.`,
  too_old: ({ identifier }) =>
    `The event with identifier ${identifier} was received more than 24 hours ago and can no longer be cancelled.`,
  other_meter: ({ identifier, eventName }) =>
    `The event with identifier ${identifier} was not reported with event name "${eventName}".`,
  already_cancelled: ({ identifier }) => `The event with identifier ${identifier} is already cancelled.`,
};

/** The row of an error. The table's type makes each row one of its own reason, which the compiler cannot follow here. */
const rowOf = (error: ApiError): Row<ApiError> => ROWS[error.reason] as Row<ApiError>;

/** A constant, or what a function makes of an error. */
const evaluate = <T extends string | number | undefined>(value: T | ((error: ApiError) => T), error: ApiError): T =>
  typeof value === "function" ? value(error) : value;

/** What the response to an error says, for those that are told later and elsewhere. */
export const messageOf = (error: ApiError): string => evaluate(rowOf(error).message, error);

/** The code of a v2 response to an error, for those that are told of it in another response. */
export const codeOf = (error: ApiError): string => rowOf(error).v2.code;

/** Whether a value fails for its length alone, which Stripe tells apart. */
export const hasTooManyDigits = (value: string): boolean => /^[0-9]{16,}$/.test(value);

const INVALID_REQUEST = "invalid_request_error";

/** The headers that every response has. */
export type CommonHeaders = Readonly<Record<string, string>>;

/** The response to a failed request: Stripe's `{"error": …}`, which the SDKs need on every status that is not 2xx. */
export function errorResponse(apiVersion: ApiVersion, error: ApiError, common: CommonHeaders = {}): Response {
  const row = rowOf(error);
  const status = (apiVersion === "v1" ? row.v1?.status : undefined) ?? evaluate(row.status, error);
  const body = apiVersion === "v1" ? v1Error(row, error) : v2Error(row, error, status);
  return new Response(JSON.stringify({ error: body }), {
    status,
    headers: {
      ...common,
      "content-type": "application/json",
      ...(row.retryAfterS === undefined ? {} : { "retry-after": String(row.retryAfterS) }),
      ...(row.retry === undefined ? {} : { "stripe-should-retry": String(row.retry) }),
      ...row.headers?.(error),
    },
  });
}

const v1Error = ({ v1, param, docUrl }: Row<ApiError>, error: ApiError) => ({
  type: v1?.type ?? INVALID_REQUEST,
  message: messageOf(error),
  code: v1?.code,
  param: evaluate(param, error),
  doc_url: docUrl,
});

const v2Error = ({ v2, param, docUrl }: Row<ApiError>, error: ApiError, status: Status) => ({
  code: v2.code,
  message: messageOf(error),
  // Without a type, stripe-node before 21 makes an unknown error of a 400 or 404.
  type: v2.type ?? (status === 400 || status === 404 ? INVALID_REQUEST : undefined),
  param: evaluate(param, error),
  doc_url: docUrl,
});
