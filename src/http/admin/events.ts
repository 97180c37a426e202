import { Buffer } from "node:buffer";
import * as z from "zod";
import type { Row } from "../../archive/rows.ts";
import { type KeyNames, namesOfKeys } from "../../catalog/api-keys.ts";
import { err, ok, type Result } from "../../domain/result.ts";
import { SECOND_MS } from "../../domain/window.ts";
import { EXPORT_BEGINNING, EXPORT_ROWS, type ExportPlace, readExportPage } from "../../query/export.ts";
import { defineEndpoint } from "../endpoint.ts";
import type { ApiError } from "../errors.ts";
import { text, unixSeconds } from "../fields.ts";
import { requireMeter } from "../v1/meters.ts";
import { OPERATIONS } from "./operations.ts";

const ExportedEvent = z
  .object({
    id: z.string(),
    customer: z.string(),
    timestamp: z.int().meta({ description: "ms" }),
    identifier: z.string(),
    value: z.int(),
    received: z.int().meta({ description: "ms" }),
    dimensions: z.record(z.string(), z.string()).nullable().meta({ description: "Those that the meter declares." }),
    payload: z
      .record(z.string(), z.string())
      .nullable()
      .meta({ description: "What is neither customer, value nor a declared dimension." }),
    api_key: z.string().meta({ description: "The id of the API key that reported it." }),
    cancelled: z.int().nullable().meta({ description: "ms; null while it counts." }),
    cancelled_by: z.string().nullable(),
  })
  .meta({ id: "ExportedEvent" });

const ExportPage = z
  .object({
    object: z.literal("edgemeter.event_export"),
    meter: z.string(),
    event_name: z.string(),
    data: z.array(ExportedEvent),
    next: z.string().nullable().meta({ description: "The cursor of the next page; null after the last." }),
    livemode: z.boolean(),
  })
  .meta({ id: "EventExport" });

const toWire = (row: Row, { ids }: KeyNames): z.output<typeof ExportedEvent> => {
  const nameOf = (key: number): string => ids.get(key) ?? String(key);
  return {
    id: row.id,
    customer: row.customer,
    timestamp: row.timestamp,
    identifier: row.identifier,
    value: row.value,
    received: row.received,
    dimensions: row.dimensions === null ? null : JSON.parse(row.dimensions),
    payload: row.payload === null ? null : JSON.parse(row.payload),
    api_key: nameOf(row.apiKey),
    cancelled: row.cancelled,
    cancelled_by: row.cancelledBy === null ? null : nameOf(row.cancelledBy),
  };
};

const exportEndpoint = defineEndpoint({
  apiVersion: "v1",
  method: "get",
  path: "/v1/edgemeter/events",
  tag: OPERATIONS,
  summary: "Export a meter's events",
  description:
    "All events of a meter, of all customers, cancelled ones too, whose timestamps lie from `from` (inclusive) to `to` (exclusive), live or archived. Call it again with `next` as `cursor` until that is null; a page may be empty before. An event that was stored before the first call is on exactly one page, whatever is stored and archived meanwhile; a later one may be missing. `npm run export` writes them to a file.",
  errors: ["archived_range_deleted"],
  fields: {
    meter: text(100).meta({ example: "mtr_1", description: "A meter's id." }),
    from: unixSeconds,
    to: unixSeconds,
    cursor: z.string().max(500).optional(),
    limit: z
      .string()
      .regex(/^[1-9][0-9]{0,3}$/, "it must be a positive integer.")
      .transform(Number)
      .refine((limit) => limit <= EXPORT_ROWS, `it must be between 1 and ${EXPORT_ROWS}.`)
      .default(EXPORT_ROWS)
      .meta({ type: "integer", minimum: 1, maximum: EXPORT_ROWS, default: EXPORT_ROWS }),
  },
  response: ExportPage,
  handle: async (call) => {
    const { env, key, input } = call;
    const meter = await requireMeter(call, input.meter, "meter");
    if (!meter.ok) return meter;
    if (input.from >= input.to) {
      return err({ reason: "invalid_field", message: "from must be before to.", param: "to" });
    }
    const from = input.cursor === undefined ? ok(EXPORT_BEGINNING) : readCursor(input.cursor);
    if (!from.ok) return from;
    const range = { start: input.from * SECOND_MS, end: input.to * SECOND_MS };
    const page = await readExportPage(env, { meter: meter.value, range, from: from.value, limit: input.limit });
    if (!page.ok) return page;
    const { rows, next } = page.value;
    const names = await namesOfKeys(env.DB);
    return ok({
      object: "edgemeter.event_export" as const,
      meter: meter.value.id,
      event_name: meter.value.eventName,
      data: rows.map((row) => toWire(row, names)),
      next: next === undefined ? null : writeCursor(next),
      livemode: key.livemode,
    });
  },
});

const count = z.int().min(0);

const Cursor = z.strictObject({
  database: count,
  slice: count,
  within: z
    .strictObject({
      segment: z.strictObject({ isLate: z.boolean(), day: count }),
      after: z.strictObject({ series: count, timestamp: count, id: z.string() }),
    })
    .optional(),
});

const writeCursor = (place: ExportPlace): string => Buffer.from(JSON.stringify(place)).toString("base64url");

function readCursor(cursor: string): Result<ExportPlace, ApiError> {
  try {
    return ok(Cursor.parse(JSON.parse(Buffer.from(cursor, "base64url").toString())));
  } catch {
    return err({ reason: "invalid_field", message: "Invalid cursor: it is not one of an export.", param: "cursor" });
  }
}

export const exportEndpoints = [exportEndpoint];
