import * as z from "zod";
import { Restoration, restoreStep } from "../../archive/restore.ts";
import { err, ok, type Result } from "../../domain/result.ts";
import { DAY_MS } from "../../domain/window.ts";
import { readCursor, writeCursor } from "../../step-cursor.ts";
import { defineEndpoint } from "../endpoint.ts";
import type { ApiError } from "../errors.ts";
import { OPERATIONS, requireLiveKey, utcDay } from "./operations.ts";

const RestoreStep = z
  .object({
    object: z.literal("edgemeter.restore_step"),
    database: z.string(),
    file: z.string().nullable().meta({ description: "The object that was looked at; null when none was left." }),
    events: z.int().meta({ description: "Events in it." }),
    restored: z.int().meta({ description: "Of these, those that the database lacked." }),
    deleted: z.int().meta({ description: "Objects of a slice that is exported again." }),
    waits: z.boolean().meta({
      description: "Another works on the database's archive now. Nothing was done; call again in a second.",
    }),
    next: z.string().nullable().meta({ description: "The cursor of the next step; null after the last." }),
  })
  .meta({ id: "RestoreStep" });

/** A slice, by its first hour since 1970. */
const hour = z
  .string()
  .regex(/^\d{1,7}$/, "it must be hours since 1970.")
  .transform(Number)
  .meta({ type: "integer" });

/** How long a slice is kept whose table is brought back (days). */
const KEPT_DAYS = 1;

const restoreEndpoint = defineEndpoint({
  apiVersion: "v1",
  method: "post",
  needs: "operate",
  path: "/v1/edgemeter/restore",
  tag: OPERATIONS,
  summary: "One step of a restoration from the archive",
  description:
    "Brings back a UTC day's events (`day`) of all databases, or the table of an archived slice (`slice` and `database`), or has a slice exported again whose check has failed (`export_again` and `database`); in steps: call it again with `next` until that is null. Any step may be repeated. Live mode only; needs a live key. `npm run restore` does it all.",
  fields: {
    day: utcDay.optional(),
    slice: hour.optional(),
    export_again: hour.optional(),
    database: z.string().max(50).optional().meta({ example: "EVENTS_0" }),
    keep_days: z
      .string()
      .regex(/^\d{1,3}$/, "it must be a number of days.")
      .transform(Number)
      .optional()
      .meta({ type: "integer", description: `How long the table is kept at least; ${KEPT_DAYS} unless given.` }),
    cursor: z.string().max(1_000).optional().meta({ type: "string" }),
  },
  response: RestoreStep,
  handle: async (call) => {
    const allowed = requireLiveKey(call);
    if (!allowed.ok) return allowed;
    const { env, input, now } = call;
    const left = restorationOf(input);
    if (!left.ok) return left;
    const step = await restoreStep(env, left.value, now);
    if (!step.ok) return invalid(step.error);
    const { database, file, deleted, waits, next } = step.value;
    const body: z.output<typeof RestoreStep> = {
      object: "edgemeter.restore_step",
      database,
      file: file?.key ?? null,
      events: file?.events ?? 0,
      restored: file?.restored ?? 0,
      deleted,
      waits,
      next: next === undefined ? null : writeCursor(next),
    };
    return ok(body);
  },
});

type Input = {
  readonly [name in "database" | "cursor"]?: string | undefined;
} & { readonly [name in "day" | "slice" | "export_again" | "keep_days"]?: number | undefined };

/** What a call asks for. Yields `invalid_field`. */
function restorationOf({
  day,
  slice,
  export_again,
  database,
  keep_days,
  cursor,
}: Input): Result<Restoration, ApiError> {
  if (cursor !== undefined) {
    const left = readCursor(Restoration, cursor);
    return left === undefined ? invalid("Invalid cursor: it is not one of a restoration.", "cursor") : ok(left);
  }
  if (day !== undefined) return ok({ day, place: 0 });
  if (database === undefined) return invalid("Say which day, or which slice of which database.", "database");
  if (slice !== undefined) return ok({ slice, database, file: 0, keepMs: (keep_days ?? KEPT_DAYS) * DAY_MS });
  if (export_again !== undefined) return ok({ again: export_again, database });
  return invalid("Say which slice.", "slice");
}

const invalid = (message: string, param?: string): Result<never, ApiError> =>
  err({ reason: "invalid_field", message, param });

export const restoreEndpoints = [restoreEndpoint];
