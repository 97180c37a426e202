import * as z from "zod";
import { deadLetterOf, type KnownLetter } from "../../aggregate/dead-letters.ts";
import { eventsDatabase } from "../../catalog/databases.ts";
import { payloadOf } from "../../domain/event.ts";
import { LATE_MS, LIMITS } from "../../domain/limits.ts";
import type { Meter } from "../../domain/meter.ts";
import { isBackwards, type Page, pageOf } from "../../domain/page.ts";
import { allPlaces } from "../../domain/placement.ts";
import { err, ok, type Result } from "../../domain/result.ts";
import { SECOND_MS } from "../../domain/window.ts";
import { keyOf, logOf } from "../../ingest/identity.ts";
import { reportEvent } from "../../ingest/report-event.ts";
import { retrieveFrom } from "../../log/calls.ts";
import type { PlacesRead } from "../../log/completeness.ts";
import type { EventPlace, StoredEvent, Whose } from "../../query/event-order.ts";
import { listEvents } from "../../query/events.ts";
import { placesOf } from "../../query/sources.ts";
import { COMPLETE, readWithMoment } from "../completeness.ts";
import { type Call, defineEndpoint } from "../endpoint.ts";
import type { ApiError } from "../errors.ts";
import {
  choice,
  eventName,
  payload,
  reportedIdentifier,
  requiredError,
  text,
  toReport,
  toUnix,
  unixSeconds,
} from "../fields.ts";
import { cursorOf, listOf, paging, toList } from "../list.ts";
import { firstGivenTo } from "../response.ts";
import { requireMeter } from "./meters.ts";

const EventObject = z
  .object({
    object: z.literal("billing.meter_event"),
    created: z.int(),
    event_name: z.string(),
    identifier: z.string(),
    livemode: z.boolean(),
    payload: z.record(z.string(), z.string()),
    timestamp: z.int(),
  })
  .meta({ id: "MeterEvent" });

const KnownEventObject = EventObject.extend({
  id: z.string().meta({ description: "Its place among the events of its customer and meter." }),
  meter: z.string(),
  aggregated: z
    .boolean()
    .meta({ description: "Whether it has reached the summaries, which count it unless it is cancelled." }),
  parked: z
    .object({
      dead_letter: z.string(),
      reason: z.string(),
      discarded_at: z.int().nullable().meta({ description: "When it was given up; it will never count." }),
    })
    .nullable()
    .meta({ description: "Why the database refuses it, while it is a dead letter and counts nowhere." }),
  cancelled_at: z.int().nullable(),
  reported_by: z.int().meta({ description: "The number of the API key; `npm run keys` lists them." }),
  cancelled_by: z.int().nullable().meta({ description: "Likewise, of the key that cancelled it." }),
}).meta({ id: "KnownMeterEvent" });

const tag = "Meter events";

const createEndpoint = defineEndpoint({
  apiVersion: "v1",
  method: "post",
  path: "/v1/billing/meter_events",
  tag,
  summary: "Report an event (v1)",
  description: "As its v2 twin, with a form and unix seconds.",
  fields: {
    event_name: eventName,
    payload,
    identifier: reportedIdentifier.optional(),
    timestamp: unixSeconds.optional(),
  },
  response: EventObject,
  needs: "ingest",
  limit: "sync_events",
  claimsKey: true,
  handle: async (call) => {
    const { timestamp } = call.input;
    const report = toReport({ ...call.input, timestamp: timestamp === undefined ? undefined : timestamp * SECOND_MS });
    const recorded = await reportEvent(report, call);
    if (!recorded.ok) return recorded;
    const event: z.output<typeof EventObject> = {
      object: "billing.meter_event",
      created: toUnix(recorded.value.received),
      event_name: report.eventName,
      identifier: recorded.value.identifier,
      livemode: call.key.livemode,
      payload: report.payload,
      timestamp: toUnix(recorded.value.timestamp),
    };
    return firstGivenTo(recorded.value.token, event);
  },
});

/** Nine digits of base 36 hold a time in ms until the year 5188. */
const TIME_DIGITS = 9;

const prefixOf = ({ livemode }: Pick<Meter, "livemode">): string => (livemode ? "mtrev_" : "mtrev_test_");

/** An event's public id is its place, so that a page can begin there without an index. */
const placeId = (meter: Meter, { timestamp, id }: EventPlace): string =>
  prefixOf(meter) + timestamp.toString(36).padStart(TIME_DIGITS, "0") + id;

function placeOf(meter: Meter, publicId: string): EventPlace | undefined {
  const prefix = prefixOf(meter);
  const digits = publicId.slice(prefix.length, prefix.length + TIME_DIGITS);
  if (!publicId.startsWith(prefix) || !/^[0-9a-z]{9}$/.test(digits)) return undefined;
  return { timestamp: Number.parseInt(digits, 36), id: publicId.slice(prefix.length + TIME_DIGITS) };
}

/** How far an event has come: whether the summaries have it, and the dead letter that it is instead. */
type Progress = { readonly aggregated: boolean; readonly letter?: KnownLetter | undefined };

function toWire(meter: Meter, event: StoredEvent, { aggregated, letter }: Progress): z.output<typeof KnownEventObject> {
  return {
    id: placeId(meter, event),
    object: "billing.meter_event",
    aggregated,
    cancelled_at: event.cancelled === undefined ? null : toUnix(event.cancelled),
    cancelled_by: event.cancelledBy ?? null,
    created: toUnix(event.received),
    event_name: meter.eventName,
    identifier: event.identifier,
    livemode: meter.livemode,
    meter: meter.id,
    parked: letter === undefined ? null : parkedToWire(letter),
    payload: payloadOf(event, meter),
    reported_by: event.apiKey,
    timestamp: toUnix(event.timestamp),
  };
}

const parkedToWire = ({ id, reason, discarded }: KnownLetter) => ({
  dead_letter: id,
  reason,
  discarded_at: discarded === null ? null : toUnix(discarded),
});

/** Bounds of a v1 time: `timestamp[gte]=…`. */
const timeRange = z.strictObject({
  gt: unixSeconds.optional(),
  gte: unixSeconds.optional(),
  lt: unixSeconds.optional(),
  lte: unixSeconds.optional(),
});

/** The seconds that satisfy every bound given, as a half-open range (ms). */
function rangeOf({ gt, gte, lt, lte }: z.output<typeof timeRange>): { start: number; end: number } {
  const start = Math.max(0, gte ?? 0, gt === undefined ? 0 : gt + 1);
  const end = Math.min(lt ?? Number.POSITIVE_INFINITY, lte === undefined ? Number.POSITIVE_INFINITY : lte + 1);
  return { start: start * SECOND_MS, end: Math.min(end * SECOND_MS, Number.MAX_SAFE_INTEGER) };
}

const LATE_S = LATE_MS / SECOND_MS;

/** What `late[gte]` takes: seconds. */
const lateness = z
  .string(requiredError)
  .regex(/^[0-9]{1,9}$/, "it must be a number of seconds.")
  .transform(Number)
  .refine(
    (seconds) => seconds >= LATE_S,
    `it must be at least ${LATE_S}: there is no index of events that came less than an hour late.`,
  )
  .meta({ type: "integer", minimum: LATE_S, example: LATE_S });

const identifier = text(LIMITS.identifierLength);

const PATH = "/v1/billing/meter_events";

const listFields = {
  meter: text(LIMITS.payloadKeyLength).optional().meta({ description: "Needed, unless an identifier is given." }),
  customer: text(LIMITS.payloadValueLength)
    .optional()
    .meta({ description: "Needed with a meter, unless `late` is given." }),
  identifier: identifier.optional().meta({
    description:
      "The event with this identifier instead, as `GET /v1/billing/meter_events/{identifier}` finds it; also `.` and `..`, which cannot stand in a path.",
  }),
  timestamp: timeRange.optional(),
  created: timeRange.optional().meta({ description: "When they were received." }),
  late: z
    .strictObject({ gte: lateness })
    .optional()
    .meta({
      description: `Those received so many seconds after their timestamps or later (at least ${LATE_S}), latest receipt first; of all customers without one.`,
    }),
  cancelled: choice(["true", "false"]).optional(),
  ...paging,
};

type ListCall = Call<z.output<z.ZodObject<typeof listFields>>>;

const listEndpoint = defineEndpoint({
  apiVersion: "v1",
  method: "get",
  path: PATH,
  tag,
  summary: "List stored events",
  description:
    "edgemeter's own. Of one customer on one meter, latest timestamp first. An event shows up within seconds. With `late`: what came after its time, of one customer on a meter or of all, in the order of receipt. With an identifier: that event, at once, or none.",
  fields: listFields,
  ...COMPLETE,
  response: listOf(KnownEventObject),
  handle: async (call) => {
    const listed = await (call.input.identifier === undefined
      ? listOfCustomer(call)
      : listOfIdentifier(call, call.input.identifier));
    if (!listed.ok) return listed;
    const { placesRead, read } = listed.value;
    return readWithMoment(call, placesRead, async () => {
      const page = await read();
      return page.ok ? ok(toList(page.value, PATH, (event) => event)) : page;
    });
  },
});

type KnownEvent = z.output<typeof KnownEventObject>;

/** A list whose parameters are sound: how it is read, and from where. */
type Listed = {
  readonly placesRead: PlacesRead;
  readonly read: () => Promise<Result<Page<KnownEvent>, ApiError>>;
};

async function listOfCustomer(call: ListCall): Promise<Result<Listed, ApiError>> {
  const { input, env } = call;
  if (input.meter === undefined) return err({ reason: "missing_parameter", param: "meter" });
  const whose = whoseOf(input);
  if (whose === undefined) return err({ reason: "missing_parameter", param: "customer" });
  const found = await requireMeter(call, input.meter, "meter");
  if (!found.ok) return found;
  const meter = found.value;
  const cursor = cursorOf(input);
  if (!cursor.ok) return cursor;
  const place = cursor.value && placeOf(meter, cursor.value.id);
  if (cursor.value !== undefined && place === undefined) {
    return err({ reason: "no_such_event", id: cursor.value.id, param: cursor.value.param });
  }
  const read = async (): Promise<Result<Page<KnownEvent>, ApiError>> => {
    const events = await listEvents(env, {
      ...whose,
      meter,
      range: rangeOf(input.timestamp ?? {}),
      received: rangeOf(input.created ?? {}),
      cancelled: input.cancelled === undefined ? undefined : input.cancelled === "true",
      from: { order: isBackwards(cursor.value) ? "oldest_first" : "newest_first", place },
      limit: input.limit + 1,
    });
    if (!events.ok) return events;
    const { items, hasMore } = pageOf(events.value.events, cursor.value, input.limit);
    return ok({
      items: items.map((event) => toWire(meter, event, { aggregated: true })),
      hasMore: hasMore || events.value.isCut,
    });
  };
  return ok({ read, placesRead: (placement) => placesOf(placement, meter.id, whose.customer) });
}

/** Whose events, in which order; nothing when it takes a customer and there is none. */
function whoseOf({ customer, late }: ListCall["input"]): Whose | undefined {
  if (late !== undefined) return { customer, late: late.gte * SECOND_MS };
  return customer === undefined ? undefined : { customer, late: undefined };
}

/** A page of the one event that an identifier stands for, or of none. Its database is not known before. */
async function listOfIdentifier(call: ListCall, identifier: string): Promise<Result<Listed, ApiError>> {
  const { meter, customer, timestamp, created, late, cancelled, starting_after, ending_before } = call.input;
  for (const [param, given] of Object.entries({
    ...{ meter, customer, timestamp, created, late, cancelled },
    ...{ starting_after, ending_before },
  })) {
    const message = `Invalid ${param}: it cannot be combined with an identifier.`;
    if (given !== undefined) return err({ reason: "invalid_field", message, param });
  }
  const read = async (): Promise<Result<Page<KnownEvent>, ApiError>> => {
    const event = await retrieve(call, identifier);
    return event.ok ? ok({ items: event.value === undefined ? [] : [event.value], hasMore: false }) : event;
  };
  return ok({ read, placesRead: allPlaces });
}

const retrieveEndpoint = defineEndpoint({
  apiVersion: "v1",
  method: "get",
  path: `${PATH}/{identifier}`,
  tag,
  summary: "Retrieve an event by its identifier",
  description: "Within 24 hours of its receipt, also before the summaries count it, or when the database refuses it.",
  params: { identifier },
  fields: {},
  response: KnownEventObject,
  handle: async (call) => {
    const event = await retrieve(call, call.input.identifier);
    if (!event.ok) return event;
    return event.value === undefined
      ? err({ reason: "no_such_event", id: call.input.identifier, param: "identifier" })
      : ok(event.value);
  },
});

/** The event that took an identifier in the last 24 hours, as its log has it; nothing when there is none. */
async function retrieve(
  call: Call<unknown>,
  identifier: string,
): Promise<Result<z.output<typeof KnownEventObject> | undefined, ApiError>> {
  const { env, key } = call;
  const log = await logOf(call);
  if (!log.ok) return log;
  const retrieved = await retrieveFrom(env, log.value, keyOf(identifier, call));
  if (retrieved === undefined) return ok(undefined);
  const { event, shard, share, aggregated, cancelled } = retrieved;
  const [found, letter] = await Promise.all([
    requireMeter(call, event.meter),
    aggregated ? deadLetterOf(eventsDatabase(env, key.livemode, share.database), shard, share, event.id) : undefined,
  ]);
  if (!found.ok) return found;
  const progress = { aggregated: aggregated && letter === undefined, letter };
  return ok(toWire(found.value, { ...event, cancelled: cancelled?.at, cancelledBy: cancelled?.by }, progress));
}

export const meterEventEndpoints = [createEndpoint, listEndpoint, retrieveEndpoint];
