import * as z from "zod";
import { digest } from "../../domain/identifiers.ts";
import { LIMITS } from "../../domain/limits.ts";
import type { Meter } from "../../domain/meter.ts";
import { type Cursor, isBackwards, pageOf } from "../../domain/page.ts";
import { allPlaces } from "../../domain/placement.ts";
import { err, ok, type Result } from "../../domain/result.ts";
import { type Run, windowAt } from "../../domain/window.ts";
import type { PlacesRead } from "../../log/completeness.ts";
import { type MeterUsageQuery, type MeterUsageRow, metersOf, readMeterUsage } from "../../query/meter-usage.ts";
import { placesOf } from "../../query/sources.ts";
import { COMPLETE, readWithMoment } from "../completeness.ts";
import { Dimensions, dimensionFields, dimensionsOf, readDimensions } from "../dimensions.ts";
import { type Call, defineEndpoint } from "../endpoint.ts";
import type { ApiError } from "../errors.ts";
import { text, toUnix, unixSeconds } from "../fields.ts";
import { cursorOf, listOf, pagingOf, toList } from "../list.ts";
import { cycleAnchor, readWindows, span, timezone } from "../windows.ts";
import { requireMeter } from "./meters.ts";

const PATH = "/v1/billing/analytics/meter_usage";

/** The most meters that are added up for a request which names none. */
const ALL_METERS = 100;

const Row = z
  .object({
    id: z.string(),
    object: z.literal("billing.analytics.meter_usage_row"),
    dimensions: Dimensions.nullable(),
    ends_at: z.int(),
    meter: z.string().nullable().meta({ description: "null when no meters were asked for." }),
    starts_at: z.int(),
    value: z.bigint().meta({ type: "integer", description: "Exact, however large." }),
  })
  .meta({ id: "MeterUsageRow" });

const MeterUsage = z
  .object({
    object: z.literal("billing.analytics.meter_usage"),
    livemode: z.boolean(),
    refreshed_at: z.int().meta({ description: "When the usage was read." }),
    rows: listOf(Row),
  })
  .meta({ id: "MeterUsage" });

/** What rows are of: enough to tell the rows of two requests apart. */
type Asked = Pick<MeterUsageQuery, "customer" | "meters" | "together"> & { readonly livemode: boolean };

/** A row's id is its place, so that a page can begin after it. The group is JSON: written as JSON again it could be twice as long. */
function rowId({ customer, meters, together, livemode }: Asked, row: MeterUsageRow): string {
  const { start, end, place, group } = row;
  const asked = together ? "" : JSON.stringify(meters.map(({ meter, ...rest }) => [meter.id, rest]));
  const named = Buffer.from(`${start} ${place} ${group}`).toString("base64url");
  return `mtrusr_${livemode ? "" : "test_"}${digest(customer, asked, named, String(end))}.${named}`;
}

function toWire(asked: Asked, row: MeterUsageRow): z.output<typeof Row> {
  const { meter, keys } = asked.together ? { meter: undefined, keys: [] } : (asked.meters[row.place] ?? NO_METER);
  return {
    id: rowId(asked, row),
    object: "billing.analytics.meter_usage_row",
    dimensions: keys.length === 0 ? null : dimensionsOf(keys, row.group),
    ends_at: toUnix(row.end),
    meter: meter?.id ?? null,
    starts_at: toUnix(row.start),
    value: row.value,
  };
}

const NO_METER = { meter: undefined, keys: [] };

const fields = {
  customer: text(LIMITS.payloadValueLength),
  starts_at: unixSeconds,
  ends_at: unixSeconds,
  meters: z
    .array(z.strictObject({ meter: text(LIMITS.payloadKeyLength), ...dimensionFields }))
    .min(1)
    .max(LIMITS.listItems, `it can have at most ${LIMITS.listItems} meters.`)
    .optional()
    .meta({ description: "Without any, the usage of all meters is added up." }),
  timezone,
  value_grouping_window: span,
  cycle_anchor: cycleAnchor,
  ...pagingOf(LIMITS.cursorLength),
};

type Input = z.output<z.ZodObject<typeof fields>>;

const retrieveEndpoint = defineEndpoint({
  apiVersion: "v1",
  method: "get",
  path: PATH,
  tag: "Summaries",
  summary: "What a customer used on several meters",
  description:
    "In preview at Stripe, but for `cycle_anchor`, which is edgemeter's. From starts_at (inclusive) to ends_at (exclusive), in one row for a meter or one for each hour, day, week or month of a time zone's clock, oldest first. The range cuts its first and last window. Windows without events are left out.",
  fields,
  ...COMPLETE,
  response: MeterUsage,
  handle: async (call) => {
    const { input, env, key, now } = call;
    const runs = readWindows({
      range: { start: input.starts_at, end: input.ends_at },
      ...{ window: input.value_grouping_window, zone: input.timezone, anchor: input.cycle_anchor },
      params: { end: "ends_at", window: "value_grouping_window" },
    });
    if (!runs.ok) return runs;
    const cursor = cursorOf(input);
    if (!cursor.ok) return cursor;
    return readWithMoment(call, placesReadFor(input), async () => {
      const meters = await readMeters(call);
      if (!meters.ok) return meters;
      const { customer, limit } = input;
      const asked = { customer, meters: meters.value, together: input.meters === undefined, livemode: key.livemode };
      const beyond = cursor.value === undefined ? ok(undefined) : readCursor(cursor.value, asked, runs.value);
      if (!beyond.ok) return beyond;
      const rows = await readMeterUsage(env, { ...asked, runs: runs.value, beyond: beyond.value, limit: limit + 1 });
      if (!rows.ok) return rows;
      const page = pageOf(rows.value, cursor.value, limit);
      return ok({
        object: "billing.analytics.meter_usage" as const,
        livemode: key.livemode,
        refreshed_at: toUnix(now),
        rows: toList(page, PATH, (row) => toWire(asked, row)),
      });
    });
  },
});

/** Where the usage of a request may be. All databases say on which meters a customer has any. */
const placesReadFor =
  ({ meters, customer }: Input): PlacesRead =>
  (placement) =>
    meters === undefined
      ? allPlaces(placement)
      : [...new Set(meters.flatMap(({ meter }) => placesOf(placement, meter, customer)))];

/** The meters of a request; of one that names none, those on which the customer has usage. */
async function readMeters(call: Call<Input>): Promise<Result<MeterUsageQuery["meters"], ApiError>> {
  const { input, env, key } = call;
  if (input.meters === undefined) {
    const all = await metersOf(env, key.livemode, input.customer, ALL_METERS);
    if (!all.ok) return all;
    if (all.value.length <= ALL_METERS) return ok(all.value.map((meter) => ({ meter, filters: [], keys: [] })));
    const message = `The customer has usage on more than ${ALL_METERS} meters: name those that you want.`;
    return err({ reason: "invalid_field", message, param: "meters" });
  }
  const meters: { meter: Meter; filters: MeterUsageQuery["meters"][number]["filters"]; keys: readonly string[] }[] = [];
  for (const [i, asked] of input.meters.entries()) {
    const found = await requireMeter(call, asked.meter, `meters[${i}][meter]`);
    if (!found.ok) return found;
    const dimensions = readDimensions(asked, found.value, `meters[${i}]`);
    if (!dimensions.ok) return dimensions;
    meters.push({ meter: found.value, ...dimensions.value });
  }
  return ok(meters);
}

const PLACE = /^(?<start>-?\d+) (?<place>\d+) (?<group>.*)$/s;

function readCursor(cursor: Cursor, asked: Asked, runs: readonly Run[]): Result<MeterUsageQuery["beyond"], ApiError> {
  const named = Buffer.from(cursor.id.split(".")[1] ?? "", "base64url").toString();
  const { start = "", place = "", group = "" } = PLACE.exec(named)?.groups ?? {};
  const window = windowAt(runs, Number(start));
  const row = window && { ...window, customer: "", group, value: 0n, place: Number(place) };
  return row !== undefined && rowId(asked, row) === cursor.id
    ? ok({ row, backwards: isBackwards(cursor) })
    : err({ reason: "no_such_summary", id: cursor.id, param: cursor.param });
}

export const meterUsageEndpoints = [retrieveEndpoint];
