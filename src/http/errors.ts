import type { ChangedSetting } from "../catalog/deployment.ts";
import type { MeteringError } from "../domain/errors.ts";
import type { Permission } from "../domain/permissions.ts";

/** Stripe's two APIs: v1 (forms, unix seconds) and v2 (JSON, RFC 3339). */
export type ApiVersion = "v1" | "v2";

/** Failures of a request before or beside the rules of metering. */
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
  | { readonly reason: "rate_limited" }
  | { readonly reason: "no_such_dead_letter"; readonly id: string }
  /** What D1 says of a dead letter's data still. */
  | { readonly reason: "still_refused"; readonly id: string; readonly cause: string }
  | { readonly reason: "unknown_url"; readonly method: string; readonly path: string }
  | { readonly reason: "method_not_allowed"; readonly method: string; readonly path: string; readonly allowed: string }
  | { readonly reason: "body_too_large"; readonly limit: number }
  | { readonly reason: "unsupported_content_type"; readonly expected: string }
  | { readonly reason: "unsupported_content_encoding"; readonly encoding: string }
  /** A v1 parameter that is there, but empty. */
  | { readonly reason: "empty_parameter"; readonly param: string }
  | { readonly reason: "malformed_body"; readonly message: string }
  /** The shard of the log is past its high-water mark. */
  | { readonly reason: "log_full" }
  /** The deployment is configured with another number of shards than its data. */
  | ({ readonly reason: "setting_changed" } & ChangedSetting)
  /** Something this service stands on did not answer; what came of the request is unknown. */
  | { readonly reason: "unavailable" };

export type ApiError = MeteringError | RequestError;

/** What either API version says of an error. */
type WireError = {
  readonly status: 400 | 401 | 403 | 404 | 405 | 409 | 413 | 415 | 429 | 503;
  readonly message: string;
  readonly param?: string | undefined;
  /** v1: `error.type`, `invalid_request_error` unless given. */
  readonly v1Type?: "api_error" | "idempotency_error";
  /** v1: `error.code`, absent unless given. */
  readonly v1Code?: string;
  /** v1: when its status is not the same as v2's. */
  readonly v1Status?: 400;
  readonly v2Code: string;
  /** v2: `error.type`, which the SDKs look at first; unless given, `invalid_request_error` with 400 and 404, else absent. */
  readonly v2Type?: "idempotency_error" | "rate_limit" | "temporary_session_expired";
  /** `error.doc_url` (the spec needs one for an expired session), absent unless given. */
  readonly docUrl?: string;
  /** What `stripe-should-retry` says; the SDK decides by the status when it is absent. */
  readonly retry?: boolean;
  readonly headers?: Readonly<Record<string, string>>;
};

const ASK_FOR_KEY = { "www-authenticate": 'Bearer realm="edgemeter"' };

const ceilSeconds = (ms: number): number => Math.ceil(ms / 1_000);
const floorSeconds = (ms: number): number => Math.floor(ms / 1_000);

/** The one mapper from what went wrong to Stripe's codes and messages (wire contract, section 2). */
function describe(error: ApiError): WireError {
  switch (error.reason) {
    case "invalid_field":
      return { status: 400, message: error.message, param: error.param, v2Code: "invalid_fields" };
    case "unknown_parameter":
      return {
        status: 400,
        message: `Received unknown parameter: ${error.param}`,
        param: error.param,
        v1Code: "parameter_unknown",
        v2Code: "invalid_fields",
      };
    case "missing_parameter":
      return {
        status: 400,
        message: `Missing required param: ${error.param}.`,
        param: error.param,
        v1Code: "parameter_missing",
        v2Code: "invalid_fields",
      };
    case "empty_parameter":
      return {
        status: 400,
        message: `You passed an empty string for '${error.param}'. We assume empty values are an attempt to unset a parameter; however '${error.param}' cannot be unset. You should remove '${error.param}' from your request or supply a non-empty value.`,
        param: error.param,
        v1Code: "parameter_invalid_empty",
        v2Code: "invalid_fields",
        docUrl: "https://stripe.com/docs/error-codes/parameter-invalid-empty",
      };
    case "no_meter":
      return { status: 400, message: noActiveMeter(error.eventName), param: "event_name", v2Code: "no_meter" };
    case "archived_meter":
      return { status: 400, message: noActiveMeter(error.eventName), param: "event_name", v2Code: "archived_meter" };
    case "payload_no_customer_defined":
      return {
        status: 400,
        message: `Customer mapping key ${error.key} not found in payload.`,
        param: `payload[${error.key}]`,
        v2Code: "payload_no_customer_defined",
      };
    case "invalid_customer":
    case "invalid_dimension": {
      const param = `payload[${error.key}]`;
      return { status: 400, message: `Invalid ${param}: ${error.fault}`, param, v2Code: "invalid_fields" };
    }
    case "payload_no_value_defined":
      return {
        status: 400,
        message: `Value key ${error.key} not found in payload.`,
        param: `payload[${error.key}]`,
        v2Code: "payload_no_value_defined",
      };
    case "payload_invalid_value":
      return {
        status: 400,
        message: hasTooManyDigits(error.value)
          ? `The value in the event payload can have at most 15 digits. Received ${error.value}.`
          : `The value in the event payload must be a positive integer of at most 15 digits. Received ${error.value}.`,
        param: `payload[${error.key}]`,
        v2Code: "payload_invalid_value",
      };
    case "timestamp_too_far_in_past":
      return {
        status: 400,
        message: `The event timestamp cannot be more than 35 days in past. Expected a timestamp greater than or equal to ${ceilSeconds(error.earliest)}.`,
        param: "timestamp",
        v2Code: "timestamp_too_far_in_past",
      };
    case "timestamp_in_future":
      return {
        status: 400,
        message: `The event timestamp cannot be more than 5 minutes in the future. Expected a timestamp less than or equal to ${floorSeconds(error.latest)}.`,
        param: "timestamp",
        v2Code: "timestamp_in_future",
      };
    case "too_many_concurrent_requests":
      return {
        status: 409,
        message: "Cannot create multiple usage events for the same customer, meter concurrently.",
        v1Code: "too_many_concurrent_requests",
        v2Code: "too_many_concurrent_requests",
      };
    case "duplicate_meter_event":
      return {
        status: 400,
        message: `An event already exists with identifier ${error.identifier}.`,
        param: "identifier",
        v2Code: "duplicate_meter_event",
        retry: false,
      };
    case "idempotency_key_reused":
      return {
        status: 409,
        v1Status: 400,
        message: `Keys for idempotent requests can only be used with the same parameters they were first used with. Try using a key other than '${error.key}' if you meant to execute a different request.`,
        v1Type: "idempotency_error",
        v2Code: "idempotency_error",
        v2Type: "idempotency_error",
        retry: false,
      };
    case "invalid_cancel_configuration":
      return {
        status: 400,
        message: whyNotCancelled(error),
        param: error.cause === "other_meter" ? "event_name" : "cancel[identifier]",
        v2Code: "invalid_cancel_configuration",
        retry: false,
      };
    case "no_such_event":
      return {
        status: error.param === "identifier" ? 404 : 400,
        message: `No such meter event: '${error.id}'`,
        param: error.param,
        v1Code: "resource_missing",
        v2Code: "not_found",
      };
    case "meter_name_taken":
      return {
        status: 400,
        message: `An active meter already exists for event name '${error.eventName}'. To create a new meter with the same event name, first deactivate the currently active meter.`,
        param: "event_name",
        v2Code: "invalid_fields",
      };
    case "no_such_meter":
      return {
        status: error.param === "id" ? 404 : 400,
        message: `No such meter: '${error.id}'`,
        param: error.param,
        v1Code: "resource_missing",
        v2Code: "not_found",
      };
    case "no_such_summary":
      return {
        status: 400,
        message: `No such meter event summary in this range: '${error.id}'`,
        param: error.param,
        v1Code: "resource_missing",
        v2Code: "not_found",
      };
    case "no_such_core_event":
      return {
        status: 404,
        message: `No such event: '${error.id}'`,
        param: "id",
        v1Code: "resource_missing",
        v2Code: "not_found",
      };
    case "misaligned_time":
      return { status: 400, message: misaligned(error), param: error.param, v2Code: "invalid_fields" };
    case "no_key":
      return {
        status: 401,
        message:
          "You did not provide an API key. You need to provide your API key in the Authorization header, using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY'), or as the user name of Basic auth.",
        v2Code: "unauthorized",
        headers: ASK_FOR_KEY,
      };
    case "invalid_key":
      return {
        status: 401,
        message: "Invalid API Key provided.",
        v2Code: "unauthorized",
        headers: ASK_FOR_KEY,
      };
    case "invalid_session":
      return {
        status: 401,
        message:
          "Invalid session token provided. Create a session with POST /v2/billing/meter_event_session, and use its authentication_token with Bearer auth.",
        v2Code: "unauthorized",
        headers: ASK_FOR_KEY,
      };
    case "session_expired":
      return {
        status: 401,
        message: "The session of this token has expired. Create a new one with POST /v2/billing/meter_event_session.",
        v2Code: "billing_meter_event_session_expired",
        v2Type: "temporary_session_expired",
        docUrl: "/docs",
        headers: ASK_FOR_KEY,
      };
    case "sessions_not_configured":
      return {
        status: 503,
        message:
          "This deployment has no sessions for streams: it needs SESSION_SECRET, a random secret of at least 32 characters.",
        v1Type: "api_error",
        v2Code: "sessions_not_configured",
        // Only its operator can change that.
        retry: false,
      };
    case "permission_denied":
      return {
        status: 403,
        message: `The API key provided may not make this call, which needs ${permissionName(error.needs)}.`,
        v2Code: "forbidden",
      };
    case "live_key_required":
      return {
        status: 403,
        message: "This concerns the data of both modes, so it needs a live key.",
        v2Code: "forbidden",
      };
    case "no_such_dead_letter":
      return {
        status: 404,
        message: `No such dead letter: '${error.id}'`,
        param: "id",
        v1Code: "resource_missing",
        v2Code: "not_found",
      };
    case "still_refused":
      return {
        status: 400,
        message: `The database still refuses the dead letter '${error.id}': ${error.cause}`,
        param: "id",
        v1Code: "still_refused",
        v2Code: "still_refused",
      };
    case "rate_limited":
      return {
        status: 429,
        message: "Too many requests hit the API too quickly. We recommend an exponential backoff of your requests.",
        v1Code: "rate_limit",
        v2Code: "account_rate_limit_exceeded",
        v2Type: "rate_limit",
      };
    case "unknown_url":
      return {
        status: 404,
        message: `Unrecognized request URL (${error.method}: ${error.path}).`,
        v2Code: "not_found",
      };
    case "method_not_allowed":
      return {
        status: 405,
        message: `Unrecognized request method (${error.method}: ${error.path}). Allowed: ${error.allowed}.`,
        v2Code: "method_not_allowed",
        headers: { allow: error.allowed },
      };
    case "body_too_large":
      return {
        status: 413,
        message: `The request body can have at most ${error.limit} bytes.`,
        v2Code: "invalid_fields",
      };
    case "unsupported_content_type":
      return {
        status: 415,
        message: `Invalid request: check that its Content-Type is ${error.expected}.`,
        v2Code: "invalid_fields",
      };
    case "unsupported_content_encoding":
      return {
        status: 415,
        message: `The Content-Encoding '${error.encoding}' is not supported. Send the body as it is, or with gzip.`,
        v2Code: "invalid_fields",
        headers: { "accept-encoding": "gzip" },
      };
    case "malformed_body":
      return { status: 400, message: error.message, v2Code: "invalid_fields" };
    case "log_full":
      return {
        status: 503,
        message:
          "The event log is full until its events are aggregated. Send the request again later, with the same identifiers or Idempotency-Key.",
        v1Type: "api_error",
        v2Code: "log_full",
        retry: true,
      };
    case "setting_changed":
      return {
        status: 503,
        message: `This deployment is configured with ${error.setting} = ${error.configured || '""'}, but its data was started with ${error.recorded || '""'}. It accepts no events until the setting is put back.`,
        v1Type: "api_error",
        v2Code: "setting_changed",
        retry: true,
      };
    case "unavailable":
      return {
        status: 503,
        message:
          "The request could not be finished. It is safe to send it again with the same identifier or Idempotency-Key.",
        v1Type: "api_error",
        v2Code: "service_unavailable",
        retry: true,
      };
  }
}

/** What the answer to an error says, for those that are told later and elsewhere. */
export const messageOf = (error: ApiError): string => describe(error).message;

/** Whether a value fails for its length alone, which Stripe tells apart. */
export const hasTooManyDigits = (value: string): boolean => /^[0-9]{16,}$/.test(value);

const permissionName = (permission: Permission): string =>
  permission === "manage" ? "an unrestricted key (sk_…)" : `the permission '${permission}'`;

const noActiveMeter = (eventName: string): string => `No active meter found for event name "${eventName}".`;

function whyNotCancelled({
  cause,
  identifier,
  eventName,
}: Extract<ApiError, { reason: "invalid_cancel_configuration" }>): string {
  switch (cause) {
    case "unknown":
      return `No event with identifier ${identifier} was received in the last 24 hours.`;
    case "too_old":
      return `The event with identifier ${identifier} was received more than 24 hours ago and can no longer be cancelled.`;
    case "other_meter":
      return `The event with identifier ${identifier} was not reported with event name "${eventName}".`;
    case "already_cancelled":
      return `The event with identifier ${identifier} is already cancelled.`;
  }
}

function misaligned({
  param,
  seconds,
  expectedSeconds,
  grouping,
}: Extract<ApiError, { reason: "misaligned_time" }>): string {
  const expected = `(expected ${expectedSeconds})`;
  switch (grouping) {
    case "hour":
      return `${param} ${seconds} should be aligned with hourly boundaries ${expected} because the \`value_grouping_window\` is hour.`;
    case "day":
      return `${param} ${seconds} should be aligned with daily boundaries ${expected} because the \`value_grouping_window\` is day.`;
  }
}

/** How long a client should wait before it sends again (s), by the status; only where sending again can help. */
const RETRY_AFTER_S: Readonly<Partial<Record<WireError["status"], number>>> = { 409: 1, 429: 10, 503: 2 };

const INVALID_REQUEST = "invalid_request_error";

/** Without a type, stripe-node before 21 makes an unknown error of a 400 or 404. */
const v2Type = ({ v2Type, status }: WireError): string | undefined =>
  v2Type ?? (status === 400 || status === 404 ? INVALID_REQUEST : undefined);

/** The answer to a failed request: Stripe's `{"error": …}`, which the SDKs need on every status that is not 2xx. */
export function errorResponse(apiVersion: ApiVersion, error: ApiError): Response {
  const wire = describe(error);
  const { message } = wire;
  const status = (apiVersion === "v1" ? wire.v1Status : undefined) ?? wire.status;
  const body =
    apiVersion === "v1"
      ? { type: wire.v1Type ?? INVALID_REQUEST, message, code: wire.v1Code, param: wire.param, doc_url: wire.docUrl }
      : { code: wire.v2Code, message, type: v2Type(wire), param: wire.param, doc_url: wire.docUrl };
  const retryAfter = wire.retry === false ? undefined : RETRY_AFTER_S[status];
  return new Response(JSON.stringify({ error: body }), {
    status,
    headers: {
      "content-type": "application/json",
      ...(retryAfter === undefined ? {} : { "retry-after": String(retryAfter) }),
      ...(wire.retry === undefined ? {} : { "stripe-should-retry": String(wire.retry) }),
      ...wire.headers,
    },
  });
}
