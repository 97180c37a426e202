// How complete the responses of reads are, and reads that wait for it.

import * as z from "zod";
import { oldestDeadLetter } from "../aggregate/dead-letters.ts";
import { eventsDatabase } from "../catalog/databases.ts";
import { checkBound } from "../catalog/deployment.ts";
import { SECOND_MS } from "../domain/window.ts";
import type { Env } from "../env.ts";
import { contextOf } from "../log/calls.ts";
import { Completeness, type PlacesRead, type Sources } from "../log/completeness.ts";
import { eventLog, recordedLogOfMode } from "../log/shards.ts";
import type { Call } from "./endpoint.ts";
import type { Handled } from "./response.ts";

const WAIT = "edgemeter-wait";
const THROUGH = "edgemeter-complete-through";

/** The longest wait (s). */
const MAX_WAIT_S = 10;

/** What the definition of a read has that says how complete it is. */
export const COMPLETE = {
  headers: {
    [WAIT]: z
      .string()
      .regex(/^([0-9]|10)$/, `it must be an integer from 0 to ${MAX_WAIT_S}.`)
      .transform(Number)
      .optional()
      .meta({
        type: "integer",
        minimum: 0,
        maximum: MAX_WAIT_S,
        description:
          "edgemeter's own: wait so many seconds, at most, until all that was received before this request is in the response; a 503 `not_included_in_time` when it is not.",
      }),
  },
  responseHeaders: z.object({
    [THROUGH]: z.string().optional().meta({
      format: "date-time",
      description:
        "edgemeter's own: every event of the mode that was received before this moment is in the response. Absent when the log cannot say it.",
    }),
  }),
};

/** What this isolate knows of each mode. */
const ofMode = { live: new Completeness(), test: new Completeness() };

const sourcesIn = (env: Env, livemode: boolean): Sources => ({
  context: async () => {
    const context = await recordedLogOfMode(env, livemode);
    // A log learns from those who ask it how many databases there are, and must not place events in one that is not bound.
    if (livemode && !checkBound(env, context.placement).ok) throw new Error("not all events databases are bound");
    return context;
  },
  ask: (shard, context, isAwaited) => eventLog(env, shard).progress(contextOf(context), isAwaited),
  oldestLetter: (place) => oldestDeadLetter(eventsDatabase(env, livemode, place)),
});

/**
 * Reads from databases once they have what the call waits for, and says in the response up to which moment they were
 * complete before it was read.
 */
export async function readWithMoment<T extends object>(
  { env, key, now, input }: Call<{ readonly [WAIT]?: number | undefined }>,
  placesRead: PlacesRead,
  read: () => Promise<Handled<T>>,
): Promise<Handled<T>> {
  const completeness = key.livemode ? ofMode.live : ofMode.test;
  const sources = sourcesIn(env, key.livemode);
  const { [WAIT]: seconds } = input;
  if (seconds !== undefined && !(await completeness.isIncluded(sources, placesRead, now + seconds * SECOND_MS))) {
    return { ok: false, error: { reason: "not_included_in_time", seconds } };
  }
  const through = await completeness.through(sources, placesRead);
  const handled = await read();
  if (!handled.ok || through === undefined) return handled;
  return { ...handled, headers: { ...handled.headers, [THROUGH]: new Date(through).toISOString() } };
}
