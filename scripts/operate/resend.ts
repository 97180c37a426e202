import { z } from "zod";
import type { Caller } from "./caller.ts";

const Resend = z.object({ status: z.enum(["started", "under_way"]), since: z.number(), groups: z.number() });

/** Has every log send again what was received `since` (unix seconds); prints and says whether it began. */
export async function resend(
  caller: Caller,
  since: number | undefined,
  print: (line: string) => void,
): Promise<boolean> {
  const fields: Record<string, string> = since === undefined ? {} : { since: String(since) };
  const { status, groups, since: from } = await caller.post("/v1/edgemeter/resend", fields, Resend);
  const started = status === "started";
  const what = started ? `${groups} groups` : "nothing was begun: the groups";
  const state = started ? "on their way again" : "still on their way from an earlier resend";
  print(
    `${what} received since ${new Date(from * 1_000).toISOString()} are ${state}; GET /v1/edgemeter/pipeline shows how many wait`,
  );
  return started;
}
