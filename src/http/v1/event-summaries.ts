import * as z from "zod";
import { digest } from "../../domain/identifiers.ts";
import { LIMITS } from "../../domain/limits.ts";
import { type Cursor, isBackwards, pageOf } from "../../domain/page.ts";
import { err, ok, type Result } from "../../domain/result.ts";
import {
  type Run,
  runsWithin,
  SECOND_MS,
  summaryRange,
  type TimeRange,
  windowAt,
  windowLength,
} from "../../domain/window.ts";
import { placesOf } from "../../query/sources.ts";
import { type CustomerQuery, readUsageOf } from "../../query/summaries.ts";
import type { UsageRow } from "../../query/usage.ts";
import { COMPLETE, readWithMoment } from "../completeness.ts";
import { Dimensions, dimensionFields, dimensionsOf, readDimensions } from "../dimensions.ts";
import { defineEndpoint } from "../endpoint.ts";
import type { ApiError } from "../errors.ts";
import { choice, text, unixSeconds } from "../fields.ts";
import { cursorOf, listOf, pagingOf, toList } from "../list.ts";
import { meterId, requireMeter } from "./meters.ts";

const SummaryObject = z
  .object({
    id: z.string(),
    object: z.literal("billing.meter_event_summary"),
    aggregated_value: z.bigint().meta({
      type: "integer",
      description: "Exact, however large; read it with a parser that keeps big integers if it may pass 2^53.",
    }),
    dimensions: Dimensions.optional(),
    end_time: z.int(),
    livemode: z.boolean(),
    meter: z.string(),
    start_time: z.int(),
  })
  .meta({ id: "MeterEventSummary" });

/** What a list of summaries is of. */
type Listed = Pick<CustomerQuery, "meter" | "customer" | "keys">;

/** A summary has no row of its own: its id is its place, so that a page can begin after it. */
function summaryId({ meter, customer, keys }: Listed, { start, end, group }: TimeRange & Pick<UsageRow, "group">) {
  const grouped = keys.length > 0 ? [JSON.stringify(keys), group] : [];
  const place = `${start.toString(36)}_${digest(meter.id, customer, String(start), String(end), ...grouped)}`;
  const named = keys.length > 0 ? `.${Buffer.from(group).toString("base64url")}` : "";
  return `mtrusg_${meter.livemode ? "" : "test_"}${place}${named}`;
}

const toWire = (listed: Listed, row: UsageRow): z.output<typeof SummaryObject> => ({
  id: summaryId(listed, row),
  object: "billing.meter_event_summary",
  aggregated_value: row.value,
  ...(listed.keys.length > 0 && { dimensions: dimensionsOf(listed.keys, row.group) }),
  end_time: row.end / SECOND_MS,
  livemode: listed.meter.livemode,
  meter: listed.meter.id,
  start_time: row.start / SECOND_MS,
});

const listEndpoint = defineEndpoint({
  apiVersion: "v1",
  method: "get",
  path: "/v1/billing/meters/{id}/event_summaries",
  tag: "Summaries",
  summary: "What a customer used",
  description:
    "From start_time (inclusive) to end_time (exclusive), as one summary or one per UTC hour or day, newest first. Windows without events are left out. Events show up within seconds. Dimensions are in preview at Stripe.",
  params: meterId,
  fields: {
    customer: text(LIMITS.payloadValueLength),
    start_time: unixSeconds,
    end_time: unixSeconds,
    value_grouping_window: choice(["day", "hour"]).optional(),
    ...dimensionFields,
    ...pagingOf(LIMITS.cursorLength),
  },
  ...COMPLETE,
  response: listOf(SummaryObject),
  handle: async (call) => {
    const { input, env } = call;
    const found = await requireMeter(call, input.id);
    if (!found.ok) return found;
    const meter = found.value;
    const { customer, limit, value_grouping_window: grouping } = input;
    const range = summaryRange(input.start_time, input.end_time, grouping ?? "none");
    if (!range.ok) return range;
    const dimensions = readDimensions(input, meter);
    if (!dimensions.ok) return dimensions;
    const cursor = cursorOf(input);
    if (!cursor.ok) return cursor;

    const listed = { meter, customer, ...dimensions.value };
    const length = grouping === undefined ? range.value.end - range.value.start : windowLength(grouping);
    const rest = beyond(cursor.value, [{ ...range.value, length }], listed);
    if (!rest.ok) return rest;
    const backwards = isBackwards(cursor.value);
    return readWithMoment(
      call,
      (placement) => placesOf(placement, meter.id, customer),
      async () => {
        const rows = await readUsageOf(env, {
          ...listed,
          ...rest.value,
          order: {
            windows: backwards ? "oldest_first" : "newest_first",
            groups: backwards ? "descending" : "ascending",
          },
          limit: limit + 1,
        });
        if (!rows.ok) return rows;
        const page = pageOf(rows.value, cursor.value, limit);
        const url = `/v1/billing/meters/${meter.id}/event_summaries`;
        return ok(toList(page, url, (row) => toWire(listed, row)));
      },
    );
  },
});

/** The part of some windows that lies beyond the cursor. Newest first: after a summary come the older ones. */
function beyond(
  cursor: Cursor | undefined,
  runs: readonly Run[],
  listed: Listed,
): Result<Pick<CustomerQuery, "runs" | "after">, ApiError> {
  if (cursor === undefined) return ok({ runs });
  const [place = "", named = ""] = cursor.id.split(".");
  const start = Number.parseInt(place.split("_").at(listed.meter.livemode ? 1 : 2) ?? "", 36);
  const group = Buffer.from(named, "base64url").toString();
  const window = windowAt(runs, start);
  if (window === undefined || summaryId(listed, { ...window, group }) !== cursor.id) {
    return err({ reason: "no_such_summary", id: cursor.id, param: cursor.param });
  }
  // Of its own window the other groups follow.
  const own = listed.keys.length > 0;
  const [first, last] = [runs[0]?.start ?? 0, runs.at(-1)?.end ?? 0];
  const rest = isBackwards(cursor)
    ? { start: own ? window.start : window.end, end: last }
    : { start: first, end: own ? window.end : window.start };
  return ok({ runs: runsWithin(runs, rest), after: own ? { start, group } : undefined });
}

export const eventSummaryEndpoints = [listEndpoint];
