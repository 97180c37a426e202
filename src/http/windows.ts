// Windows of usage as requests name them.

import * as z from "zod";
import { type Calendar, isZone, SPANS, windowsOf } from "../domain/calendar.ts";
import { err, ok, type Result } from "../domain/result.ts";
import { type Run, SECOND_MS } from "../domain/window.ts";
import type { ApiError } from "./errors.ts";
import { choice, unixSeconds } from "./fields.ts";

/** A time zone. */
export const timezone = z
  .string()
  .max(100)
  .refine(isZone, "it must be the IANA name of a time zone, like Europe/Berlin.")
  .default("UTC")
  .meta({ type: "string", default: "UTC", description: "For the bounds of windows. Weeks begin on Monday." });

export const span = choice(SPANS).optional();

export const cycleAnchor = unixSeconds.optional().meta({
  description:
    "Unix seconds, for windows of a month: they begin on its day of the month and at its time, in a month without that day on the last one.",
});

/** A range as a request gives it (unix seconds), and the parameters that it came in. */
type Given = {
  readonly range: { readonly start: number; readonly end: number };
  readonly window: Calendar["span"] | undefined;
  readonly zone: string;
  readonly anchor?: number | undefined;
  readonly params: { readonly end: string; readonly window: string };
};

/** The windows of a request; the whole range when it names none. */
export function readWindows({ range, window, zone, anchor, params }: Given): Result<readonly Run[], ApiError> {
  const [start, end] = [range.start * SECOND_MS, range.end * SECOND_MS];
  const invalid = (message: string, param: string) => err({ reason: "invalid_field", message, param } as const);
  if (start >= end) return invalid(`${params.end} must be after the time that the range begins.`, params.end);
  if (anchor !== undefined && window !== "month") {
    return invalid(`cycle_anchor needs ${params.window}=month.`, "cycle_anchor");
  }
  if (window === undefined) return ok([{ start, end, length: end - start }]);
  const anchorMs = anchor === undefined ? undefined : anchor * SECOND_MS;
  const runs = windowsOf({ start, end }, { span: window, zone, anchor: anchorMs });
  return runs.ok ? runs : invalid(runs.error, params.window);
}
