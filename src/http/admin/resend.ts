import * as z from "zod";
import { UNIQUENESS_MS } from "../../domain/limits.ts";
import { ok } from "../../domain/result.ts";
import { SECOND_MS } from "../../domain/window.ts";
import type { Env } from "../../env.ts";
import { allShards, eventLog } from "../../log/shards.ts";
import { defineEndpoint } from "../endpoint.ts";
import { toUnix, unixSeconds } from "../fields.ts";
import { OPERATIONS, requireLiveKey } from "./operations.ts";

const Resend = z
  .object({
    object: z.literal("edgemeter.resend"),
    status: z.enum(["started", "under_way"]).meta({
      description:
        "`under_way`: no shard has had all groups of an earlier call confirmed yet, and this call did nothing.",
    }),
    since: z.int().meta({ description: "Of the resend that is under way now." }),
    groups: z.int().meta({ description: "Groups of entries that were confirmed and are being resent." }),
  })
  .meta({ id: "Resend" });

const resendEndpoint = defineEndpoint({
  apiVersion: "v1",
  method: "post",
  needs: "operate",
  path: "/v1/edgemeter/resend",
  tag: OPERATIONS,
  summary: "Resend what the logs remember",
  description:
    "For a D1 that was restored to an earlier point: the logs resend everything received since then, or in the last 24 hours unless `since` is given. What D1 has already changes nothing, new events are sent meanwhile, and a call while an earlier one is under way does nothing. Of both modes; needs a live key.",
  fields: {
    since: unixSeconds.optional().meta({ type: "integer", description: "Unix seconds; 24 hours ago unless given." }),
  },
  response: Resend,
  handle: async (call) => {
    const allowed = requireLiveKey(call);
    if (!allowed.ok) return allowed;
    const { env, input, now } = call;
    const since = input.since === undefined ? now - UNIQUENESS_MS : input.since * SECOND_MS;
    // Each shard by itself begins, or ignores this while its own resend is under way. So a call whose response was
    // lost, or that some shards did not hear, can be repeated.
    const shards = await Promise.all((await allShards(env)).map((shard) => resend(env, shard, since)));
    const began = shards.filter(({ groups }) => groups !== undefined);
    if (began.length === 0) return ok(toWire("under_way", Math.min(...shards.map(({ underWay }) => underWay)), 0));
    const groups = began.reduce((sum, shard) => sum + (shard.groups ?? 0), 0);
    return ok(toWire("started", since, groups));
  },
});

/** What a shard did: the groups that it resends, if it began, and since when (ms) those are that it resends now. */
async function resend(
  env: Env,
  shard: string,
  since: number,
): Promise<{ readonly groups: number | undefined; readonly underWay: number }> {
  const log = eventLog(env, shard);
  const groups = await log.sendAllSince(since);
  return { groups, underWay: (await log.resendUnderWay()) ?? since };
}

/** `since` in ms. */
const toWire = (status: "started" | "under_way", since: number, groups: number): z.output<typeof Resend> => ({
  object: "edgemeter.resend",
  status,
  since: toUnix(since),
  groups,
});

export const resendEndpoints = [resendEndpoint];
