import { expect, test } from "vitest";
import { LIMITS } from "../../src/domain/limits.ts";
import { type ApiError, type ApiVersion, errorResponse, messageOf } from "../../src/http/errors.ts";

/** Examples of every reason (the compiler knows one that is missing), of each form that clients see it in. */
const EXAMPLES: { [R in ApiError["reason"]]: readonly Extract<ApiError, { reason: R }>[] } = {
  invalid_field: [
    { reason: "invalid_field", message: "Invalid payload: it must be a map of strings.", param: "payload" },
    { reason: "invalid_field", message: "The header Stripe-Account cannot be used." },
  ],
  unknown_parameter: [{ reason: "unknown_parameter", param: "colour" }],
  missing_parameter: [{ reason: "missing_parameter", param: "event_name" }],
  empty_parameter: [{ reason: "empty_parameter", param: "identifier" }],
  no_meter: [{ reason: "no_meter", eventName: "tokens" }],
  archived_meter: [{ reason: "archived_meter", eventName: "tokens" }],
  payload_no_customer_defined: [{ reason: "payload_no_customer_defined", key: "stripe_customer_id" }],
  invalid_customer: [{ reason: "invalid_customer", key: "stripe_customer_id", fault: "it cannot be blank." }],
  missing_dimension_payload_keys: [["region"], ["model", "region"]].map((keys) => ({
    reason: "missing_dimension_payload_keys",
    keys,
  })),
  invalid_dimension: [{ reason: "invalid_dimension", key: "trace", fault: "it is a number that is not kept exactly." }],
  payload_no_value_defined: [{ reason: "payload_no_value_defined", key: "value" }],
  payload_invalid_value: ["007", "1.5", "-1234567890123456", "123456789012345x", "1234567890123456"].map((value) => ({
    reason: "payload_invalid_value",
    key: "value",
    value,
  })),
  timestamp_too_far_in_past: [
    { reason: "timestamp_too_far_in_past", earliest: 1_758_141_836_000 },
    { reason: "timestamp_too_far_in_past", earliest: 1_000_001 },
  ],
  timestamp_in_future: [
    { reason: "timestamp_in_future", latest: 1_758_141_836_000 },
    { reason: "timestamp_in_future", latest: 1_000_999 },
  ],
  too_many_concurrent_requests: [{ reason: "too_many_concurrent_requests" }],
  duplicate_meter_event: [{ reason: "duplicate_meter_event", identifier: "idmp_1" }],
  idempotency_key_reused: [{ reason: "idempotency_key_reused", key: "key-1" }],
  invalid_cancel_configuration: (["unknown", "too_old", "other_meter", "already_cancelled"] as const).map((cause) => ({
    reason: "invalid_cancel_configuration",
    cause,
    identifier: "idmp_1",
    eventName: "tokens",
  })),
  no_such_event: [
    { reason: "no_such_event", id: "idmp_1", param: "identifier" },
    { reason: "no_such_event", id: "mtrev_1", param: "starting_after" },
  ],
  meter_name_taken: [{ reason: "meter_name_taken", eventName: "tokens" }],
  no_such_meter: [
    { reason: "no_such_meter", id: "mtr_1", param: "id" },
    { reason: "no_such_meter", id: "mtr_1", param: "starting_after" },
  ],
  no_such_summary: [{ reason: "no_such_summary", id: "mtrusg_1", param: "starting_after" }],
  no_such_core_event: [{ reason: "no_such_core_event", id: "evt_test_1" }],
  misaligned_time: [
    { reason: "misaligned_time", param: "end_time", seconds: 3_601, expectedSeconds: 3_600, grouping: "hour" },
    {
      reason: "misaligned_time",
      param: "start_time",
      seconds: 1_738_494_596,
      expectedSeconds: 1_738_454_400,
      grouping: "day",
    },
  ],
  no_key: [{ reason: "no_key" }],
  invalid_key: [{ reason: "invalid_key" }],
  invalid_session: [{ reason: "invalid_session" }],
  session_expired: [{ reason: "session_expired" }],
  sessions_not_configured: [{ reason: "sessions_not_configured" }],
  permission_denied: [
    { reason: "permission_denied", needs: "ingest" },
    { reason: "permission_denied", needs: "manage" },
  ],
  live_key_required: [{ reason: "live_key_required" }],
  no_such_dead_letter: [{ reason: "no_such_dead_letter", id: "dl_1" }],
  archive_at_work: [{ reason: "archive_at_work" }],
  letter_ended: [{ reason: "letter_ended", id: "dl_1", as: "discarded" }],
  not_included_in_time: [{ reason: "not_included_in_time", seconds: 5 }],
  still_refused: [{ reason: "still_refused", id: "dl_1", cause: "NOT NULL constraint failed" }],
  rate_limited: [{ reason: "rate_limited" }],
  unknown_url: [{ reason: "unknown_url", method: "GET", path: "/v1/nothing" }],
  method_not_allowed: [
    { reason: "method_not_allowed", method: "DELETE", path: "/v1/billing/meters", allowed: "GET, POST" },
  ],
  body_too_large: [{ reason: "body_too_large", limit: LIMITS.bodyBytes }],
  unsupported_content_type: [{ reason: "unsupported_content_type", expected: "application/json" }],
  unsupported_content_encoding: [{ reason: "unsupported_content_encoding", encoding: "br" }],
  malformed_body: [{ reason: "malformed_body", message: "The request body is not valid JSON." }],
  log_full: [{ reason: "log_full" }],
  archived_range_unaligned: [
    { of: "summary", aligned: { start: 1_758_141_000_000, end: 1_758_150_000_000 } } as const,
    { of: "timestamp", from: 1_758_141_836_001 } as const,
    { of: "timestamp", before: 1_758_141_836_999 } as const,
    { of: "receipt", before: 1_758_141_837_000 } as const,
  ].map((instead) => ({ reason: "archived_range_unaligned", instead })),
  archived_range_deleted: [
    { of: "summary", aligned: { start: 1_758_141_000_000, end: 1_758_150_000_000 } } as const,
    { of: "timestamp", from: 1_758_141_836_001 } as const,
    { of: "receipt", from: 1_758_141_836_001 } as const,
    { of: "export", from: 1_758_141_836_001 } as const,
  ].map((instead) => ({ reason: "archived_range_deleted", instead })),
  usage_too_large: [{ reason: "usage_too_large" }],
  databases_changed: [{ reason: "databases_changed", recorded: 4 }],
  setting_changed: [
    { reason: "setting_changed", setting: "EVENT_LOG_SHARDS", configured: "8", recorded: "4" },
    { reason: "setting_changed", setting: "JURISDICTION", configured: "", recorded: "eu" },
  ],
  unavailable: [{ reason: "unavailable" }],
};

const ALL: readonly ApiError[] = Object.values(EXAMPLES).flat();

/** A response as a client gets it. */
async function written(apiVersion: ApiVersion, error: ApiError): Promise<string> {
  const response = errorResponse(apiVersion, error);
  const headers = [...response.headers].map(([name, value]) => `${name}: ${value}`);
  return [`${apiVersion} ${response.status}`, ...headers, await response.text()].join("\n  ");
}

test("clients see each error as they did", async () => {
  const seen = ALL.map(async (error) => {
    const versions = [await written("v1", error), await written("v2", error)];
    return [`# ${error.reason}`, ...versions].join("\n");
  });
  await expect(`${(await Promise.all(seen)).join("\n\n")}\n`).toMatchFileSnapshot("errors.snap");
});

test("no message quotes what is not there", () => {
  for (const error of ALL) {
    expect(messageOf(error), error.reason).not.toMatch(/undefined|NaN|\[object/);
  }
});

test("any text of a caller, quoted in a message, is still JSON", async () => {
  for (const identifier of ['"', "\\", "\n", "客户🙂", "</script>", "\ud83d"]) {
    const text = await errorResponse("v2", { reason: "duplicate_meter_event", identifier }).text();
    expect(JSON.parse(text).error.message).toContain(identifier.isWellFormed() ? identifier : "identifier");
  }
});
