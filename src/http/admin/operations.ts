import * as z from "zod";
import { err, ok, type Result } from "../../domain/result.ts";
import { DAY_MS } from "../../domain/window.ts";
import type { Call } from "../endpoint.ts";
import type { ApiError } from "../errors.ts";

/** The tag of these calls in the API's description; Stripe has none of them. */
export const OPERATIONS = "Operations";

/** Refuses test keys: what concerns the data of both modes takes a live key. Yields `live_key_required`. */
export const requireLiveKey = ({ key }: Call<unknown>): Result<void, ApiError> =>
  key.livemode ? ok(undefined) : err({ reason: "live_key_required" });

/** A UTC day, as days since 1970. */
export const utcDay = z
  .string()
  .refine((text) => text === dayText(Date.parse(text)), "it must be a UTC day like 2026-11-20.")
  .transform((text) => Date.parse(text) / DAY_MS)
  .meta({ type: "string", format: "date" });

const dayText = (time: number): string => (Number.isNaN(time) ? "" : new Date(time).toISOString().slice(0, 10));
