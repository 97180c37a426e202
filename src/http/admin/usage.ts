import * as z from "zod";
import { LIMITS } from "../../domain/limits.ts";
import type { Meter } from "../../domain/meter.ts";
import { pageOf } from "../../domain/page.ts";
import { allPlaces } from "../../domain/placement.ts";
import { err, ok, type Result } from "../../domain/result.ts";
import { listCustomers, readUsageOfAll } from "../../query/all-customers.ts";
import type { UsageRow } from "../../query/usage.ts";
import { COMPLETE, readWithMoment } from "../completeness.ts";
import { Dimensions, dimensionFields, dimensionsOf, readDimensions } from "../dimensions.ts";
import { defineEndpoint } from "../endpoint.ts";
import type { ApiError } from "../errors.ts";
import { choice, text, toUnix, unixSeconds } from "../fields.ts";
import { listOf, pagingOf, toList } from "../list.ts";
import { requireMeter } from "../v1/meters.ts";
import { cycleAnchor, readWindows, span, timezone } from "../windows.ts";

const UsageRowObject = z
  .object({
    id: z.string(),
    object: z.literal("edgemeter.usage_row"),
    starts_at: z.int(),
    ends_at: z.int(),
    customer: z.string().optional().meta({ description: "When grouped by customer." }),
    dimensions: Dimensions.optional(),
    value: z.bigint().meta({ type: "integer", description: "Exact, however large." }),
  })
  .meta({ id: "UsageRow" });

/** The word that groups by customer. A dimension of that name cannot be asked for. */
const CUSTOMER = "customer";

const tag = "Usage of all customers";

/** Both lists go on in one direction. */
const { limit, starting_after } = pagingOf(LIMITS.cursorLength);

const usageEndpoint = defineEndpoint({
  apiVersion: "v1",
  method: "get",
  path: "/v1/edgemeter/usage",
  tag,
  summary: "What all customers used",
  description:
    "edgemeter's own. A meter's usage from `from` (inclusive) to `to` (exclusive) in one row, or in one for each window, customer or value of a dimension; rows without events are left out. By `name`, rows come by customer, then window, then value of the dimension; by `value`, the largest first, of the whole range. Of several customers the values are added up, also on a meter of formula `last`; `max` and `min` take the greatest and the least of all.",
  fields: {
    meter: text(LIMITS.payloadKeyLength).meta({ example: "mtr_1", description: "A meter's id." }),
    from: unixSeconds,
    to: unixSeconds,
    window: span,
    timezone,
    cycle_anchor: cycleAnchor,
    group_by: text(LIMITS.payloadKeyLength)
      .optional()
      .meta({ description: "`customer`, or a dimension of the meter." }),
    dimension_filters: dimensionFields.dimension_filters,
    order: choice(["name", "value"]).default("name"),
    ...{ limit, starting_after },
  },
  ...COMPLETE,
  response: listOf(UsageRowObject),
  errors: ["archived_range_deleted", "archived_range_unaligned"],
  handle: async (call) => {
    const { env, input } = call;
    const found = await requireMeter(call, input.meter, "meter");
    if (!found.ok) return found;
    const meter = found.value;
    const runs = readWindows({
      range: { start: input.from, end: input.to },
      ...{ window: input.window, zone: input.timezone, anchor: input.cycle_anchor },
      params: { end: "to", window: "window" },
    });
    if (!runs.ok) return runs;
    if (input.order === "value" && input.window !== undefined) {
      const message = "order=value ranks the whole range: it cannot be used with window.";
      return err({ reason: "invalid_field", message, param: "order" });
    }
    const grouping = readGrouping(input, meter);
    if (!grouping.ok) return grouping;
    const after = input.starting_after === undefined ? ok(undefined) : readCursor(input.starting_after);
    if (!after.ok) return after;
    const { order } = input;
    const query = { meter, runs: runs.value, ...grouping.value, order, after: after.value, limit: input.limit + 1 };
    return readWithMoment(call, allPlaces, async () => {
      const rows = await readUsageOfAll(env, query);
      if (!rows.ok) return rows;
      return ok(
        toList(pageOf(rows.value, undefined, input.limit), "/v1/edgemeter/usage", (row) => ({
          id: rowId(row),
          object: "edgemeter.usage_row" as const,
          starts_at: toUnix(row.start),
          ends_at: toUnix(row.end),
          ...(query.byCustomer && { customer: row.customer }),
          ...(query.keys.length > 0 && { dimensions: dimensionsOf(query.keys, row.group) }),
          value: row.value,
        })),
      );
    });
  },
});

type Grouped = { readonly group_by?: string | undefined } & Pick<
  Parameters<typeof readDimensions>[0],
  "dimension_filters"
>;

function readGrouping({ group_by: key, dimension_filters }: Grouped, meter: Meter) {
  const byCustomer = key === CUSTOMER;
  const isDeclared = key === undefined || byCustomer || meter.dimensionKeys.includes(key);
  if (!isDeclared) {
    const message = `Invalid group_by: it must be customer or a dimension that the meter ${meter.id} declares.`;
    return err({ reason: "invalid_field", message, param: "group_by" } as const);
  }
  const keys = key === undefined || byCustomer ? [] : [key];
  const dimensions = readDimensions({ dimension_filters, dimension_group_by_keys: keys }, meter);
  return dimensions.ok ? ok({ ...dimensions.value, byCustomer }) : dimensions;
}

/** A row's id has all that its place depends on. */
const rowId = ({ start, customer, group, value }: UsageRow): string =>
  `usage_${Buffer.from(JSON.stringify([start, customer, group, String(value)])).toString("base64url")}`;

const Cursor = z.tuple([z.int(), z.string(), z.string(), z.string().regex(/^\d+$/)]);

function readCursor(id: string): Result<UsageRow, ApiError> {
  try {
    const encoded = id.slice("usage_".length);
    const [start, customer, group, value] = Cursor.parse(JSON.parse(Buffer.from(encoded, "base64url").toString()));
    return ok({ start, end: start, customer, group, value: BigInt(value) });
  } catch {
    return err({ reason: "no_such_summary", id, param: "starting_after" });
  }
}

const CustomerObject = z
  .object({
    id: z.string(),
    object: z.literal("edgemeter.customer"),
    last_event: z.int().nullable().meta({
      description: "When the quarter hour began in which the latest event happened; null when none counts.",
    }),
  })
  .meta({ id: "Customer" });

const customersEndpoint = defineEndpoint({
  apiVersion: "v1",
  method: "get",
  path: "/v1/edgemeter/customers",
  tag,
  summary: "List customers",
  description:
    "edgemeter's own. Customers that have had events, in the order of their ids, each with the time of its latest event.",
  fields: {
    prefix: text(LIMITS.payloadValueLength).optional().meta({ description: "What their ids begin with." }),
    meter: text(LIMITS.payloadKeyLength).optional().meta({ description: "Only those with events on this meter." }),
    ...{ limit, starting_after },
  },
  ...COMPLETE,
  response: listOf(CustomerObject),
  handle: async (call) => {
    const { env, key, input } = call;
    const meter = input.meter === undefined ? ok(undefined) : await requireMeter(call, input.meter, "meter");
    if (!meter.ok) return meter;
    return readWithMoment(call, allPlaces, async () => {
      const customers = await listCustomers(env, key.livemode, {
        ...{ prefix: input.prefix ?? "", meter: meter.value },
        ...{ after: input.starting_after ?? "", limit: input.limit + 1 },
      });
      if (!customers.ok) return customers;
      return ok(
        toList(pageOf(customers.value, undefined, input.limit), "/v1/edgemeter/customers", ({ id, lastEvent }) => ({
          ...{ id, object: "edgemeter.customer" as const },
          last_event: lastEvent === undefined ? null : toUnix(lastEvent),
        })),
      );
    });
  },
});

export const usageEndpoints = [usageEndpoint, customersEndpoint];
