import { describe, expect, test } from "vitest";
import { LIMITS } from "../../src/domain/limits.ts";
import { type ApiError, type ApiVersion, errorResponse } from "../../src/http/errors.ts";

type Reason = ApiError["reason"];

/** An answer in short: status, `stripe-should-retry`, and its error's type and code. */
type Wire = readonly [status: number, retry: "true" | "false" | null, type: string | undefined, code?: string];

/** For every reason (the compiler knows one that is missing): an error, and what it is in either API version. */
const ERRORS: { [R in Reason]: readonly [error: Extract<ApiError, { reason: R }>, v1: Wire, v2: Wire] } = {
  invalid_field: [
    { reason: "invalid_field", message: "Wrong.", param: "payload" },
    [400, null, "invalid_request_error"],
    [400, null, "invalid_request_error", "invalid_fields"],
  ],
  unknown_parameter: [
    { reason: "unknown_parameter", param: "colour" },
    [400, null, "invalid_request_error", "parameter_unknown"],
    [400, null, "invalid_request_error", "invalid_fields"],
  ],
  missing_parameter: [
    { reason: "missing_parameter", param: "event_name" },
    [400, null, "invalid_request_error", "parameter_missing"],
    [400, null, "invalid_request_error", "invalid_fields"],
  ],
  no_meter: [
    { reason: "no_meter", eventName: "tokens" },
    [400, null, "invalid_request_error"],
    [400, null, "invalid_request_error", "no_meter"],
  ],
  archived_meter: [
    { reason: "archived_meter", eventName: "tokens" },
    [400, null, "invalid_request_error"],
    [400, null, "invalid_request_error", "archived_meter"],
  ],
  payload_no_customer_defined: [
    { reason: "payload_no_customer_defined", key: "stripe_customer_id" },
    [400, null, "invalid_request_error"],
    [400, null, "invalid_request_error", "payload_no_customer_defined"],
  ],
  invalid_customer: [
    { reason: "invalid_customer", key: "stripe_customer_id", fault: "it cannot be blank." },
    [400, null, "invalid_request_error"],
    [400, null, "invalid_request_error", "invalid_fields"],
  ],
  invalid_dimension: [
    { reason: "invalid_dimension", key: "trace", fault: "it is a number that is not kept exactly." },
    [400, null, "invalid_request_error"],
    [400, null, "invalid_request_error", "invalid_fields"],
  ],
  empty_parameter: [
    { reason: "empty_parameter", param: "identifier" },
    [400, null, "invalid_request_error", "parameter_invalid_empty"],
    [400, null, "invalid_request_error", "invalid_fields"],
  ],
  unsupported_content_encoding: [
    { reason: "unsupported_content_encoding", encoding: "br" },
    [415, null, "invalid_request_error"],
    [415, null, undefined, "invalid_fields"],
  ],
  payload_no_value_defined: [
    { reason: "payload_no_value_defined", key: "value" },
    [400, null, "invalid_request_error"],
    [400, null, "invalid_request_error", "payload_no_value_defined"],
  ],
  payload_invalid_value: [
    { reason: "payload_invalid_value", key: "value", value: "007" },
    [400, null, "invalid_request_error"],
    [400, null, "invalid_request_error", "payload_invalid_value"],
  ],
  timestamp_too_far_in_past: [
    { reason: "timestamp_too_far_in_past", earliest: 1_758_141_836_000 },
    [400, null, "invalid_request_error"],
    [400, null, "invalid_request_error", "timestamp_too_far_in_past"],
  ],
  timestamp_in_future: [
    { reason: "timestamp_in_future", latest: 1_758_141_836_000 },
    [400, null, "invalid_request_error"],
    [400, null, "invalid_request_error", "timestamp_in_future"],
  ],
  too_many_concurrent_requests: [
    { reason: "too_many_concurrent_requests" },
    [409, null, "invalid_request_error", "too_many_concurrent_requests"],
    [409, null, undefined, "too_many_concurrent_requests"],
  ],
  duplicate_meter_event: [
    { reason: "duplicate_meter_event", identifier: "idmp_1" },
    [400, "false", "invalid_request_error"],
    [400, "false", "invalid_request_error", "duplicate_meter_event"],
  ],
  idempotency_key_reused: [
    { reason: "idempotency_key_reused", key: "key-1" },
    [400, "false", "idempotency_error"],
    [409, "false", "idempotency_error", "idempotency_error"],
  ],
  invalid_cancel_configuration: [
    { reason: "invalid_cancel_configuration", cause: "unknown", identifier: "idmp_1", eventName: "tokens" },
    [400, "false", "invalid_request_error"],
    [400, "false", "invalid_request_error", "invalid_cancel_configuration"],
  ],
  no_such_event: [
    { reason: "no_such_event", id: "idmp_1", param: "identifier" },
    [404, null, "invalid_request_error", "resource_missing"],
    [404, null, "invalid_request_error", "not_found"],
  ],
  meter_name_taken: [
    { reason: "meter_name_taken", eventName: "tokens" },
    [400, null, "invalid_request_error"],
    [400, null, "invalid_request_error", "invalid_fields"],
  ],
  no_such_meter: [
    { reason: "no_such_meter", id: "mtr_1", param: "id" },
    [404, null, "invalid_request_error", "resource_missing"],
    [404, null, "invalid_request_error", "not_found"],
  ],
  no_such_summary: [
    { reason: "no_such_summary", id: "mtrusg_1", param: "starting_after" },
    [400, null, "invalid_request_error", "resource_missing"],
    [400, null, "invalid_request_error", "not_found"],
  ],
  no_such_core_event: [
    { reason: "no_such_core_event", id: "evt_test_1" },
    [404, null, "invalid_request_error", "resource_missing"],
    [404, null, "invalid_request_error", "not_found"],
  ],
  misaligned_time: [
    { reason: "misaligned_time", param: "start_time", seconds: 3_601, expectedSeconds: 3_600, grouping: "hour" },
    [400, null, "invalid_request_error"],
    [400, null, "invalid_request_error", "invalid_fields"],
  ],
  no_key: [{ reason: "no_key" }, [401, null, "invalid_request_error"], [401, null, undefined, "unauthorized"]],
  invalid_key: [
    { reason: "invalid_key" },
    [401, null, "invalid_request_error"],
    [401, null, undefined, "unauthorized"],
  ],
  invalid_session: [
    { reason: "invalid_session" },
    [401, null, "invalid_request_error"],
    [401, null, undefined, "unauthorized"],
  ],
  session_expired: [
    { reason: "session_expired" },
    [401, null, "invalid_request_error"],
    [401, null, "temporary_session_expired", "billing_meter_event_session_expired"],
  ],
  sessions_not_configured: [
    { reason: "sessions_not_configured" },
    [503, "false", "api_error"],
    [503, "false", undefined, "sessions_not_configured"],
  ],
  permission_denied: [
    { reason: "permission_denied", needs: "manage" },
    [403, null, "invalid_request_error"],
    [403, null, undefined, "forbidden"],
  ],
  live_key_required: [
    { reason: "live_key_required" },
    [403, null, "invalid_request_error"],
    [403, null, undefined, "forbidden"],
  ],
  no_such_dead_letter: [
    { reason: "no_such_dead_letter", id: "dl_1" },
    [404, null, "invalid_request_error", "resource_missing"],
    [404, null, "invalid_request_error", "not_found"],
  ],
  still_refused: [
    { reason: "still_refused", id: "dl_1", cause: "NOT NULL constraint failed" },
    [400, null, "invalid_request_error", "still_refused"],
    [400, null, "invalid_request_error", "still_refused"],
  ],
  rate_limited: [
    { reason: "rate_limited" },
    [429, null, "invalid_request_error", "rate_limit"],
    [429, null, "rate_limit", "account_rate_limit_exceeded"],
  ],
  unknown_url: [
    { reason: "unknown_url", method: "GET", path: "/v1/nothing" },
    [404, null, "invalid_request_error"],
    [404, null, "invalid_request_error", "not_found"],
  ],
  method_not_allowed: [
    { reason: "method_not_allowed", method: "DELETE", path: "/v1/billing/meters", allowed: "GET, POST" },
    [405, null, "invalid_request_error"],
    [405, null, undefined, "method_not_allowed"],
  ],
  body_too_large: [
    { reason: "body_too_large", limit: 256_000 },
    [413, null, "invalid_request_error"],
    [413, null, undefined, "invalid_fields"],
  ],
  unsupported_content_type: [
    { reason: "unsupported_content_type", expected: "application/json" },
    [415, null, "invalid_request_error"],
    [415, null, undefined, "invalid_fields"],
  ],
  malformed_body: [
    { reason: "malformed_body", message: "The request body is not valid JSON." },
    [400, null, "invalid_request_error"],
    [400, null, "invalid_request_error", "invalid_fields"],
  ],
  log_full: [{ reason: "log_full" }, [503, "true", "api_error"], [503, "true", undefined, "log_full"]],
  setting_changed: [
    { reason: "setting_changed", setting: "EVENT_LOG_SHARDS", configured: "8", recorded: "4" },
    [503, "true", "api_error"],
    [503, "true", undefined, "setting_changed"],
  ],
  unavailable: [{ reason: "unavailable" }, [503, "true", "api_error"], [503, "true", undefined, "service_unavailable"]],
};

type ErrorBody = { error: { message: string; type?: string; code?: string; param?: string } };

const bodyOf = async (response: Response): Promise<ErrorBody> => (await response.json()) as ErrorBody;

async function messageOf(error: ApiError): Promise<string> {
  const [v1, v2] = await Promise.all([bodyOf(errorResponse("v1", error)), bodyOf(errorResponse("v2", error))]);
  expect(v1.error.message).toBe(v2.error.message);
  return v1.error.message;
}

describe.each(["v1", "v2"] satisfies ApiVersion[])("API version %s", (apiVersion) => {
  test.each(Object.entries(ERRORS))("answers %s with its status, type and code", async (_, [error, v1, v2]) => {
    const response = errorResponse(apiVersion, error);
    const body = await bodyOf(response);
    expect(response.status).toBeGreaterThanOrEqual(400);
    expect(response.headers.get("content-type")).toBe("application/json");
    expect(body.error.message).toMatch(/\w+/);
    expect(body.error.message).not.toMatch(/undefined|NaN|\[object/);
    expect([response.status, response.headers.get("stripe-should-retry"), body.error.type, body.error.code]).toEqual(
      apiVersion === "v1" ? [v1[0], v1[1], v1[2], v1[3]] : [v2[0], v2[1], v2[2], v2[3]],
    );
    // What the SDKs switch on must be there in each API version.
    expect(typeof (apiVersion === "v1" ? body.error.type : body.error.code)).toBe("string");
  });

  test.each(Object.entries(ERRORS))("says nothing of %s outside of its error object", async (_, [error]) => {
    const body = await bodyOf(errorResponse(apiVersion, error));
    expect(Object.keys(body)).toEqual(["error"]);
    expect(["type", "message", "code", "param", "doc_url"]).toEqual(expect.arrayContaining(Object.keys(body.error)));
  });
});

describe("an error's message is the one that Stripe's users know", () => {
  test.each<[string, ApiError, string]>([
    ["a duplicate", ERRORS.duplicate_meter_event[0], "An event already exists with identifier idmp_1."],
    ["no meter", ERRORS.no_meter[0], 'No active meter found for event name "tokens".'],
    ["an archived meter", ERRORS.archived_meter[0], 'No active meter found for event name "tokens".'],
    [
      "an old timestamp",
      ERRORS.timestamp_too_far_in_past[0],
      "The event timestamp cannot be more than 35 days in past. Expected a timestamp greater than or equal to 1758141836.",
    ],
    [
      "a meter name that is taken",
      ERRORS.meter_name_taken[0],
      "An active meter already exists for event name 'tokens'. To create a new meter with the same event name, first deactivate the currently active meter.",
    ],
    [
      "a time off the day",
      {
        reason: "misaligned_time",
        param: "start_time",
        seconds: 1_738_494_596,
        expectedSeconds: 1_738_454_400,
        grouping: "day",
      },
      "start_time 1738494596 should be aligned with daily boundaries (expected 1738454400) because the `value_grouping_window` is day.",
    ],
    [
      "a time off the hour",
      { reason: "misaligned_time", param: "end_time", seconds: 3_601, expectedSeconds: 3_600, grouping: "hour" },
      "end_time 3601 should be aligned with hourly boundaries (expected 3600) because the `value_grouping_window` is hour.",
    ],
    [
      "16 digits",
      { reason: "payload_invalid_value", key: "value", value: "1234567890123456" },
      "The value in the event payload can have at most 15 digits. Received 1234567890123456.",
    ],
    [
      "concurrent events",
      ERRORS.too_many_concurrent_requests[0],
      "Cannot create multiple usage events for the same customer, meter concurrently.",
    ],
    [
      "a payload without its customer",
      ERRORS.payload_no_customer_defined[0],
      "Customer mapping key stripe_customer_id not found in payload.",
    ],
    ["an unknown parameter", ERRORS.unknown_parameter[0], "Received unknown parameter: colour"],
    [
      "an empty parameter",
      ERRORS.empty_parameter[0],
      "You passed an empty string for 'identifier'. We assume empty values are an attempt to unset a parameter; however 'identifier' cannot be unset. You should remove 'identifier' from your request or supply a non-empty value.",
    ],
    ["a missing parameter", ERRORS.missing_parameter[0], "Missing required param: event_name."],
    ["an unknown meter", ERRORS.no_such_meter[0], "No such meter: 'mtr_1'"],
  ])("for %s", async (_, error, message) => {
    expect(await messageOf(error)).toBe(message);
  });
});

describe("an error names what is wrong", () => {
  test.each(["007", "000000000000007", "1.5", "123456789012345x", "-1234567890123456"])(
    "a value like %s",
    async (value) => {
      const message = await messageOf({ reason: "payload_invalid_value", key: "value", value });
      expect(message).toBe(
        `The value in the event payload must be a positive integer of at most 15 digits. Received ${value}.`,
      );
    },
  );

  test("timestamps in whole seconds that would be accepted", async () => {
    expect(await messageOf({ reason: "timestamp_too_far_in_past", earliest: 1_000_001 })).toContain(" 1001.");
    expect(await messageOf({ reason: "timestamp_in_future", latest: 1_000_999 })).toContain(" 1000.");
  });

  test("the limit of a body", async () => {
    expect(await messageOf({ reason: "body_too_large", limit: LIMITS.bodyBytes })).toContain(String(LIMITS.bodyBytes));
  });

  test.each<[ApiError, string]>([
    [ERRORS.invalid_field[0], "payload"],
    [ERRORS.unknown_parameter[0], "colour"],
    [ERRORS.missing_parameter[0], "event_name"],
    [ERRORS.no_meter[0], "event_name"],
    [ERRORS.payload_no_customer_defined[0], "payload[stripe_customer_id]"],
    [ERRORS.payload_invalid_value[0], "payload[value]"],
    [ERRORS.invalid_customer[0], "payload[stripe_customer_id]"],
    [ERRORS.invalid_dimension[0], "payload[trace]"],
    [ERRORS.timestamp_in_future[0], "timestamp"],
    [ERRORS.duplicate_meter_event[0], "identifier"],
    [ERRORS.misaligned_time[0], "start_time"],
  ])("with the parameter of %j", async (error, param) => {
    for (const apiVersion of ["v1", "v2"] as const) {
      expect((await bodyOf(errorResponse(apiVersion, error))).error.param).toBe(param);
    }
  });

  test("v1 leaves out a parameter that is not known", async () => {
    const response = errorResponse("v1", { reason: "invalid_field", message: "Wrong." });
    expect(Object.keys((await bodyOf(response)).error)).toEqual(["type", "message"]);
  });
});

describe("an error's status depends on the API version where Stripe's does", () => {
  test("a reused Idempotency-Key is an idempotency_error: 400 in v1, 409 in v2", async () => {
    const error = ERRORS.idempotency_key_reused[0];
    expect([errorResponse("v1", error).status, errorResponse("v2", error).status]).toEqual([400, 409]);
    expect(await messageOf(error)).toContain("'key-1'");
  });

  test("an unknown meter is 404 in the path, and 400 as the cursor of a list", () => {
    expect(errorResponse("v1", { reason: "no_such_meter", id: "x", param: "id" }).status).toBe(404);
    expect(errorResponse("v1", { reason: "no_such_meter", id: "x", param: "starting_after" }).status).toBe(400);
  });

  test("a client is told how long to wait, where sending again can help", () => {
    const waitOf = (error: ApiError) => errorResponse("v2", error).headers.get("retry-after");
    const { too_many_concurrent_requests: busy, rate_limited, log_full, setting_changed, unavailable } = ERRORS;
    for (const [error] of [busy, rate_limited, log_full, setting_changed, unavailable]) {
      expect(waitOf(error), error.reason).toMatch(/^[1-9][0-9]?$/);
    }
    for (const [error] of [ERRORS.idempotency_key_reused, ERRORS.sessions_not_configured, ERRORS.invalid_field]) {
      expect(waitOf(error), error.reason).toBeNull();
    }
  });

  test("an empty parameter comes with the page that explains it, at v1", async () => {
    const { error } = JSON.parse(await errorResponse("v1", ERRORS.empty_parameter[0]).text());
    expect(error.doc_url).toBe("https://stripe.com/docs/error-codes/parameter-invalid-empty");
  });

  test("who is not known is told how to say who it is, and who uses a wrong method which ones there are", () => {
    expect(errorResponse("v1", { reason: "no_key" }).headers.get("www-authenticate")).toMatch(/^Bearer /);
    expect(errorResponse("v1", { reason: "invalid_key" }).headers.get("www-authenticate")).toMatch(/^Bearer /);
    expect(errorResponse("v1", ERRORS.method_not_allowed[0]).headers.get("allow")).toBe("GET, POST");
  });

  test("any text of a caller, quoted in a message, is still JSON", async () => {
    for (const identifier of ['"', "\\", "\n", "客户🙂", "</script>", "\ud83d"]) {
      const text = await errorResponse("v2", { reason: "duplicate_meter_event", identifier }).text();
      expect(JSON.parse(text).error.message).toContain(identifier.isWellFormed() ? identifier : "identifier");
    }
  });
});
