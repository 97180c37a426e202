import { randomUUID } from "node:crypto";
import { z } from "zod";
import { LIMITS } from "../../src/domain/limits.ts";
import type { Formula } from "../../src/domain/meter.ts";
import { CommandError } from "../command-error.ts";
import { type Client, isExpired, parseAnswer } from "../http.ts";
import type { ImportedEvent } from "./events.ts";

const Meter = z
  .object({
    id: z.string(),
    event_name: z.string(),
    default_aggregation: z.object({ formula: z.string() }),
    customer_mapping: z.object({ event_payload_key: z.string() }),
    value_settings: z.object({ event_payload_key: z.string() }),
    event_time_window: z.string().nullish(),
  })
  .transform(({ id, event_name, default_aggregation, customer_mapping, value_settings, event_time_window }) => ({
    ...{ id, eventName: event_name, formula: default_aggregation.formula, eventTimeWindow: event_time_window ?? null },
    customerKey: customer_mapping.event_payload_key,
    valueKey: value_settings.event_payload_key,
  }));

/** The meter that the events are for, with the payload's keys of customer and value. */
export type Meter = Readonly<z.output<typeof Meter>>;

/**
 * The active meter of an event name, created with `formula` if given and there is none. Throws a
 * `CommandError` when there is none then.
 */
export async function requireMeter(client: Client, eventName: string, formula: Formula | undefined): Promise<Meter> {
  const found = await findMeter(client, eventName);
  if (found !== undefined) return found;
  if (formula === undefined) {
    throw new CommandError(
      `there is no active meter for event name '${eventName}'. Create it first, or add --create-meter sum.`,
    );
  }
  const form = { display_name: eventName, event_name: eventName, "default_aggregation[formula]": formula };
  const { ok, message } = await client.send({ path: "/v1/billing/meters", form });
  // A meter that another client has just created is as good.
  const created =
    ok || message.startsWith("An active meter already exists") ? await findMeter(client, eventName) : null;
  if (!created) throw new CommandError(`the meter for event name '${eventName}' cannot be created: ${message}`);
  return created;
}

async function findMeter(client: Client, eventName: string): Promise<Meter | undefined> {
  for await (const meter of client.list("/v1/billing/meters?status=active", Meter)) {
    if (meter.eventName === eventName) return meter;
  }
  return undefined;
}

/** What became of an event at the server: what it was counted as, or why it was rejected. */
export type Outcome = z.output<typeof Outcome>;

const Outcome = z
  .discriminatedUnion("outcome", [
    z.object({ outcome: z.literal(["accepted", "accepted_before"]) }),
    z.object({ outcome: z.literal("refused"), code: z.string(), message: z.string() }),
  ])
  .transform((told): "accepted" | "duplicate" | { readonly error: string } => {
    if (told.outcome !== "refused") return told.outcome === "accepted" ? "accepted" : "duplicate";
    return told.code === "duplicate_meter_event" ? "duplicate" : { error: told.message };
  });

/** An event as a stream takes it. */
const toWire = (event: ImportedEvent, meter: Meter): object => ({
  event_name: meter.eventName,
  identifier: event.identifier,
  payload: payloadOf(event, meter),
  timestamp: new Date(event.timestamp).toISOString(),
});

/** A meter that counts ignores the value: what an exported event of it has under that key is a payload of its own. */
const payloadOf = ({ customer, value, payload }: ImportedEvent, meter: Meter): object => ({
  ...payload,
  ...(payload === undefined || meter.formula !== "count" ? { [meter.valueKey]: value } : {}),
  [meter.customerKey]: customer,
});

/** Events of one request; what the API takes at most. */
export const BATCH_SIZE = LIMITS.streamEvents;

const Session = z.object({ authentication_token: z.string() });

/**
 * A sender of up to BATCH_SIZE events at a time, which gives the outcome of each. It streams in a session, which it
 * renews as needed. It throws a `CommandError` when a batch got no response.
 */
export function eventSender(
  client: Client,
  meter: Meter,
): (events: readonly ImportedEvent[]) => Promise<readonly Outcome[]> {
  // With a key of its own in this run, a retry is told what its lost first attempt became.
  const run = randomUUID();
  let session: Promise<string> | undefined;

  /** Its token works for 15 minutes. */
  const openSession = async (): Promise<string> =>
    (await client.call({ path: "/v2/billing/meter_event_session", json: {} }, Session)).authentication_token;

  return async function send(events): Promise<readonly Outcome[]> {
    const request = {
      path: "/v2/billing/meter_event_stream",
      headers: { "edgemeter-outcomes": "true" },
      idempotencyKey: `${run}-${events[0]?.row.number}-${events.length}`,
      json: { events: events.map((event) => toWire(event, meter)) },
    };
    session ??= openSession();
    const used = session;
    let answer = await client.send({ ...request, key: await used });
    if (isExpired(answer)) {
      // Several requests may learn it at once; the first of them opens the next session.
      if (session === used) session = openSession();
      answer = await client.send({ ...request, key: await session });
    }
    if (answer.ok) {
      const Told = z.object({ outcomes: z.array(Outcome).length(events.length) });
      return parseAnswer(request, answer, Told).outcomes;
    }
    if (events.length <= 1) return events.map(() => ({ error: ofOneEvent(answer.message) }));
    // An event of a wrong shape refuses its whole request: by halves, only the bad ones are rejected.
    const middle = Math.ceil(events.length / 2);
    const first = await send(events.slice(0, middle));
    return [...first, ...(await send(events.slice(middle)))];
  };
}

/** A message about the only event of a request, without its place there. */
const ofOneEvent = (message: string): string => message.replace(/events\[0\]\[(\w+)\]/, "$1");
