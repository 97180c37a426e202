import { z } from "@hono/zod-openapi";
import { auditLog } from "../../auditing/audit-log.ts";
import { auditSummaries, countStored } from "../../auditing/audit-summaries.ts";
import { BEGINNING, END } from "../../auditing/days.ts";
import { logReach, SETTLED_MS } from "../../auditing/scheduled.ts";
import { allShards, eventLog } from "../../durable-objects/stubs.ts";
import { type Env, settingsOf } from "../../env.ts";
import { UNIQUENESS_MS } from "../../metering/limits.ts";
import { err, ok, type Result } from "../../metering/result.ts";
import { floorTo, MINUTE_MS, type TimeRange } from "../../metering/windows.ts";
import { eventsDatabase } from "../../storage/databases.ts";
import { type Call, defineEndpoint } from "../endpoint.ts";
import type { ApiError } from "../errors.ts";
import { choice, optional } from "../fields.ts";
import { OPERATIONS, requireLiveKey } from "./operations.ts";

/** Rows of events whose days' summaries are recomputed in one step. */
const STEP_ROWS = 20_000;

const place = z.strictObject({ meter: z.string(), customer: z.string(), time: z.int() });

/** Where the next step begins: in a shard of the log, after a group; or among the summaries. */
const Position = z.strictObject({
  /** What is received in it is counted on both sides (ms). */
  received: z.strictObject({ start: z.int(), end: z.int() }),
  at: z.union([z.strictObject({ shard: z.int().min(0), after: z.int() }), place]),
});

type Position = z.output<typeof Position>;

const counts = z.record(z.string(), z.int());

const AuditStep = z
  .object({
    object: z.literal("edgemeter.audit_step"),
    checked: z.int().openapi({ description: "Entries of the log that were compared with D1." }),
    missing: z.int().openapi({ description: "Of these, those that D1 had not; sent again." }),
    altered: z.int().openapi({ description: "Events that D1 had otherwise than logged; put right." }),
    days: z.int().openapi({ description: "Days of a customer on a meter whose summaries were recomputed." }),
    summaries_repaired: z.int(),
    summaries_suspect: z.int().openapi({
      description: "Summaries from before the log's reach that say more than their events; left as they are.",
    }),
    days_failed: z.int().openapi({ description: "Days, or hours of big days, that D1 could not recompute." }),
    waiting: z.int().openapi({ description: "Entries that wait for the aggregator, and are not compared." }),
    accepted: counts.openapi({ description: "Events in the log, by the minute (ms) they were received in." }),
    stored: counts.openapi({ description: "Events in D1, likewise." }),
    counted: z
      .object({ start: z.int(), end: z.int() })
      .openapi({ description: "The minutes (ms) in which `accepted` and `stored`, summed over all steps, agree." }),
    next: z.string().nullable().openapi({ description: "The cursor of the next step; null after the last." }),
  })
  .openapi("AuditStep");

type AuditStep = z.output<typeof AuditStep>;

const auditEndpoint = defineEndpoint({
  door: "v1",
  method: "post",
  path: "/v1/edgemeter/audit",
  tag: OPERATIONS,
  summary: "One step of a full audit",
  description:
    "Compares the log with D1, then every summary with its events, in steps: call it again with `next` until that is null. Repairs what differs. Of both modes; needs a live key. `npm run audit` does it all.",
  fields: {
    // It may hold a customer's name, in which each character can take six bytes of JSON.
    cursor: optional(z.string().max(8_000)).openapi({ type: "string" }),
    trust_events: optional(choice(["true", "false"])).openapi({
      type: "boolean",
      description: "Recompute also what is suspect: the events are all there.",
    }),
  },
  response: AuditStep,
  handle: async (call) => {
    const allowed = requireLiveKey(call);
    if (!allowed.ok) return allowed;
    const position = await positionOf(call);
    if (!position.ok) return position;
    const { received, at } = position.value;
    const lessFrom = call.input.trust_events === "true" ? 0 : logReach(call.now);
    const step =
      "shard" in at
        ? await stepLog(call.env, at, received, call.now - SETTLED_MS)
        : await stepSummaries(call.env, at, received, lessFrom);
    return ok(JSON.stringify({ object: "edgemeter.audit_step", ...NOTHING, counted: received, ...step }));
  },
});

const NOTHING = {
  ...{ checked: 0, missing: 0, altered: 0, waiting: 0 },
  ...{ days: 0, summaries_repaired: 0, summaries_suspect: 0, days_failed: 0 },
  ...{ accepted: {}, stored: {} },
};

async function positionOf({
  env,
  input,
  now,
}: Call<{ cursor?: string | undefined }>): Promise<Result<Position, ApiError>> {
  if (input.cursor === undefined) return ok({ received: await countedRange(env, now), at: { shard: 0, after: 0 } });
  const decoded = Position.safeParse(parse(Buffer.from(input.cursor, "base64url").toString()));
  if (decoded.success && isKnown(decoded.data, env)) return ok(decoded.data);
  return err({ reason: "invalid_field", message: "Invalid cursor: it is not one of an audit.", param: "cursor" });
}

/** Whether it stands where an audit comes by: to ask for another shard would make one. */
const isKnown = ({ at }: Position, env: Env): boolean =>
  !("shard" in at) || at.shard < settingsOf(env).EVENT_LOG_SHARDS;

/** The minutes whose events must all be in D1 by now, as far as every log goes back. */
async function countedRange(env: Env, now: number): Promise<TimeRange> {
  const oldest = await Promise.all(allShards(env).map((shard) => eventLog(env, shard).oldestWaiting()));
  const end = Math.min(now - SETTLED_MS, ...oldest.flatMap((time) => time ?? []));
  return { start: floorTo(now - UNIQUENESS_MS, MINUTE_MS) + MINUTE_MS, end: floorTo(end, MINUTE_MS) };
}

async function stepLog(
  env: Env,
  { shard, after }: { shard: number; after: number },
  received: TimeRange,
  before: number,
): Promise<Partial<AuditStep>> {
  const log = eventLog(env, shard);
  const { last, incomplete, accepted, ...found } = await auditLog(env, shard, after, before);
  if (incomplete.length > 0) await log.sendAgain(incomplete);
  const isLastShard = shard + 1 >= settingsOf(env).EVENT_LOG_SHARDS;
  const nextPart = isLastShard ? BEGINNING : { shard: shard + 1, after: 0 };
  const at = last === undefined ? nextPart : { shard, after: last };
  const inRange = Object.entries(accepted).filter(
    ([minute]) => Number(minute) >= received.start && Number(minute) < received.end,
  );
  return {
    ...found,
    waiting: last === undefined ? (await log.status()).entries : 0,
    accepted: Object.fromEntries(inRange),
    next: encode({ received, at }),
  };
}

async function stepSummaries(
  env: Env,
  from: z.output<typeof place>,
  received: TimeRange,
  lessFrom: number,
): Promise<Partial<AuditStep>> {
  const { days, repaired, suspect, failed, next } = await auditSummaries(env, from, { rows: STEP_ROWS, lessFrom });
  const stored = await countStored(eventsDatabase(env), from, next, received);
  return {
    days,
    summaries_repaired: repaired,
    summaries_suspect: suspect,
    days_failed: failed,
    stored,
    next: next === END ? null : encode({ received, at: next }),
  };
}

const encode = (position: Position): string => Buffer.from(JSON.stringify(position)).toString("base64url");

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

export const auditEndpoints = [auditEndpoint];
