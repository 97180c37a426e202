import * as z from "zod";
import { newId } from "../../domain/identifiers.ts";
import { ok } from "../../domain/result.ts";
import { defineEndpoint } from "../endpoint.ts";
import { issueSession } from "../session-token.ts";

const MeterEventSession = z
  .object({
    object: z.literal("v2.billing.meter_event_session"),
    id: z.string(),
    livemode: z.boolean(),
    authentication_token: z.string().meta({ description: "Authenticates the calls of a stream." }),
    created: z.iso.datetime(),
    expires_at: z.iso.datetime(),
  })
  .meta({ id: "V2MeterEventSession" });

const createSession = defineEndpoint({
  apiVersion: "v2",
  method: "post",
  path: "/v2/billing/meter_event_session",
  tag: "Meter event streams",
  summary: "Open a session for streaming events",
  description: "Its token lasts 15 minutes and is good for `POST /v2/billing/meter_event_stream` alone.",
  errors: ["sessions_not_configured"],
  needs: "ingest",
  limit: "streams",
  fields: {},
  response: MeterEventSession,
  // A retry with the same Idempotency-Key gets a new session: to return the first token, it would have to be
  // stored in clear. A new session is as good, and a session that its caller never received does no harm.
  handle: async ({ key, env, now }) => {
    const session = await issueSession(key, env.SESSION_SECRET, now);
    if (!session.ok) return session;
    const { token, created, expires } = session.value;
    const object: z.output<typeof MeterEventSession> = {
      object: "v2.billing.meter_event_session",
      id: `mtr_event_session_${newId()}`,
      livemode: key.livemode,
      authentication_token: token,
      created: new Date(created).toISOString(),
      expires_at: new Date(expires).toISOString(),
    };
    return ok(object);
  },
});

export const meterEventSessionEndpoints = [createSession];
