import * as z from "zod";
import { auditStep, type Cursor, firstCursor, readAuditCursor } from "../../audit/full-audit.ts";
import { err, ok, type Result } from "../../domain/result.ts";
import { writeCursor } from "../../step-cursor.ts";
import { type Call, defineEndpoint } from "../endpoint.ts";
import type { ApiError } from "../errors.ts";
import { choice } from "../fields.ts";
import { OPERATIONS, requireLiveKey } from "./operations.ts";

const counts = z.record(z.string(), z.int());

const AuditStep = z
  .object({
    object: z.literal("edgemeter.audit_step"),
    checked: z.int().meta({ description: "Entries of the log that were compared with their databases." }),
    missing: z.int().meta({ description: "Of these, those that a database did not have; they were resent." }),
    altered: z
      .int()
      .meta({ description: "Events that a database had with other contents than the log; they were repaired." }),
    summaries: z.int().meta({ description: "Sums and survivors of windows that were compared with their events." }),
    summaries_repaired: z.int(),
    summaries_suspect: z.int().meta({
      description: "Summaries from before the log's reach that say more than their events; they were left as they are.",
    }),
    portions_failed: z.int().meta({ description: "1 if a database could not compare this step's summaries." }),
    entries_waiting: z.int().meta({ description: "Entries that wait for the aggregator, and are not compared." }),
    accepted: counts.meta({ description: "Events in the log, by the minute (ms) they were received in." }),
    stored: counts.meta({ description: "Events in the databases, likewise." }),
    counted: z
      .object({ start: z.int(), end: z.int() })
      .meta({ description: "The minutes (ms) in which `accepted` and `stored`, summed over all steps, agree." }),
    next: z.string().nullable().meta({ description: "The cursor of the next step; null after the last." }),
  })
  .meta({ id: "AuditStep" });

const auditEndpoint = defineEndpoint({
  apiVersion: "v1",
  method: "post",
  needs: "operate",
  path: "/v1/edgemeter/audit",
  tag: OPERATIONS,
  summary: "One step of a full audit",
  description:
    "Compares the log with the databases, then every summary with its events, in steps: call it again with `next` until that is null. Repairs what differs. Any step may be repeated: what is right already stays as it is. Of both modes; needs a live key. `npm run audit` does it all.",
  fields: {
    cursor: z.string().max(500).optional().meta({ type: "string" }),
    trust_events: choice(["true", "false"]).optional().meta({
      type: "boolean",
      description: "Repair also what is suspect: the events are all there.",
    }),
  },
  response: AuditStep,
  handle: async (call) => {
    const allowed = requireLiveKey(call);
    if (!allowed.ok) return allowed;
    const cursor = await cursorOf(call);
    if (!cursor.ok) return cursor;
    const { env, input, now } = call;
    const found = await auditStep(env, cursor.value, { now, trustEvents: input.trust_events === "true" });
    const step: z.output<typeof AuditStep> = {
      object: "edgemeter.audit_step",
      checked: found.checked,
      missing: found.missing,
      altered: found.altered,
      summaries: found.sums,
      summaries_repaired: found.repaired,
      summaries_suspect: found.suspect,
      portions_failed: found.failed,
      entries_waiting: found.waiting,
      accepted: found.accepted,
      stored: found.stored,
      counted: cursor.value.received,
      next: found.next === undefined ? null : writeCursor(found.next),
    };
    return ok(step);
  },
});

async function cursorOf({ env, input, now }: Call<{ cursor?: string | undefined }>): Promise<Result<Cursor, ApiError>> {
  const cursor = input.cursor === undefined ? await firstCursor(env, now) : await readAuditCursor(env, input.cursor);
  if (cursor !== undefined) return ok(cursor);
  return err({ reason: "invalid_field", message: "Invalid cursor: it is not one of an audit.", param: "cursor" });
}

export const auditEndpoints = [auditEndpoint];
