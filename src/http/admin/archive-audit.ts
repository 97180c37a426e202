import * as z from "zod";
import { ArchiveCursor, archiveAuditStep, firstOfDay, type Tallies } from "../../audit/audit-archive.ts";
import { err, ok } from "../../domain/result.ts";
import { readCursor, writeCursor } from "../../step-cursor.ts";
import { defineEndpoint } from "../endpoint.ts";
import { OPERATIONS, requireLiveKey, utcDay } from "./operations.ts";

const WireTallies = z.record(
  z.string(),
  z.object({ events: z.int(), sum: z.string(), digest: z.string(), survivors: z.int() }),
);

const ArchiveAuditStep = z
  .object({
    object: z.literal("edgemeter.archive_audit_step"),
    database: z.string(),
    file: z.string().nullable().meta({ description: "The object that was read back." }),
    fault: z.string().nullable().meta({ description: "What is wrong with it." }),
    stored: WireTallies.meta({
      description:
        "What events hold, by quarter hour (ms): events that count and the sum of their values, a digest (64 bits, in decimal) that tells series apart, and windows whose survivor is among them. To be added up over the steps of a database, the digest without what is past 64 bits.",
    }),
    kept: WireTallies.meta({ description: "What sums and survivors say, likewise." }),
    surpassed: z.int().meta({ description: "Windows of which an event comes before the survivor that is kept." }),
    next: z.string().nullable().meta({ description: "The cursor of the next step; null after the last." }),
  })
  .meta({ id: "ArchiveAuditStep" });

const archiveAuditEndpoint = defineEndpoint({
  apiVersion: "v1",
  method: "post",
  needs: "operate",
  path: "/v1/edgemeter/archive_audit",
  tag: OPERATIONS,
  summary: "One step of an audit of the archive",
  description:
    "Compares the files of a UTC day with the manifest, and what files and slices hold of that day with its sums, in steps: call it again with `next` until that is null. Changes nothing. Live mode only; needs a live key. `npm run audit -- --archive 2026-10` does it all.",
  fields: {
    day: utcDay.optional(),
    cursor: z.string().max(1_000).optional().meta({ type: "string" }),
  },
  response: ArchiveAuditStep,
  handle: async (call) => {
    const allowed = requireLiveKey(call);
    if (!allowed.ok) return allowed;
    const { day, cursor: text } = call.input;
    const first = day === undefined ? undefined : firstOfDay(day);
    const cursor = text === undefined ? first : readCursor(ArchiveCursor, text);
    if (cursor === undefined) return invalid("Give a day, or the cursor of an audit of the archive.");
    const found = await archiveAuditStep(call.env, cursor);
    if (!found.ok) return invalid(found.error);
    const { database, file, stored, kept, surpassed, next } = found.value;
    const step: z.output<typeof ArchiveAuditStep> = {
      object: "edgemeter.archive_audit_step",
      database,
      file: file?.key ?? null,
      fault: file?.fault ?? null,
      stored: toWire(stored),
      kept: toWire(kept),
      surpassed,
      next: next === undefined ? null : writeCursor(next),
    };
    return ok(step);
  },
});

const toWire = (tallies: Tallies): z.output<typeof WireTallies> =>
  Object.fromEntries(
    [...tallies].map(([start, { events, sum, digest, survivors }]) => [
      start,
      { events, sum: String(sum), digest: String(digest), survivors },
    ]),
  );

const invalid = (message: string) => err({ reason: "invalid_field" as const, message });

export const archiveAuditEndpoints = [archiveAuditEndpoint];
