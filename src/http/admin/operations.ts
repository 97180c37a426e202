import { err, ok, type Result } from "../../domain/result.ts";
import type { Call } from "../endpoint.ts";
import type { ApiError } from "../errors.ts";

/** The tag of these calls in the API's description; Stripe has none of them. */
export const OPERATIONS = "Operations";

/** Refuses test keys: what concerns the data of both modes takes a live key. Yields `live_key_required`. */
export const requireLiveKey = ({ key }: Call<unknown>): Result<void, ApiError> =>
  key.livemode ? ok(undefined) : err({ reason: "live_key_required" });
