import { digest } from "../../domain/identifiers.ts";
import { LIMITS } from "../../domain/limits.ts";
import type { Meter } from "../../domain/meter.ts";
import { type Cursor, isBackwards, pageOf } from "../../domain/page.ts";
import { err, ok, type Result } from "../../domain/result.ts";
import { SECOND_MS, summaryRange, type TimeRange, windowLength } from "../../domain/window.ts";
import { readSummaries, type Summary } from "../../query/summaries.ts";
import { defineEndpoint } from "../endpoint.ts";
import type { ApiError } from "../errors.ts";
import { choice, text, unixSeconds } from "../fields.ts";
import { cursorOf, listOf, paging, toList } from "../list.ts";
import * as z from "../zod.ts";
import { meterId, requireMeter } from "./meters.ts";

const SummaryObject = z
  .object({
    id: z.string(),
    object: z.literal("billing.meter_event_summary"),
    aggregated_value: z.bigint().openapi({
      type: "integer",
      description: "Exact, however large; read it with a parser that keeps big integers if it may pass 2^53.",
    }),
    end_time: z.int(),
    livemode: z.boolean(),
    meter: z.string(),
    start_time: z.int(),
  })
  .openapi("MeterEventSummary");

/** A summary has no row of its own: its id is its place, so that a page can begin after it. */
const summaryId = (meter: Meter, customer: string, { start, end }: TimeRange): string =>
  `mtrusg_${meter.livemode ? "" : "test_"}${start.toString(36)}_${digest(meter.id, customer, String(start), String(end))}`;

const toWire = (meter: Meter, customer: string, summary: Summary): z.output<typeof SummaryObject> => ({
  id: summaryId(meter, customer, summary),
  object: "billing.meter_event_summary",
  aggregated_value: summary.value,
  end_time: summary.end / SECOND_MS,
  livemode: meter.livemode,
  meter: meter.id,
  start_time: summary.start / SECOND_MS,
});

const listEndpoint = defineEndpoint({
  apiVersion: "v1",
  method: "get",
  path: "/v1/billing/meters/{id}/event_summaries",
  tag: "Summaries",
  summary: "What a customer used",
  description:
    "From start_time (inclusive) to end_time (exclusive), as one summary or one per UTC hour or day, newest first. Windows without events are left out. Events show up within seconds.",
  params: meterId,
  fields: {
    customer: text(LIMITS.payloadValueLength),
    start_time: unixSeconds,
    end_time: unixSeconds,
    value_grouping_window: choice(["day", "hour"]).optional(),
    ...paging,
  },
  response: listOf(SummaryObject),
  handle: async (call) => {
    const { input, env } = call;
    const found = await requireMeter(call, input.id);
    if (!found.ok) return found;
    const meter = found.value;
    const { customer, limit, value_grouping_window: grouping } = input;
    const range = summaryRange(input.start_time, input.end_time, grouping ?? "none");
    if (!range.ok) return range;
    const cursor = cursorOf(input);
    if (!cursor.ok) return cursor;

    const length = grouping === undefined ? range.value.end - range.value.start : windowLength(grouping);
    const rest = beyond(cursor.value, range.value, length, meter, customer);
    if (!rest.ok) return rest;
    const summaries = await readSummaries(env, {
      meter,
      customer,
      range: rest.value,
      windowLength: length,
      order: isBackwards(cursor.value) ? "oldest_first" : "newest_first",
      limit: limit + 1,
    });
    if (!summaries.ok) return summaries;
    const page = pageOf(summaries.value, cursor.value, limit);
    const url = `/v1/billing/meters/${meter.id}/event_summaries`;
    return ok(toList(page, url, (summary) => toWire(meter, customer, summary)));
  },
});

/** The part of a range that lies beyond the cursor. Newest first: after a summary come the older ones. */
function beyond(
  cursor: Cursor | undefined,
  range: TimeRange,
  length: number,
  meter: Meter,
  customer: string,
): Result<TimeRange, ApiError> {
  if (cursor === undefined) return ok(range);
  const start = Number.parseInt(cursor.id.split("_").at(meter.livemode ? 1 : 2) ?? "", 36);
  const inRange = start >= range.start && start + length <= range.end;
  if (!inRange || summaryId(meter, customer, { start, end: start + length }) !== cursor.id) {
    return err({ reason: "no_such_summary", id: cursor.id, param: cursor.param });
  }
  return ok(isBackwards(cursor) ? { start: start + length, end: range.end } : { start: range.start, end: start });
}

export const eventSummaryEndpoints = [listEndpoint];
