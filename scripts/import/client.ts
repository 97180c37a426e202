import { randomUUID } from "node:crypto";
import { z } from "zod";
import { CommandError } from "../command-error.ts";
import { type Answer, errorOf, isExpired, type Server, send } from "../http.ts";
import type { ImportedEvent } from "./events.ts";
import type { Meter } from "./meters.ts";

/** What became of an event at the server. */
type Outcome =
  | { readonly outcome: "accepted" }
  | { readonly outcome: "duplicate" }
  | { readonly outcome: "rejected"; readonly error: string };

/** How long a row is tried: long enough for a server to be restarted (ms). */
const PATIENCE_MS = 120_000;

/** An event as both v2 endpoints take it. */
const toWire = ({ identifier, customer, value, timestamp }: ImportedEvent, meter: Meter): object => ({
  event_name: meter.eventName,
  identifier,
  payload: { [meter.valueKey]: value, [meter.customerKey]: customer },
  timestamp: new Date(timestamp).toISOString(),
});

/** A sender of events to a meter. It throws a `CommandError` when an event got no answer within `patience` ms. */
export function eventSender(
  server: Server,
  meter: Meter,
  patience = PATIENCE_MS,
): (event: ImportedEvent) => Promise<Outcome> {
  // With a key of its own in this run, a row's retry is told what its lost first attempt became.
  const run = randomUUID();

  return async (event) => {
    const answer = await send(
      server,
      {
        method: "POST",
        path: "/v2/billing/meter_events",
        headers: { "content-type": "application/json", "idempotency-key": `${run}-${event.row.number}` },
        body: JSON.stringify(toWire(event, meter)),
      },
      patience,
    );
    if (answer.ok) return { outcome: "accepted" };
    const { code, message } = errorOf(answer);
    return code === "duplicate_meter_event" ? { outcome: "duplicate" } : { outcome: "rejected", error: message };
  };
}

/** Events of one request to the stream; what the API takes at most. */
export const BATCH_SIZE = 100;

/**
 * A sender of up to BATCH_SIZE events at a time over a stream session, which it renews as needed.
 * A stream does not say which events it knew already, and reports refused ones later: `accepted`
 * means taken. It throws a `CommandError` when a batch got no answer within `patience` ms.
 */
export function batchSender(
  server: Server,
  meter: Meter,
  patience = PATIENCE_MS,
): (batch: readonly ImportedEvent[]) => Promise<Exclude<Outcome, { outcome: "duplicate" }>> {
  const run = randomUUID();
  let session: Promise<string> | undefined;

  const sendOver = async (token: string, batch: readonly ImportedEvent[]): Promise<Answer> => {
    const key = `${run}-${batch[0]?.row.number}-${batch.length}`;
    return send(
      { ...server, key: token },
      {
        method: "POST",
        path: "/v2/billing/meter_event_stream",
        headers: { "content-type": "application/json", "idempotency-key": key },
        body: JSON.stringify({ events: batch.map((event) => toWire(event, meter)) }),
      },
      patience,
    );
  };

  return async (batch) => {
    session ??= openSession(server, patience);
    const used = session;
    let answer = await sendOver(await used, batch);
    if (isExpired(answer)) {
      // Several batches may learn it at once; the first of them opens the next session.
      if (session === used) session = openSession(server, patience);
      answer = await sendOver(await session, batch);
    }
    return answer.ok ? { outcome: "accepted" } : { outcome: "rejected", error: errorOf(answer).message };
  };
}

/** Opens a stream session; its token works for 15 minutes. */
async function openSession(server: Server, patience: number): Promise<string> {
  const answer = await send(
    server,
    {
      method: "POST",
      path: "/v2/billing/meter_event_session",
      headers: { "content-type": "application/json" },
      body: "{}",
    },
    patience,
  );
  const session = Session.safeParse(answer.body);
  if (!session.success) throw new CommandError(`no stream session: ${errorOf(answer).message}`);
  return session.data.authentication_token;
}

const Session = z.object({ authentication_token: z.string() });
