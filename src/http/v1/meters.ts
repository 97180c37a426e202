import * as z from "zod";
import {
  findMeter,
  forgetMeter,
  insertMeter,
  listMeters,
  nameIsTaken,
  saveDisplayName,
  saveStatus,
} from "../../catalog/meters.ts";
import { LIMITS } from "../../domain/limits.ts";
import {
  createMeter,
  deactivate,
  EVENT_TIME_WINDOWS,
  FORMULAS,
  type Meter,
  reactivate,
  rename,
} from "../../domain/meter.ts";
import { err, ok, type Result } from "../../domain/result.ts";
import { type Call, defineEndpoint } from "../endpoint.ts";
import type { ApiError } from "../errors.ts";
import { choice, eventName, requiredError, text, toUnix } from "../fields.ts";
import { type Change, commitOnce } from "../idempotent-answer.ts";
import { cursorOf, listOf, paging, toList } from "../list.ts";
import type { Handled } from "../response.ts";

const MeterObject = z
  .object({
    id: z.string(),
    object: z.literal("billing.meter"),
    created: z.int(),
    customer_mapping: z.object({ event_payload_key: z.string(), type: z.literal("by_id") }),
    default_aggregation: z.object({ formula: z.enum(FORMULAS) }),
    dimension_payload_keys: z.array(z.string()).optional().meta({ description: "Absent when there are none." }),
    display_name: z.string(),
    event_name: z.string(),
    event_time_window: z.enum(EVENT_TIME_WINDOWS).nullable(),
    livemode: z.boolean(),
    status: z.enum(["active", "inactive"]),
    status_transitions: z.object({ deactivated_at: z.int().nullable() }),
    updated: z.int(),
    value_settings: z.object({ event_payload_key: z.string() }),
  })
  .meta({ id: "Meter" });

type MeterReply = z.output<typeof MeterObject>;

const toWire = (meter: Meter): MeterReply => ({
  id: meter.id,
  object: "billing.meter",
  created: toUnix(meter.created),
  customer_mapping: { event_payload_key: meter.customerKey, type: "by_id" },
  default_aggregation: { formula: meter.formula },
  ...(meter.dimensionKeys.length > 0 && { dimension_payload_keys: [...meter.dimensionKeys] }),
  display_name: meter.displayName,
  event_name: meter.eventName,
  event_time_window: meter.eventTimeWindow,
  livemode: meter.livemode,
  status: meter.status,
  status_transitions: { deactivated_at: meter.deactivatedAt === null ? null : toUnix(meter.deactivatedAt) },
  updated: toUnix(meter.updated),
  value_settings: { event_payload_key: meter.valueKey },
});

const displayName = text(LIMITS.displayNameLength).meta({ example: "Search API calls" });
const payloadKey = text(LIMITS.payloadKeyLength);
export const meterId = { id: text(LIMITS.payloadKeyLength).meta({ example: "mtr_test_1" }) };
const PATH = "/v1/billing/meters";
const tag = "Meters";

const createEndpoint = defineEndpoint({
  apiVersion: "v1",
  method: "post",
  path: PATH,
  tag,
  summary: "Create a meter",
  fields: {
    display_name: displayName,
    event_name: eventName,
    default_aggregation: z.strictObject(
      {
        formula: choice(FORMULAS).meta({
          description:
            "`sum` adds the values up, `count` counts the events, `last` is the latest value by timestamp. `max` and `min`, the greatest and the least value, are edgemeter's own.",
        }),
      },
      requiredError,
    ),
    customer_mapping: z.strictObject({ type: choice(["by_id"]), event_payload_key: payloadKey }).optional(),
    value_settings: z.strictObject({ event_payload_key: payloadKey }).optional(),
    event_time_window: choice(EVENT_TIME_WINDOWS).optional(),
    dimension_payload_keys: z
      .array(payloadKey)
      .max(LIMITS.dimensionKeys, `it can have at most ${LIMITS.dimensionKeys} keys.`)
      .optional()
      .meta({
        description: `Keys that the payload of each event must have, whose values can be told apart in summaries. At most ${LIMITS.dimensionCombinations.toLocaleString("en")} combinations of values for a customer. In preview at Stripe.`,
      }),
  },
  response: MeterObject,
  handle: (call) =>
    commitOnce(call, async () => {
      const { input, key, env, now } = call;
      const created = createMeter(
        {
          displayName: input.display_name,
          eventName: input.event_name,
          formula: input.default_aggregation.formula,
          eventTimeWindow: input.event_time_window ?? null,
          customerKey: input.customer_mapping?.event_payload_key,
          valueKey: input.value_settings?.event_payload_key,
          dimensionKeys: input.dimension_payload_keys,
        },
        key.livemode,
        now,
      );
      if (!created.ok) return created;
      const meter = created.value;
      return ok({
        response: toWire(meter),
        statements: [insertMeter(env.DB, meter)],
        explain: () => explainTakenName(meter, call),
      });
    }),
});

const retrieveEndpoint = defineEndpoint({
  apiVersion: "v1",
  method: "get",
  path: `${PATH}/{id}`,
  tag,
  summary: "Retrieve a meter",
  params: meterId,
  fields: {},
  response: MeterObject,
  handle: async (call) => {
    const meter = await requireMeter(call, call.input.id);
    return meter.ok ? ok(toWire(meter.value)) : meter;
  },
});

const listEndpoint = defineEndpoint({
  apiVersion: "v1",
  method: "get",
  path: PATH,
  tag,
  summary: "List meters",
  description: "Newest first.",
  fields: { status: choice(["active", "inactive"]).optional(), ...paging },
  response: listOf(MeterObject),
  handle: async (call) => {
    const { input, env, key } = call;
    const cursor = cursorOf(input);
    if (!cursor.ok) return cursor;
    if (cursor.value !== undefined) {
      const known = await requireMeter(call, cursor.value.id, cursor.value.param);
      if (!known.ok) return known;
    }
    const page = await listMeters(env.DB, key.livemode, input.status, cursor.value, input.limit);
    return ok(toList(page, PATH, toWire));
  },
});

const updateEndpoint = defineEndpoint({
  apiVersion: "v1",
  method: "post",
  path: `${PATH}/{id}`,
  tag,
  summary: "Update a meter",
  description: "Only its display name can change.",
  params: meterId,
  fields: { display_name: displayName.optional() },
  response: MeterObject,
  handle: (call) =>
    changeMeter(call, (meter) => {
      const { display_name } = call.input;
      if (display_name === undefined) return { meter, statements: [] };
      const renamed = rename(meter, display_name, call.now);
      return { meter: renamed, statements: [saveDisplayName(call.env.DB, renamed)] };
    }),
});

/** deactivate and reactivate: the same call but for the change of status. */
const statusEndpoint = (name: "deactivate" | "reactivate", apply: (meter: Meter, now: number) => Meter) =>
  defineEndpoint({
    apiVersion: "v1",
    method: "post",
    path: `${PATH}/{id}/${name}`,
    tag,
    summary: name === "deactivate" ? "Deactivate a meter" : "Reactivate a meter",
    description:
      name === "deactivate"
        ? "Its events are refused, within seconds everywhere; its summaries stay. Its event name becomes free."
        : "Its event name must be free.",
    params: meterId,
    fields: {},
    response: MeterObject,
    handle: (call) =>
      changeMeter(call, (meter) => {
        const changed = apply(meter, call.now);
        return { meter: changed, statements: changed === meter ? [] : [saveStatus(call.env.DB, changed)] };
      }),
  });

export const meterEndpoints = [
  createEndpoint,
  retrieveEndpoint,
  listEndpoint,
  updateEndpoint,
  statusEndpoint("deactivate", deactivate),
  statusEndpoint("reactivate", reactivate),
];

/** The meter of an id in the caller's mode. */
export async function requireMeter(
  { env, key }: Call<unknown>,
  id: string,
  param = "id",
): Promise<Result<Meter, ApiError>> {
  const meter = await findMeter(env.DB, key.livemode, id);
  return meter === undefined ? err({ reason: "no_such_meter", id, param }) : ok(meter);
}

async function changeMeter(
  call: Call<{ id: string }>,
  change: (meter: Meter) => { meter: Meter; statements: Change<MeterReply>["statements"] },
): Promise<Handled<MeterReply>> {
  let changed: Meter | undefined;
  const handled = await commitOnce(call, async () => {
    const found = await requireMeter(call, call.input.id);
    if (!found.ok) return found;
    const { meter, statements } = change(found.value);
    changed = meter;
    return ok({ response: toWire(meter), statements, explain: () => explainTakenName(meter, call) });
  });
  // After the commit: before it, an event could put the unchanged meter back.
  if (changed !== undefined) forgetMeter(changed);
  return handled;
}

/** Why an active meter could not be stored: another one has its event name. */
async function explainTakenName(meter: Meter, { env }: Call<unknown>): Promise<ApiError | undefined> {
  return (await nameIsTaken(env.DB, meter)) ? { reason: "meter_name_taken", eventName: meter.eventName } : undefined;
}
