import * as z from "zod";
import { readReportId } from "../../aggregate/error-report.ts";
import { eventsDatabases } from "../../catalog/databases.ts";
import { REJECTION_SAMPLES } from "../../domain/limits.ts";
import { err, ok, type Result } from "../../domain/result.ts";
import { SECOND_MS, type TimeRange } from "../../domain/window.ts";
import type { Env } from "../../env.ts";
import { type ErrorReport, findErrorReport, listErrorReports } from "../../query/error-reports.ts";
import { defineEndpoint } from "../endpoint.ts";
import type { ApiError } from "../errors.ts";
import { text } from "../fields.ts";
import { pageLimit, v2PageOf } from "../list.ts";
import { parseTimestamp } from "../timestamps.ts";

/** The types of event there are: what streams refused, for a meter or for a name without one. */
const ERROR_REPORT = "v1.billing.meter.error_report_triggered";
const NO_METER_FOUND = "v1.billing.meter.no_meter_found";

const PATH = "/v2/core/events";
const tag = "Error reports";

const CoreEvent = z
  .object({
    id: z.string(),
    object: z.literal("v2.core.event"),
    type: z.enum([ERROR_REPORT, NO_METER_FOUND]),
    created: z.iso.datetime(),
    livemode: z.boolean(),
    context: z.null(),
    reason: z.null(),
    related_object: z.object({ id: z.string(), type: z.literal("billing.meter"), url: z.string() }).nullable(),
    changes: z.strictObject({}),
    data: z.object({
      developer_message_summary: z.string(),
      reason: z.object({
        error_count: z.int(),
        error_types: z.array(
          z.object({
            code: z.string(),
            error_count: z.int(),
            sample_errors: z
              .array(z.object({ error_message: z.string(), request: z.object({ identifier: z.string() }) }))
              .max(REJECTION_SAMPLES),
          }),
        ),
      }),
      validation_start: z.iso.datetime(),
      validation_end: z.iso.datetime(),
    }),
  })
  .meta({ id: "V2CoreEvent" });

const iso = (ms: number): string => new Date(ms).toISOString();

const toWire = (report: ErrorReport): z.output<typeof CoreEvent> => ({
  id: report.id,
  object: "v2.core.event",
  type: report.meter === null ? NO_METER_FOUND : ERROR_REPORT,
  created: iso(report.created),
  livemode: report.livemode,
  context: null,
  reason: null,
  related_object:
    report.meter === null
      ? null
      : { id: report.meter, type: "billing.meter", url: `/v1/billing/meters/${report.meter}` },
  changes: {},
  data: {
    developer_message_summary:
      report.errorCount === 1 ? "There is 1 invalid event" : `There are ${report.errorCount} invalid events`,
    reason: {
      error_count: report.errorCount,
      error_types: report.errors.map(({ code, errorCount, samples }) => ({
        code,
        error_count: errorCount,
        sample_errors: samples.map(({ message, identifier }) => ({ error_message: message, request: { identifier } })),
      })),
    },
    validation_start: iso(report.window.start),
    validation_end: iso(report.window.end),
  },
});

const UNIX_SECONDS = /^[0-9]{1,12}$/;
/** The last time (ms) that RFC 3339 can write, and so the URL of a next page. */
const LAST_TIME = Date.UTC(9999, 11, 31);

/** A time in a v2 query, in ms: RFC 3339, or the Unix seconds that the SDKs make of a Date. */
const timeOf = (given: string): number | undefined =>
  UNIX_SECONDS.test(given) ? Number(given) * SECOND_MS : parseTimestamp(given);

const time = z
  .string()
  .refine((given) => timeOf(given) !== undefined, "it must be an RFC 3339 timestamp or a Unix timestamp in seconds.")
  .transform((given) => Math.max(0, Math.min(timeOf(given) ?? 0, LAST_TIME)))
  .optional()
  .meta({ type: "string", format: "date-time" });

const created = z.strictObject({ gt: time, gte: time, lt: time, lte: time }).optional();

/** A list, or a parameter that comes once. */
const types = z
  .preprocess((given) => (typeof given === "string" ? [given] : given), z.array(text(200)).max(20))
  .optional()
  .meta({ type: "array", items: { type: "string" }, description: `\`${ERROR_REPORT}\`, \`${NO_METER_FOUND}\`.` });

const listFields = {
  limit: pageLimit(20),
  object_id: text(200).optional().meta({ description: "Only events about this meter." }),
  types,
  created,
  page: text(200).optional().meta({ description: "From `next_page_url`." }),
};

type ListInput = z.output<z.ZodObject<typeof listFields>>;

const listEndpoint = defineEndpoint({
  apiVersion: "v2",
  method: "get",
  path: PATH,
  tag,
  summary: "List error reports",
  description:
    "What streams refused in each 10 seconds, per meter; newest first, going back 30 days. A report is there when nothing joins it any more, seconds after its window. What arrives later is in a further report.",
  fields: listFields,
  errors: ["invalid_fields"],
  response: v2PageOf(CoreEvent),
  handle: async ({ input, env, key, now }) => {
    const before = pageOf(input.page, key.livemode);
    if (!before.ok) return before;
    const { reports, hasMore } = await listErrorReports(databasesOf(env, key.livemode), {
      livemode: key.livemode,
      created: rangeOf(input.created),
      before: before.value,
      meter: input.object_id,
      kinds: {
        meter: input.types?.includes(ERROR_REPORT) ?? true,
        noMeter: input.types?.includes(NO_METER_FOUND) ?? true,
      },
      limit: input.limit,
      now,
    });
    const last = reports.at(-1);
    return ok({
      data: reports.map(toWire),
      next_page_url: hasMore && last !== undefined ? pageUrl(input, last.id) : null,
      previous_page_url: null,
    });
  },
});

const retrieveEndpoint = defineEndpoint({
  apiVersion: "v2",
  method: "get",
  path: `${PATH}/{id}`,
  tag,
  summary: "Retrieve an error report",
  params: { id: text(200) },
  fields: {},
  errors: ["not_found"],
  response: CoreEvent,
  handle: async ({ input, env, key, now }) => {
    const report = await findErrorReport(databasesOf(env, key.livemode), key.livemode, input.id, now);
    return report === undefined ? err({ reason: "no_such_core_event", id: input.id }) : ok(toWire(report));
  },
});

export const coreEventEndpoints = [listEndpoint, retrieveEndpoint];

const databasesOf = (env: Env, livemode: boolean): D1Database[] => eventsDatabases(env, livemode).map(({ db }) => db);

/** A page's token is the id of the last report before it. */
function pageOf(page: string | undefined, livemode: boolean): Result<string | undefined, ApiError> {
  if (page === undefined || readReportId(page)?.livemode === livemode) return ok(page);
  return err({ reason: "invalid_field", message: "Invalid page: it is not from a next_page_url.", param: "page" });
}

/** All of the filters at once, as one half-open range (ms). */
const rangeOf = ({ gt = -1, gte = 0, lt = Infinity, lte = Infinity }: ListInput["created"] = {}): TimeRange => ({
  start: Math.max(gt + 1, gte),
  end: Math.min(lt, lte + 1),
});

/** The path of the page after a report, with the filters of this one: the SDKs follow it as it stands. */
function pageUrl({ limit, object_id, types = [], created = {} }: ListInput, last: string): string {
  const query = new URLSearchParams({ limit: String(limit), page: last });
  if (object_id !== undefined) query.set("object_id", object_id);
  for (const [i, type] of types.entries()) query.set(`types[${i}]`, type);
  for (const [bound, ms] of Object.entries(created)) {
    if (ms !== undefined) query.set(`created[${bound}]`, iso(ms));
  }
  return `${PATH}?${query}`;
}
