import { allShards, eventLog } from "../../durable-objects/stubs.ts";
import { UNIQUENESS_MS } from "../../metering/limits.ts";
import { ok } from "../../metering/result.ts";
import { SECOND_MS } from "../../metering/windows.ts";
import { defineEndpoint } from "../endpoint.ts";
import { toUnix, unixSeconds } from "../fields.ts";
import * as z from "../zod.ts";
import { OPERATIONS, requireLiveKey } from "./operations.ts";

const Resend = z
  .object({
    object: z.literal("edgemeter.resend"),
    since: z.int(),
    groups: z.int().openapi({ description: "Groups of entries that were confirmed and are on their way again." }),
  })
  .openapi("Resend");

const resendEndpoint = defineEndpoint({
  door: "v1",
  method: "post",
  path: "/v1/edgemeter/resend",
  tag: OPERATIONS,
  summary: "Send what the logs remember again",
  description:
    "For a D1 that was restored to an earlier point: everything received since then goes to it again, from the last 24 hours unless told otherwise. What it has already changes nothing, so it may be repeated. Of both modes; needs a live key.",
  fields: {
    since: unixSeconds.optional().openapi({ type: "integer", description: "Unix seconds; 24 hours ago unless given." }),
  },
  response: Resend,
  handle: async (call) => {
    const allowed = requireLiveKey(call);
    if (!allowed.ok) return allowed;
    const { env, input, now } = call;
    const since = input.since === undefined ? now - UNIQUENESS_MS : input.since * SECOND_MS;
    const groups = await Promise.all(allShards(env).map((shard) => eventLog(env, shard).sendAllSince(since)));
    const resend: z.output<typeof Resend> = {
      object: "edgemeter.resend",
      since: toUnix(since),
      groups: groups.reduce((sum, count) => sum + count, 0),
    };
    return ok(JSON.stringify(resend));
  },
});

export const resendEndpoints = [resendEndpoint];
