import { z } from "zod";
import type { Formula } from "../../src/domain/meter.ts";
import { CommandError } from "../command-error.ts";
import { errorOf, type Server, send } from "../http.ts";

/** The meter that the events are for. */
export type Meter = {
  readonly eventName: string;
  readonly formula: string;
  /** The payload's keys of customer and value. */
  readonly customerKey: string;
  readonly valueKey: string;
};

const MeterObject = z
  .object({
    id: z.string(),
    event_name: z.string(),
    default_aggregation: z.object({ formula: z.string() }),
    customer_mapping: z.object({ event_payload_key: z.string() }),
    value_settings: z.object({ event_payload_key: z.string() }),
  })
  .transform((meter) => ({
    id: meter.id,
    eventName: meter.event_name,
    formula: meter.default_aggregation.formula,
    customerKey: meter.customer_mapping.event_payload_key,
    valueKey: meter.value_settings.event_payload_key,
  }));

const MeterList = z.object({ data: z.array(MeterObject), has_more: z.boolean() });

/** Nothing has been sent yet, so a server that is not there is soon reported (ms). */
const PATIENCE_MS = 3_000;

/**
 * The active meter of an event name, created with `formula` if given and there is none. Throws a
 * `CommandError` when it cannot be had.
 */
export async function requireMeter(server: Server, eventName: string, formula: Formula | undefined): Promise<Meter> {
  const found = await findMeter(server, eventName);
  if (found !== undefined) return found;
  if (formula === undefined) {
    throw new CommandError(
      `there is no active meter for event name '${eventName}'. Create it first, or add --create-meter sum.`,
    );
  }
  await createMeter(server, eventName, formula);
  const created = await findMeter(server, eventName);
  if (created === undefined) throw new CommandError(`the meter for event name '${eventName}' was not to be found.`);
  return created;
}

async function findMeter(server: Server, eventName: string): Promise<Meter | undefined> {
  let after = "";
  for (;;) {
    const path = `/v1/billing/meters?status=active&limit=100${after}`;
    const answer = await send(server, { method: "GET", path }, PATIENCE_MS);
    if (!answer.ok) throw new CommandError(`the meters cannot be listed: ${errorOf(answer).message}`);
    const page = MeterList.safeParse(answer.body);
    if (!page.success)
      throw new CommandError(`${server.url} did not answer with a list of meters. Is it an edgemeter?`);
    const { data, has_more } = page.data;
    const found = data.find((meter) => meter.eventName === eventName);
    const last = data.at(-1);
    if (found !== undefined || !has_more || last === undefined) return found;
    after = `&starting_after=${encodeURIComponent(last.id)}`;
  }
}

/** Creates a meter. That somebody else just did is as good. */
async function createMeter(server: Server, eventName: string, formula: Formula): Promise<void> {
  const body = new URLSearchParams({
    display_name: eventName,
    event_name: eventName,
    "default_aggregation[formula]": formula,
  });
  const headers = { "content-type": "application/x-www-form-urlencoded" };
  const request = { method: "POST", path: "/v1/billing/meters", headers, body: body.toString() } as const;
  const answer = await send(server, request, PATIENCE_MS);
  if (answer.ok) return;
  const { message } = errorOf(answer);
  if (!message.startsWith("An active meter already exists")) {
    throw new CommandError(`the meter cannot be created: ${message}`);
  }
}
