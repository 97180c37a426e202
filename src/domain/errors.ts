/** A time of an event, by which a list may be bounded. */
export type EventTime = "timestamp" | "receipt";

/** What to ask for instead of a range that the archive cannot serve. Times in ms. */
export type OtherRange =
  /** A summary of whole quarter hours, which needs no events. */
  | { readonly of: "summary"; readonly aligned: { readonly start: number; readonly end: number } }
  /** Events with timestamps from a time on, or before one; or received from then on, or before. */
  | { readonly of: EventTime; readonly from: number }
  | { readonly of: EventTime; readonly before: number }
  /** An export of events from a time on. */
  | { readonly of: "export"; readonly from: number };

/**
 * Every way in which a request can fail by the rules of metering. `src/http/errors.ts` maps each to
 * Stripe's v1 and v2 wire format in one exhaustive table.
 */
export type MeteringError =
  /** A field has the wrong shape. `param` is its name on the wire. */
  | { readonly reason: "invalid_field"; readonly message: string; readonly param?: string | undefined }
  | { readonly reason: "unknown_parameter"; readonly param: string }
  | { readonly reason: "missing_parameter"; readonly param: string }
  | { readonly reason: "no_meter"; readonly eventName: string }
  | { readonly reason: "archived_meter"; readonly eventName: string }
  | { readonly reason: "payload_no_customer_defined"; readonly key: string }
  /** The customer is no name (src/domain/text.ts). */
  | { readonly reason: "invalid_customer"; readonly key: string; readonly fault: string }
  | { readonly reason: "payload_no_value_defined"; readonly key: string }
  | { readonly reason: "payload_invalid_value"; readonly key: string; readonly value: string }
  /** The payload lacks dimensions that the meter declares. */
  | { readonly reason: "missing_dimension_payload_keys"; readonly keys: readonly string[] }
  /** What the payload holds besides customer and value came as a number that lost digits. */
  | { readonly reason: "invalid_dimension"; readonly key: string; readonly fault: string }
  /** `earliest` is the oldest timestamp accepted now (ms). */
  | { readonly reason: "timestamp_too_far_in_past"; readonly earliest: number }
  /** `latest` is the newest timestamp accepted now (ms). */
  | { readonly reason: "timestamp_in_future"; readonly latest: number }
  | { readonly reason: "too_many_concurrent_requests" }
  /** A key has made too many calls of a kind, or reported too many events that were refused. */
  | { readonly reason: "rate_limited" }
  /** The shard of the log is past its high-water mark. */
  | { readonly reason: "log_full" }
  /** The deployment is configured with another setting than its data was started with. */
  | {
      readonly reason: "setting_changed";
      readonly setting: string;
      readonly configured: string;
      readonly recorded: string;
    }
  /** Fewer events databases are bound than there were; `recorded` is how many. */
  | { readonly reason: "databases_changed"; readonly recorded: number }
  /** A page needs events of more files of the archive than LIMITS.archiveReads. */
  | { readonly reason: "archived_range_unaligned"; readonly instead: OtherRange }
  /** A page needs events that were deleted: files of the archive, or slices of test mode. */
  | { readonly reason: "archived_range_deleted"; readonly instead: OtherRange }
  /** What a page needs of usage is more than LIMITS.usageRows. */
  | { readonly reason: "usage_too_large" }
  | { readonly reason: "duplicate_meter_event"; readonly identifier: string }
  /** The Idempotency-Key came before, with another body. */
  | { readonly reason: "idempotency_key_reused"; readonly key: string }
  /** An adjustment names an event that cannot be cancelled. */
  | {
      readonly reason: "invalid_cancel_configuration";
      readonly cause: "unknown" | "too_old" | "other_meter" | "already_cancelled";
      readonly identifier: string;
      readonly eventName: string;
    }
  | { readonly reason: "no_such_event"; readonly id: string; readonly param: string }
  | { readonly reason: "meter_name_taken"; readonly eventName: string }
  | { readonly reason: "no_such_meter"; readonly id: string; readonly param: string }
  | { readonly reason: "no_such_summary"; readonly id: string; readonly param: string }
  /** No report that can be read: none, not yet, no longer, or of the other mode. */
  | { readonly reason: "no_such_core_event"; readonly id: string }
  /** A boundary of a time range (unix seconds) that is not where its grouping needs it. */
  | {
      readonly reason: "misaligned_time";
      readonly param: string;
      readonly seconds: number;
      readonly expectedSeconds: number;
      readonly grouping: "hour" | "day";
    };
